"""Base classes of stores, with an answer for each call that a store may leave out.

:class:`BasicBackend` asks for five calls. :class:`ExchangingBackend` performs the frequent calls of a store
that writes them as exchanges. :class:`lockkit.store.documents.DocumentBackend` has all calls for a store that
can compare and swap a document.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

from lockkit.errors import CapabilityError
from lockkit.facts import Capabilities, Evicted, Finding, LockInfo, Record
from lockkit.store.spi import (
    NO_EXTRAS,
    Answer,
    Beat,
    Claim,
    End,
    Exchanges,
    Extras,
    Refused,
    ReleaseAnswer,
    Renewal,
    Watch,
)

if TYPE_CHECKING:
    from lockkit.store.exchanges import Exchange

__all__ = ["CALLS", "BasicBackend", "ExchangingBackend", "LeftOut", "Unwatched", "missing"]

T = TypeVar("T")

CALLS = (
    "acquire", "renew", "release", "inspect", "close",
    "abandon", "emergency_release", "watch", "extend", "names", "evict", "resize", "annotate", "record",
    "put_record", "check",
)  # fmt: skip
"""Every call of :class:`lockkit.store.spi.Backend`. A store must have the first five."""
_REFUSED = ("extend", "names", "evict", "resize", "annotate", "put_record")


class LeftOut(CapabilityError):
    """The store leaves out the call that was made. The kit skips a scenario that makes such a call."""


class Unwatched:
    """The watch of a store without notifications. The waiter asks again after the poll cap."""

    def close(self) -> None:
        """Do nothing."""


class BasicBackend(ABC):
    """A store that has ``acquire``, ``renew``, ``release``, ``inspect`` and ``close``, and perhaps more.

    What happens without the other calls of :class:`lockkit.store.spi.Backend`:

    - ``watch``: waiters ask again every two seconds.
    - ``abandon`` is a ``release``, ``emergency_release`` an ``abandon``: enough if no acquire arrives late.
    - ``extend``, ``names``, ``evict``, ``resize``, ``annotate``, ``put_record`` raise a CapabilityError.
    - ``record``: there is none.
    - ``check`` reports the calls that are refused.

    Attributes:
        capabilities: The capabilities of the open store.
    """

    capabilities: Capabilities

    @property
    def extras(self) -> Extras:
        """See :attr:`lockkit.store.spi.Backend.extras`."""
        return NO_EXTRAS

    @abstractmethod
    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
        """See :meth:`lockkit.store.spi.Backend.acquire`."""

    @abstractmethod
    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        """See :meth:`lockkit.store.spi.Backend.renew`."""

    @abstractmethod
    def release(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.release`."""

    @abstractmethod
    def inspect(self, name: str, budget: float) -> LockInfo:
        """See :meth:`lockkit.store.spi.Backend.inspect`."""

    @abstractmethod
    def close(self) -> None:
        """See :meth:`lockkit.store.spi.Backend.close`."""

    # -- calls that may be left out

    def abandon(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.abandon`. The same as ``release``."""
        return self.release(claim, budget, how=how)

    def emergency_release(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.emergency_release`. The same as ``abandon``."""
        return self.abandon(claim, budget, how=how)

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.watch`. Never wakes."""
        return Unwatched()

    def extend(self, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.extend`."""
        self._refuse("extend")

    def names(self, prefix: str, budget: float, *, deep: bool = False) -> Sequence[str]:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.names`."""
        self._refuse("names")

    def evict(self, name: str, claim_id: str, budget: float, *, now: bool = False) -> Evicted:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.evict`."""
        self._refuse("evict")

    def resize(self, name: str, capacity: int, budget: float) -> int:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.resize`."""
        self._refuse("resize")

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.annotate`."""
        self._refuse("annotate")

    def record(self, name: str, budget: float) -> Record | None:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.record`. There is none."""
        return None

    def put_record(self, name: str, value: Mapping[str, object], version: int, budget: float) -> Record:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.put_record`."""
        self._refuse("put_record")

    def check(self, budget: float) -> Sequence[Finding]:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.check`. Reports the calls that are refused."""
        refused = [name for name in _REFUSED if getattr(type(self), name) is getattr(BasicBackend, name)]
        if not refused:
            return []
        return [
            Finding("calls", "warning", f"this store has no {', '.join(refused)}", "see its documentation")
        ]

    def _refuse(self, call: str) -> NoReturn:
        """Refuse a call that the store leaves out."""
        text = f"this store has no {call} ({type(self).__module__}.{type(self).__qualname__} leaves it out)"
        raise Refused(LeftOut(text, hint="use another store, or ask the author of this one"), retry=False)


class Performs(Protocol):
    """Performs an exchange and returns its result, as :class:`lockkit.store.performing.Blocking` does."""

    def __call__(self, exchange: Exchange[T]) -> T: ...


class ExchangingBackend(BasicBackend):
    """A store whose frequent calls are exchanges: each call performs the exchange of its name.

    Attributes:
        exchanges: The frequent calls without I/O.
        perform: Performs an exchange on blocking connections, and returns its result.
    """

    exchanges: Exchanges
    perform: Performs

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
        """See :meth:`lockkit.store.spi.Backend.acquire`."""
        return self.perform(self.exchanges.acquire(claim, create, budget))

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        """See :meth:`lockkit.store.spi.Backend.renew`."""
        return self.perform(self.exchanges.renew(beats, budget))

    def release(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.release`."""
        return self.perform(self.exchanges.release(claim, budget, how=how))

    def abandon(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.abandon`."""
        return self.perform(self.exchanges.abandon(claim, budget, how=how))

    def emergency_release(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.emergency_release`."""
        return self.perform(self.exchanges.emergency_release(claim, budget, how=how))


def missing(backend: object) -> list[str]:
    """The parts of :class:`lockkit.store.spi.Backend` that an object lacks, in the order of that class."""
    return [
        *(name for name in ("capabilities", "extras") if not hasattr(backend, name)),
        *(name for name in CALLS if not callable(getattr(backend, name, None))),
    ]
