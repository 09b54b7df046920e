"""Programs with locked Celery tasks, for type checkers. Celery is untyped: arguments are not checked."""

from __future__ import annotations

from typing import assert_type

from celery import Celery

import lockkit
from lockkit import Lease, PoolLeases, Skipped
from lockkit.gpu import GpuLeases
from lockkit.integrations.celery import LockedTask, client_of, locked_task, skipped_in

app = Celery("proj")


class Billing(LockedTask):
    """A base class with options of its own."""

    abstract = True
    ttl = 30
    on_busy = "skip"


class Wrong(LockedTask):
    """A class whose options have wrong types."""

    abstract = True
    ttl = "30s"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    on_busy = "someday"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


@locked_task(app, bind=True, lock="invoice:{invoice_id}", base=Billing, on_busy="retry", max_wait=600)
def bill(self: LockedTask, invoice_id: int) -> str:
    """The leases of a task that gets itself."""
    assert_type(self.lease, Lease)
    assert_type(self.lease.fence, int)
    self.lease.beat(progress=0.5, message="half")
    assert_type(self.leases, PoolLeases)
    assert_type(self.gpus, GpuLeases)
    return f"{invoice_id}"


@locked_task(lock="a", on_busy="someday")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def wrong() -> None:
    """A mistake that a type checker finds before the decorator does."""


def what_a_program_asks() -> None:
    """A decorated task, its client, and a result that may be that of a skipped one."""
    assert_type(bill, LockedTask)
    assert_type(client_of(app), lockkit.Client)
    assert_type(skipped_in(bill.delay(7).get()), Skipped | None)
