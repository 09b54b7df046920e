"""The environment of the programs that a task starts, which names the locks and GPUs of the task."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from lockkit.integrations.celery.taking import Held
from lockkit.integrations.celery.worker_pool import pool_kind
from lockkit.protocol.outer import outer_holds, variables
from lockkit.shared.leases import described
from lockkit.sync.client import Client
from lockkit.sync.lease import Lease

if TYPE_CHECKING:
    from lockkit.gpu import GpuLeases

__all__ = ["exports"]


def exports(client: Client, held: Held, *, gpus: bool) -> Mapping[str, str | None]:
    """The variables of ``lockkit run`` for a running task, without the token: no program needs that secret.

    A task in another thread than the main one sets nothing: the environment is that of all threads.

    Args:
        client: The client.
        held: The leases of the task.
        gpus: Whether they are those of GPUs, which are to be visible alone.
    """
    found: dict[str, str | None] = {}
    if gpus and pool_kind() != "threads":
        found.update(cast("GpuLeases", held).environment())
    if threading.current_thread() is threading.main_thread():
        leases: Sequence[Lease] = [held] if isinstance(held, Lease) else held
        holds = [*outer_holds(os.environ), *described(client.config, leases)]
        found.update(variables([lease.name for lease in leases], holds, leases[0].fence))
    return found
