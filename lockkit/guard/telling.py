"""Events of guards: openings, writes and refusals, reported by the client that got the lease.

Events go to the plugins' queues, so a guarded write waits for no plugin. A lease of no client in this
process, such as that of a ``lockkit run`` or task around it, reports nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, Protocol, TypeAlias

from lockkit.guard.leases import FencedLease
from lockkit.lib.clock import SYSTEM

__all__ = ["Place", "began", "refused", "tell", "telling"]

Step: TypeAlias = Literal["guard_opened", "guard_written"]


class Place(Protocol):
    """A guarded resource, as events name it.

    Attributes:
        where: The resource, for messages, without secrets.
    """

    where: str


def began() -> float:
    """The time before a step, for :func:`tell`, by CLOCK_BOOTTIME, so that it is early after a suspend."""
    return SYSTEM.now()


def tell(lease: FencedLease, kind: Step, place: Place, since: float) -> None:
    """Report that the resource has accepted a step, at some moment between ``since`` and now."""
    _send(lease, kind, SYSTEM.now() - since, _about(place))


def refused(lease: FencedLease, place: Place, stored: int) -> None:
    """Report that the resource refused a stale fence; ``stored`` is its own fence, 0 if it has none."""
    _send(lease, "guard_refused", None, {**_about(place), "stored": stored})


@contextmanager
def telling(lease: FencedLease, kind: Step, place: Place) -> Iterator[None]:
    """Report that the resource has accepted a step if the body raises nothing."""
    since = began()
    yield
    tell(lease, kind, place, since)


def _about(place: Place) -> dict[str, object]:
    # On another host the same words name another file.
    return {"resource": place.where, "local": getattr(place, "local", False) or None}


def _send(lease: FencedLease, kind: str, duration: float | None, data: Mapping[str, object]) -> None:
    send = getattr(lease, "tell_guard", None)
    if send is not None:
        send(kind, duration, data)
