"""The words behind :mod:`lockkit.values.habits`: replacements for names and keywords of other libraries.

Sources: threading, multiprocessing, redis-py, python-redis-lock, pottery, filelock, portalocker, fasteners,
kazoo and etcd3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["ACQUIRE", "CONNECT", "NAMES", "OF_A_LEASE", "OPTIONS", "timeouts"]

_TRY = "lock.try_acquire() returns None if it is busy, and acquire(timeout=0) raises"
_BEAT = (
    "a lease is renewed in the background; lease.confirm() asks the store, and lease.extend(ttl) "
    "lengthens the ttl"
)
_WAKES = "there is no interval: a waiter is woken as soon as it may hold"

_OF_REDIS_PY = ("blocking", "blocking_timeout", "sleep", "thread_local", "raise_on_release_error")
"""Keywords of redis-py's lock, and of the libraries that follow it, whose ``timeout`` is an expiry."""
_OF_SERVERS = (
    "host", "hosts", "port", "db", "username", "user", "password", "ssl",
    "endpoints", "servers", "nodes", "masters", "address", "path",
)  # fmt: skip
"""Keywords by which other clients find their server; their ``timeout`` is for a request or session."""

_LOCK: Mapping[str, str] = {
    **dict.fromkeys(
        ("release", "unlock", "free"),
        "the lease that acquire() returns has release(); a `with lock:` releases when its block is left, "
        "and lock.lease.release() does so earlier",
    ),
    **dict.fromkeys(
        ("locked", "is_locked", "is_acquired", "acquired"),
        "client.inspect(name).holders says who holds it, and lock.held() whether this thread or task does; "
        "lock.try_acquire() takes it only if it is free",
    ),
    **dict.fromkeys(
        ("owned", "is_owned", "is_held"), "lock.held() says whether this thread or task holds it"
    ),
    **dict.fromkeys(
        ("value", "get_value", "free_permits", "available_permits", "available_count", "capacity"),
        "lock.available() says how many permits are free, and client.inspect(name) who has the others",
    ),
    **dict.fromkeys(
        ("reacquire", "refresh", "renew"), f"{_BEAT}; inside `with lock:` the lease is lock.lease"
    ),
    **dict.fromkeys(
        ("lock", "enter"),
        "lock.acquire() waits for it and returns the lease: with lock.acquire() as lease: ...",
    ),
    **dict.fromkeys(("tryacquire", "try_lock", "trylock", "acquire_nowait"), _TRY),
    "contenders": "client.inspect(name) shows the holders and waiters of a name",
    "cancel": "lock.acquire(cancel=stop) is ended by stop.cancel(), where stop is a lockkit.Cancel()",
    **dict.fromkeys(
        ("force_release", "break_lock", "reset"),
        "client.evict(name, claim_id, reason=...) forces one claim out; client.inspect(name) shows the "
        "claims",
    ),
    "ttl": "lock.terms.ttl is the ttl of the lock, and lock.lease.ttl, inside `with lock:`, that of the "
    "lease",
}

_LEASE: Mapping[str, str] = {
    **dict.fromkeys(
        ("locked", "owned", "is_owned", "held", "is_held", "is_valid", "acquired", "is_acquired"),
        "lease.valid() says whether it is certain to hold, and lease.ensure_held() raises if it is not",
    ),
    **dict.fromkeys(("reacquire", "refresh", "renew", "keepalive", "keep_alive"), _BEAT),
    **dict.fromkeys(("unlock", "free", "close"), "lease.release() ends it"),
    **dict.fromkeys(
        ("fencing_token", "fence_token"), "lease.fence is the fencing token, and lease.token the secret"
    ),
    **dict.fromkeys(("id", "lock_id", "lease_id"), "lease.claim_id names it to people"),
    **dict.fromkeys(
        ("expires_at", "expires", "expiry"), "lease.remaining() is how many seconds it surely lasts"
    ),
    **dict.fromkeys(
        ("acquire", "try_acquire"),
        "a lease is one acquisition; for another, call acquire() of its lock again",
    ),
}

