"""Events of guards: openings, writes and refusals, told by the client that got the lease.

The event goes to the queues of the plugins, so a guarded write waits for no plugin. A lease that is not of a client in this process, such as
that of a ``lockkit run`` or task around it, tells nothing.
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
    """The time before a step, for :func:`tell`. Of CLOCK_BOOTTIME, so that a step which a suspended host answers late has begun early."""
    return SYSTEM.now()


def tell(lease: FencedLease, kind: Step, place: Place, since: float) -> None:
    """Tell that the resource has accepted a step, at some moment between ``since`` and now."""
    _send(lease, kind, SYSTEM.now() - since, _about(place))


def refused(lease: FencedLease, place: Place, stored: int) -> None:
    """Tell that the resource has refused a stale fence; ``stored`` is the fence that it has instead, 0 if none."""
    _send(lease, "guard_refused", None, {**_about(place), "stored": stored})


@contextmanager
def telling(lease: FencedLease, kind: Step, place: Place) -> Iterator[None]:
    """Tell that the resource has accepted a step if the body raises nothing."""
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
