"""Releases as the JSON documents of commands have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lockkit.cli import parts
from lockkit.notes.members import in_pool
from lockkit.views.texts import rfc3339

if TYPE_CHECKING:
    from lockkit.facts import ReleaseReport
    from lockkit.sync.lease import Lease

__all__ = ["released", "run_leases"]


def released(report: ReleaseReport) -> parts.Released:
    """The result of a release, layer by layer."""
    return parts.Released(
        outcome=report.outcome,
        reason=report.reason,
        expires_by=rfc3339(report.expires_by),
        expires_by_seconds=report.expires_by,
        layers=[
            parts.Layer(
                layer=layer.layer,
                outcome=layer.outcome,
                duration_seconds=layer.duration,
                error=layer.error,
                hooks=[
                    parts.Hook(
                        plugin=hook.plugin,
                        outcome=hook.outcome,
                        duration_seconds=hook.duration,
                        error=hook.error,
                    )
                    for hook in layer.hooks
                ],
            )
            for layer in report.layers
        ],
    )


def run_leases(leases: Iterable[Lease]) -> list[parts.RunLease]:
    """Each lock with its release, as far as there is one."""
    return [
        parts.RunLease(
            name=lease.name,
            member=found[1] if (found := in_pool(lease.name)) is not None else None,
            claim_id=lease.claim_id,
            fence=lease.fence,
            release=None if lease.report is None else released(lease.report),
        )
        for lease in leases
    ]