_RWLOCK: Mapping[str, str] = {
    **dict.fromkeys(
        ("acquire", "try_acquire", "release", "lease", "locked"),
        "rwlock.read() and rwlock.write() are its two locks: with rwlock.read().acquire() as lease: ...",
    ),
    **dict.fromkeys(
        ("reader", "reader_lock", "read_lock", "gen_rlock", "acquire_read"), "rwlock.read() is that lock"
    ),
    **dict.fromkeys(
        ("writer", "writer_lock", "write_lock", "gen_wlock", "acquire_write"), "rwlock.write() is that lock"
    ),
}

_CLIENT: Mapping[str, str] = {
    **dict.fromkeys(
        ("Lock", "mutex", "Mutex", "get_lock", "create_lock", "redlock"), "client.lock(name) makes a lock"
    ),
    **dict.fromkeys(("RLock", "rlock"), "client.lock(name, reentrant=True) makes a reentrant lock"),
    **dict.fromkeys(
        ("Semaphore", "BoundedSemaphore", "bounded_semaphore"),
        "client.semaphore(name, capacity) makes a semaphore",
    ),
    **dict.fromkeys(
        ("RWLock", "rw_lock", "read_lock", "write_lock", "ReadLock", "WriteLock"),
        "client.rwlock(name).read() and .write() are the two locks",
    ),
    **dict.fromkeys(
        ("acquire", "try_acquire"), "client.lock(name).acquire() waits for a lock and returns its lease"
    ),
    **dict.fromkeys(
        ("release", "unlock"),
        "lease.release() ends what client.lock(name).acquire() returned; client.close() releases all",
    ),
    **dict.fromkeys(("extend", "renew", "refresh"), _BEAT),
    **dict.fromkeys(
        ("is_locked", "holder", "holders", "status", "get"),
        "client.inspect(name) shows the holders and waiters of a name",
    ),
    **dict.fromkeys(("list", "keys", "locks", "list_locks"), "client.names() lists the names in use"),
    **dict.fromkeys(
        ("force_release", "break_lock", "delete"),
        "client.evict(name, claim_id, reason=...) forces one claim out",
    ),
    **dict.fromkeys(("ping", "health", "doctor"), "client.check() runs the health checks"),
}

_OF_A_CLIENT = "it belongs to a client: client = lockkit.connect(), then client."
_MODULE: Mapping[str, str] = {
    **dict.fromkeys(("lock", "FileLock", "Redlock", "Mutex", "get_lock"), f"{_OF_A_CLIENT}lock(name)"),
    **dict.fromkeys(("RLock", "rlock"), f"{_OF_A_CLIENT}lock(name, reentrant=True)"),
    **dict.fromkeys(
        ("semaphore", "Semaphore", "BoundedSemaphore"), f"{_OF_A_CLIENT}semaphore(name, capacity)"
    ),
    **dict.fromkeys(("rwlock", "ReadLock", "WriteLock"), f"{_OF_A_CLIENT}rwlock(name)"),
    "locked": f'{_OF_A_CLIENT}locked("name:{{argument}}") decorates a function',
    **dict.fromkeys(("acquire", "try_acquire"), f"{_OF_A_CLIENT}lock(name).acquire()"),
    **dict.fromkeys(("inspect", "evict", "resize"), f"{_OF_A_CLIENT}inspect(name), names(), evict(...)"),
    "gpu": "write `import lockkit.gpu` first: programs that take no GPU do not load it",
    **dict.fromkeys(("open", "Redis", "Lockkit"), "lockkit.connect(url) makes a client"),
}

ACQUIRE: Mapping[str, str] = {
    **dict.fromkeys(("blocking", "block", "nowait", "fail_when_locked"), _TRY),
    "blocking_timeout": "it is called timeout here: lock.acquire(timeout=10)",
    **dict.fromkeys(("sleep", "poll_interval", "check_interval", "interval"), _WAKES),
    "cancel": "a task is cancelled from outside: task.cancel(), asyncio.timeout(10); cancel= is for threads, "
    "and lockkit.Cancel() for it",
    **dict.fromkeys(("ttl", "expire"), "give it to the lock: client.lock(name, ttl=30)"),
    "token": "each acquisition has a random token of its own; lock.tokens is for another process that is to "
    "release it",
}
"""Keywords that ``Lock.acquire`` does not have."""

