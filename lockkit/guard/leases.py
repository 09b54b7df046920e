"""Leases that a guard takes: exclusive ones, checked before any I/O."""

from __future__ import annotations

from typing import Protocol

from lockkit.errors import ConfigError
from lockkit.guard.record import LONGEST

__all__ = ["FencedLease", "accepted"]


class FencedLease(Protocol):
    """A lease as a guard needs it; :class:`lockkit.Lease` is one."""

    @property
    def name(self) -> str:
        """The name of the lock."""

    @property
    def fence(self) -> int:
        """The fencing token, 1 to 2**63 - 1. Higher for each later holder of the same lock."""

    @property
    def exclusive(self) -> bool:
        """Whether the lock has no second holder at the same time."""

    def ensure_held(self) -> None:
        """Raise unless the lease is valid. No I/O."""


def accepted(lease: FencedLease) -> FencedLease:
    """Return the lease if a guard can use it.

    Raises:
        ConfigError: No lease, a copy of one, or a lease that others may share.
    """
    exclusive, fence = getattr(lease, "exclusive", None), getattr(lease, "fence", None)
    if exclusive is None or not callable(getattr(lease, "ensure_held", None)):
        raise ConfigError(
            f"a guard takes the lease of a lock, not {type(lease).__name__}",
            hint="with client.lock(name).acquire() as lease: gate.open(lease)",
        )
    if not exclusive:
        raise ConfigError(
            f"the lease of {lease.name!r} is shared: its other holders have other fences and may be just as "
            "valid",
            hint="guard with a lock, with the writer of a reader/writer lock, or with a whole member of a "
            "pool",
        )
    if isinstance(fence, bool) or not isinstance(fence, int) or not 0 < fence <= LONGEST:
        raise ConfigError(f"a fence must be a whole number from 1 to 2**63 - 1, not {fence!r}")
    return lease
