"""Guards: the resource itself refuses a holder that comes too late.

gate = lockkit.guard.sql(connection, "accounts", key={"id": 42})
with client.lock("accounts/42").acquire() as lease, gate.open(lease) as account:
    account.write({"balance": account.read()["balance"] - 10})

A lock alone cannot stop a holder that was paused for longer than its ttl. A guard can: it keeps the highest
fence beside the value, and compares in the same atomic step that writes. All resources are used alike:
``gate.open(lease)``, then ``read()`` and ``write()``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from lockkit.guard.gate import TIMEOUT, FenceGate, Guarded, Opened, Seen
from lockkit.guard.leases import FencedLease

if TYPE_CHECKING:
    from kazoo.client import KazooClient
    from obstore.store import ObjectStore
    from redis import Redis, RedisCluster

    from lockkit.guard.databases import DbApiConnection, SqlAlchemy
    from lockkit.guard.on_etcd import Transactor
    from lockkit.guard.on_file import FileGate, GuardedFile
    from lockkit.guard.on_sql import GuardedRow, SqlGate
    from lockkit.guard.outer import RunLease, run_lease

__all__ = [
    "FenceGate",
    "FencedLease",
    "FileGate",
    "Guarded",
    "GuardedFile",
    "GuardedRow",
    "Opened",
    "RunLease",
    "Seen",
    "SqlGate",
    "Transactor",
    "etcd",
    "file",
    "objects",
    "redis",
    "run_lease",
    "sql",
    "zookeeper",
]

_LATE = {
    "FileGate": "on_file",
    "GuardedFile": "on_file",
    "GuardedRow": "on_sql",
    "RunLease": "outer",
    "SqlGate": "on_sql",
    "Transactor": "on_etcd",
    "run_lease": "outer",
}
"""Names of modules that only programs with such a resource import."""


def __getattr__(name: str) -> object:
    if name in _LATE:
        return getattr(import_module(f"lockkit.guard.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def sql(
    connection: DbApiConnection | SqlAlchemy,
    table: str,
    *,
    key: Mapping[str, object],
    fence: str = "fence",
    insert: bool = False,
    paramstyle: str | None = None,
) -> SqlGate:
    """The gate before a row of a SQL database.

    Args:
        connection: A DB-API connection (sqlite3, psycopg, ...), or one of SQLAlchemy 2, or its ``Session``.
        table: The table, ``name`` or ``schema.name``.
        key: The columns and values that name one row.
        fence: The column of the fence: BIGINT, and NULL until a gate opens the row.
        insert: Whether to insert the row, if it is missing, with key and fence alone: for a table of fences.
        paramstyle: The parameter style of PEP 249, if the module of the connection does not have it.

    Raises:
        ConfigError: An argument is not allowed. Nothing was sent.
    """
    from lockkit.guard.on_sql import SqlGate

    return SqlGate(connection, table, key=key, fence=fence, insert=insert, paramstyle=paramstyle)


def redis(client: Redis | RedisCluster, key: str | bytes, *, timeout: float = TIMEOUT) -> FenceGate:
    """The gate before a string key of Redis or Valkey.

    The key itself holds the value, so that others read it as before. A second key in its slot has the record.

    Args:
        client: A synchronous client of redis-py, also one of a Cluster or of Sentinel.
        key: The key.
        timeout: Seconds for which an unanswered request is repeated.

    Raises:
        ConfigError: An argument is not allowed. Nothing was sent.
    """
    from lockkit.guard.on_redis import RedisKey

    return FenceGate(RedisKey(client, key), timeout)


def file(path: str | os.PathLike[str], *, timeout: float = TIMEOUT) -> FileGate:
    """The gate before a file on a local file system, or before a link to a folder.

    Args:
        path: The file. The user needs to write in its folder, which also has the record.
        timeout: Seconds to wait while another process is in the middle of its own write.

    Raises:
        ConfigError: Not the path of a file, or on a network file system.
    """
    from lockkit.guard.on_file import FileGate, PlainFile

    return FileGate(PlainFile(path), timeout)


def etcd(client: Transactor | str, key: str | bytes, *, timeout: float = TIMEOUT) -> FenceGate:
    """The gate before a key of etcd.

    Args:
        client: A URL, ``etcd://host:2379,...`` as for a store; or a client with etcd3gw's ``transaction``.
        key: The key. The record is in a key beside it.
        timeout: Seconds for which an unanswered request is repeated.

    Raises:
        ConfigError: An argument is not allowed. Nothing was sent.
    """
    from lockkit.guard.on_etcd import EtcdKey
    from lockkit.guard.swapping import Swapping

    return FenceGate(Swapping(EtcdKey(client, key)), timeout)


def zookeeper(client: KazooClient, path: str, *, timeout: float = TIMEOUT) -> FenceGate:
    """The gate before a node of ZooKeeper.

    Args:
        client: A client of kazoo that was started.
        path: The node, whose parent exists. The record is in a node beside it.
        timeout: Seconds for which an unanswered request is repeated.

    Raises:
        ConfigError: An argument is not allowed. Nothing was sent.
    """
    from lockkit.guard.on_zookeeper import ZooKeeperNode
    from lockkit.guard.swapping import Swapping

    return FenceGate(Swapping(ZooKeeperNode(client, path)), timeout)


def objects(store: ObjectStore, path: str, *, timeout: float = TIMEOUT) -> FenceGate:
    """The gate before an object of an object store with conditional writes.

    The object starts with a line for the record, which :meth:`FenceGate.peek` and ``read`` omit. Its first
    opening proves that the store refuses a wrong condition.

    Args:
        store: A store of obstore, made with ``retry_config={"max_retries": 0}``.
        path: The path of the object.
        timeout: Seconds for which an unanswered request is repeated.

    Raises:
        ConfigError: An argument is not allowed. Nothing was sent.
    """
    from lockkit.guard.on_object import StoredObject
    from lockkit.guard.swapping import Swapping

    return FenceGate(Swapping(StoredObject(store, path)), timeout)
