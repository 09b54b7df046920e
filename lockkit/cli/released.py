"""Releases as the JSON documents of commands have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lockkit.cli import parts
from lockkit.notes.members import in_pool
from lockkit.views.making import made_of

if TYPE_CHECKING:
    from lockkit.sync.lease import Lease

__all__ = ["run_leases"]


def run_leases(leases: Iterable[Lease]) -> list[parts.RunLease]:
    """Each lock with its release, as far as there is one."""
    return [
        made_of(parts.RunLease, lease, member=(in_pool(lease.name) or (None, None))[1], release=lease.report)
        for lease in leases
    ]
