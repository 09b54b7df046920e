"""The environment of the programs that a task starts: it tells them of the locks and GPUs of the task."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

from lockkit.client import Client
from lockkit.environment import environment_set
from lockkit.integrations.celery.taking import Held
from lockkit.integrations.celery.worker_pool import pool_kind
from lockkit.lease import Lease
from lockkit.outer import described, outer_holds, variables

if TYPE_CHECKING:
    from lockkit.gpu import GpuLeases

__all__ = ["exported"]


@contextlib.contextmanager
def exported(client: Client, held: Held, *, gpus: bool) -> Iterator[None]:
    """Set the variables of ``lockkit run`` while a task runs, but for the token: a program needs no secret to say what it works under.

    The environment belongs to the whole process, so the task of a thread beside the main one sets nothing: others run at the same time. In a pool of
    processes each task runs in the main thread of its own.

    Args:
        client: The client.
        held: The leases of the task.
        gpus: Whether they are those of GPUs, which are to be visible alone.
    """
    with contextlib.ExitStack() as stack:
        if gpus and pool_kind() != "threads":
            stack.enter_context(cast("GpuLeases", held).visible())
        if threading.current_thread() is threading.main_thread():
            leases: Sequence[Lease] = [held] if isinstance(held, Lease) else held
            holds = [*outer_holds(os.environ), *described(client, leases)]
            stack.enter_context(
                environment_set(variables([lease.name for lease in leases], holds, leases[0].fence))
            )
        yield
