"""Take what a task locks: a lock, a semaphore, members of a pool, or GPUs."""

from __future__ import annotations

from typing import TypeAlias

from lockkit.facts import Owner
from lockkit.integrations.celery.clients import ttl_of
from lockkit.integrations.celery.options import LockOptions
from lockkit.shared.options import Options
from lockkit.sync.client import Client
from lockkit.sync.lease import Lease
from lockkit.sync.locks import Lock
from lockkit.sync.pools import Pool, PoolLeases
from lockkit.values.cancelling import Cancel

__all__ = ["Held", "check", "take"]

_ANY = "any"
"""A name in the place of one that the arguments of a task will make."""

Held: TypeAlias = Lease | PoolLeases
"""The leases of a task that runs."""


def take(
    client: Client,
    wanted: LockOptions,
    name: str,
    owner: Owner,
    timeout: float | None,
    cancel: Cancel | None = None,
) -> Held:
    """Take the locks of one run of a task.

    Args:
        client: The client.
        wanted: The options of the task.
        name: The name of the lock or pool; of no meaning for GPUs.
        owner: The owner that the claims show.
        timeout: Seconds to wait in all; None to wait for ever, 0 not to wait.
        cancel: Ends the wait early.

    Raises:
        AcquireError, BackendError, ConfigError, DevicesUnavailable: As the acquires of the public face.
    """
    if wanted.gpu is not None:
        from lockkit import gpu  # late: few tasks compute on a GPU

        cards = gpu.pool(client, **_options(client, wanted))
        cards.owner = owner
        return cards.acquire(wanted.gpu, memory=wanted.gpu_mem, timeout=timeout, cancel=cancel)
    if wanted.pool is not None:
        pool = _pool(client, wanted, name)
        pool.owner = owner
        return pool.acquire(wanted.count, each=wanted.each, timeout=timeout, cancel=cancel)
    lock = _lock(client, wanted, name)
    lock.terms = lock.terms._replace(owner=owner)
    return lock.acquire(timeout, cancel=cancel)


def check(client: Client, wanted: LockOptions) -> None:
    """Refuse a lock that a client's configuration can never grant. Asks no store, and looks at no GPU.

    Raises:
        CapabilityError, ConfigError, PluginError: The lock, its options or the configuration cannot be used.
    """
    if wanted.pool is not None:
        _pool(client, wanted, wanted.pool).check(wanted.count, each=wanted.each)
    elif wanted.lock is not None:
        _lock(client, wanted, _ANY)
    else:
        client.lock(_ANY, **_options(client, wanted))


def _pool(client: Client, wanted: LockOptions, name: str) -> Pool:
    return client.pool(name, wanted.members, **_options(client, wanted))


def _lock(client: Client, wanted: LockOptions, name: str) -> Lock:
    options = _options(client, wanted)
    if wanted.capacity is None:
        return client.lock(name, **options)
    return client.semaphore(name, wanted.capacity, permits=wanted.permits, **options)


def _options(client: Client, wanted: LockOptions) -> Options:
    options: Options = {"ttl": ttl_of(client, wanted.ttl)}
    if wanted.max_hold is not None:
        options["max_hold"] = wanted.max_hold
    if wanted.min_hold is not None:
        options["min_hold"] = wanted.min_hold
    if wanted.lock_delay is not None:
        options["lock_delay"] = wanted.lock_delay
    return options
