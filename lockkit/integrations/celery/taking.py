"""Take what a task locks: a lock, a semaphore, members of a pool, or GPUs."""

from __future__ import annotations

from typing import TypeAlias

from lockkit.client import Client
from lockkit.facts import Owner
from lockkit.integrations.celery.clients import ttl_of
from lockkit.integrations.celery.options import LockOptions
from lockkit.lease import Lease
from lockkit.options import Options
from lockkit.pools import PoolLeases

__all__ = ["Held", "take"]

Held: TypeAlias = Lease | PoolLeases
"""The leases of a task that runs."""


def take(client: Client, wanted: LockOptions, name: str, owner: Owner, timeout: float | None) -> Held:
    """Take the locks of one run of a task.

    Args:
        client: The client.
        wanted: The options of the task.
        name: The name of the lock or pool; of no meaning for GPUs.
        owner: The owner that the claims show.
        timeout: Seconds to wait in all; None to wait for ever, 0 not to wait.

    Raises:
        AcquireError, BackendError, ConfigError, DevicesUnavailable: As the acquires of the public face.
    """
    options = _options(client, wanted)
    if wanted.gpu is not None:
        from lockkit import gpu  # late: few tasks compute on a GPU

        cards = gpu.pool(client, **options)
        cards.owner = owner
        return cards.acquire(wanted.gpu, memory=wanted.gpu_mem, timeout=timeout)
    if wanted.pool is not None:
        pool = client.pool(name, wanted.members, **options)
        pool.owner = owner
        return pool.acquire(wanted.count, each=wanted.each, timeout=timeout)
    if wanted.capacity is not None:
        lock = client.semaphore(name, wanted.capacity, permits=wanted.permits, **options)
    else:
        lock = client.lock(name, **options)
    lock.terms = lock.terms._replace(owner=owner)
    return lock.acquire(timeout)


def _options(client: Client, wanted: LockOptions) -> Options:
    options: Options = {"ttl": ttl_of(client, wanted.ttl)}
    if wanted.max_hold is not None:
        options["max_hold"] = wanted.max_hold
    if wanted.min_hold is not None:
        options["min_hold"] = wanted.min_hold
    if wanted.lock_delay is not None:
        options["lock_delay"] = wanted.lock_delay
    return options