OPTIONS: Mapping[str, str] = {
    **dict.fromkeys(
        ("blocking", "block", "nowait", "context_manager_blocking", "fail_when_locked"),
        f"{_TRY}; the option timeout=0 makes that the default",
    ),
    "blocking_timeout": "it is called timeout here, and what redis-py calls timeout is called ttl",
    "context_manager_timeout": "it is called timeout here",
    **dict.fromkeys(
        ("auto_release_time", "num_extensions"),
        "a holder that lives is renewed; ttl is how long the store keeps one that does not renew, and "
        "max_hold ends any hold",
    ),
    **dict.fromkeys(
        ("expire", "expires", "expiry", "lease_time", "lock_timeout", "lifetime"),
        "it is called ttl here: how long the store keeps a holder that does not renew",
    ),
    **dict.fromkeys(
        ("auto_renewal", "renew", "keepalive"), "it is called auto_renew here, and is on by default"
    ),
    **dict.fromkeys(
        (
            "sleep",
            "poll_interval",
            "check_interval",
            "retry_interval",
            "retry_delay",
            "retry_times",
            "retry_count",
        ),
        f"{_WAKES}; timeout says how long to wait in all",
    ),
    "thread_local": "a lease may be passed between threads, and lease.detach() lets every thread wait for "
    "its lock",
    **dict.fromkeys(
        ("id", "owner", "identifier", "lock_id"),
        'each acquisition has a token of its own; note={"owner": ...} is shown to others',
    ),
    **dict.fromkeys(
        ("prefix", "lock_prefix", "namespace"), 'give it to the client: connect(namespace="prod")'
    ),
    "recursive": "it is called reentrant here",
    **dict.fromkeys(
        ("max_leases", "limit", "value"), "client.semaphore(name, capacity) makes a lock with several permits"
    ),
    "raise_on_release_error": "release() returns a report, whose outcome says whether the lock was still "
    "held",
    "masters": "the store is the client's: lockkit.connect(url)",
}
"""Options that a lock does not have."""

CONNECT: Mapping[str, str] = {
    **dict.fromkeys(
        _OF_SERVERS,
        'the URL has it: "redis://user:password@host:6379/0", "etcd://host:2379", '
        '"zookeeper://host:2181" or "sqlite:/path/file.db"',
    ),
    **dict.fromkeys(
        ("socket_timeout", "socket_connect_timeout", "connect_timeout", "connection_timeout"),
        "it is called request_timeout here; timeout is how long a caller waits for a lock",
    ),
    **dict.fromkeys(("prefix", "key_prefix", "lock_prefix"), "it is called namespace here"),
    **dict.fromkeys(("expire", "expiry", "lease", "lease_time", "lock_timeout"), "it is called ttl here"),
}
"""Keywords that ``connect`` does not have."""


def timeouts(others: Iterable[str], timeout: object) -> str:
    """The words about a ``timeout`` beside keywords of a library that means another time; else empty.

    Args:
        others: The keywords that lockkit does not have.
        timeout: The timeout; None if there is none.
    """
    given = set(others)
    if timeout is None or "blocking_timeout" in given:  # whose hint has both words
        return ""
    if given & set(_OF_REDIS_PY):
        return (
            f"; timeout={timeout!r} is how long to wait here, and what redis-py calls timeout is called ttl"
        )
    if given & set(_OF_SERVERS):
        return (
            f"; timeout={timeout!r} is how long a caller waits for a lock here, and request_timeout how long "
            "one request may take"
        )
    return ""


NAMES: Mapping[str, Mapping[str, str]] = {
    "Client": _CLIENT,
    "Lease": _LEASE,
    "Lock": _LOCK,
    "RWLock": _RWLOCK,
    "module": _MODULE,
}
"""The words for a name that an object does not have, by its class and the name."""

OF_A_LEASE = (
    "beat",
    "claim_id",
    "confirm",
    "detach",
    "ensure_held",
    "exclusive",
    "extend",
    "fence",
    "hand_over",
    "handle",
    "lost",
    "lost_because",
    "on_lost",
    "on_release",
    "on_release_requested",
    "open",
    "release_requested",
    "release_requests",
    "remaining",
    "report",
    "requests",
    "simulate_loss",
    "since",
    "time_to_stop",
    "token",
    "valid",
)
"""The names of a Lease that a Lock does not have: ``with lock as lease:`` gives the Lock."""
