"""Scratch resources by URL: a random table, key, node, file or object, opened twice, then removed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from lockkit.errors import BackendError, ConfigError
from lockkit.guard import etcd, file, objects, redis, sql, zookeeper
from lockkit.guard.leases import FencedLease
from lockkit.values.redaction import redact

__all__ = ["EXAMPLES", "Holder", "Scratch", "scratch"]

EXAMPLES = (
    "sqlite:/srv/app.db",
    "postgresql://user@host/database",
    "redis://host:6379/0",
    "etcd://host:2379",
    "zookeeper://host:2181/path",
    "file:/srv/reports",
    "s3://bucket/folder",
)
"""A URL for each kind of resource."""


class Holder(Protocol):
    """A scratch resource, opened by one holder."""

    def read(self) -> str | None:
        """The text in it."""

    def write(self, text: str) -> None:
        """Replace the text."""


class Scratch(NamedTuple):
    """A scratch resource.

    Attributes:
        where: The resource, for messages, without secrets.
        open: Opens it through a gate, over a new connection for each call.
    """

    where: str
    open: Callable[[FencedLease], Holder]


@contextmanager
def scratch(url: str) -> Iterator[Scratch]:
    """Make a scratch resource, and remove it at the end.

    Args:
        url: A URL such as one of :data:`EXAMPLES`, or the path of a folder.

    Raises:
        ConfigError: The URL is of no resource that a gate can guard, or a library is missing.
        Exception: An error of the resource's library.
    """
    name = f"lockkit-guard-check-{secrets.token_hex(6)}"
    scheme = "file" if url.startswith(("/", "./", "~")) else url.partition(":")[0].lower()
    kind = "sqlalchemy" if "+" in scheme and scheme != "redis+cluster" else scheme
    make = _KINDS.get(kind)
    if make is None or not (":" in url or scheme == "file"):
        shown = redact(url)
        raise ConfigError(f"no guard for {shown!r:.100}", hint=f"write one of {', '.join(EXAMPLES)}")
    with ExitStack() as stack:
        yield make(url, name, stack)


class _Text:
    """A gate before bytes, opened."""

    def __init__(self, guarded: Any) -> None:
        self._guarded = guarded

    def read(self) -> str | None:
        value = self._guarded.read()
        return None if value is None else value.decode()

    def write(self, text: str) -> None:
        self._guarded.write(text.encode())


class _Column:
    """A row with a column ``value``, opened."""

    def __init__(self, guarded: Any) -> None:
        self._guarded = guarded

    def read(self) -> str | None:
        value = self._guarded.read()["value"]
        return None if value is None else str(value)

    def write(self, text: str) -> None:
        self._guarded.write({"value": text})


def _library(name: str, install: str, what: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(
            f"{what} need {name.partition('.')[0]}, which is not installed", hint=f"pip install {install}"
        ) from None


def _at_the_end(stack: ExitStack, where: str, remove: Callable[[], object]) -> None:
    """Remove a scratch resource when the stack ends. The error that ended it comes first."""

    def leave(_kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            remove()
        except Exception as trouble:
            told = f"{where} was not removed: {trouble}"
            if error is None:
                raise BackendError(told, hint="remove it yourself") from trouble
            error.add_note(told)

    stack.push(leave)


def _bytes(gate: Any, again: Callable[[], Any], stack: ExitStack) -> Scratch:
    _at_the_end(stack, gate.where, gate.resource.forget)
    return Scratch(gate.where, lambda lease: _Text(again().open(lease)))


def _table(
    connect: Callable[[], Any], run: Callable[[Any, str], object], name: str, stack: ExitStack
) -> Scratch:
    table = name.replace("-", "_")

    def connected() -> Any:
        return stack.enter_context(closing(connect()))

    def execute(statement: str) -> None:
        with closing(connect()) as connection:
            run(connection, statement)
            connection.commit()

    execute(f"CREATE TABLE {table} (name VARCHAR(40) PRIMARY KEY, value VARCHAR(40), fence BIGINT)")
    _at_the_end(stack, f"the table {table}", lambda: execute(f"DROP TABLE {table}"))
    execute(f"INSERT INTO {table} (name) VALUES ('it')")  # noqa: S608 (a name of ours)

    def opened(lease: FencedLease) -> Holder:
        return _Column(sql(connected(), table, key={"name": "it"}).open(lease))

    return Scratch(f"the table {table}", opened)


def _plain(connection: Any, statement: str) -> object:
    return connection.cursor().execute(statement)


def _sqlite(url: str, name: str, stack: ExitStack) -> Scratch:
    import sqlite3
    from urllib.parse import quote

    path = _path(url)
    if path == Path():
        raise ConfigError("the URL names no database", hint="give an existing file: sqlite:/path/to/app.db")
    if not path.is_file():
        raise ConfigError(f"there is no database {str(path)!r}", hint="name an existing file")
    return _table(lambda: sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True), _plain, name, stack)


def _postgres(url: str, name: str, stack: ExitStack) -> Scratch:
    psycopg = _library("psycopg", '"psycopg[binary]"', "postgresql: URLs")
    return _table(lambda: psycopg.connect(url, connect_timeout=5), _plain, name, stack)


def _sqlalchemy(url: str, name: str, stack: ExitStack) -> Scratch:
    sqlalchemy = _library("sqlalchemy", "sqlalchemy", "URLs with + in them")
    try:
        engine = sqlalchemy.create_engine(url)
    except (ImportError, sqlalchemy.exc.ArgumentError) as error:
        raise ConfigError(
            f"{redact(url)} is not a URL of SQLAlchemy that can be used here: {error}"
        ) from None
    stack.callback(engine.dispose)
    return _table(
        engine.connect,
        lambda connection, statement: connection.execute(sqlalchemy.text(statement)),
        name,
        stack,
    )


def _redis(url: str, name: str, stack: ExitStack) -> Scratch:
    library = _library("redis", '"lockkit[redis]"', "redis: URLs")
    scheme, colon, rest = url.partition(":")
    make: Callable[..., Any] = library.Redis.from_url
    if scheme == "redis+cluster":
        make, scheme, rest = library.RedisCluster.from_url, "redis", rest.partition(",")[0]

    def connected() -> Any:
        return stack.enter_context(
            closing(make(f"{scheme}{colon}{rest}", socket_timeout=5, socket_connect_timeout=5))
        )

    return _bytes(redis(connected(), name), lambda: redis(connected(), name), stack)


def _etcd(url: str, name: str, stack: ExitStack) -> Scratch:
    return _bytes(etcd(url, name), lambda: etcd(url, name), stack)


def _zookeeper(url: str, name: str, stack: ExitStack) -> Scratch:
    library = _library("kazoo.client", '"lockkit[zookeeper]"', "zookeeper: URLs")
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    auth = [("digest", unquote(login))] if login else None
    path = f"{parts.path.rstrip('/')}/{name}"

    def connected() -> Any:
        client = library.KazooClient(hosts, auth_data=auth)
        stack.callback(client.close)
        stack.callback(client.stop)
        client.start(timeout=5)
        return client

    return _bytes(zookeeper(connected(), path), lambda: zookeeper(connected(), path), stack)


def _file(url: str, name: str, stack: ExitStack) -> Scratch:
    path = _path(url)
    folder = path if path.is_dir() else path.parent
    return _bytes(file(folder / name), lambda: file(folder / name), stack)


def _object(url: str, name: str, stack: ExitStack) -> Scratch:
    library = _library("obstore.store", "obstore", "URLs of object stores")

    def made() -> Any:
        return library.from_url(url, retry_config={"max_retries": 0})

    return _bytes(objects(made(), name), lambda: objects(made(), name), stack)


def _path(url: str) -> Path:
    """The path of ``file:/path``, ``file:///path``, ``sqlite:/path``, ``sqlite:///path`` or a plain path."""
    if url.startswith(("/", ".", "~")):
        return Path(os.path.expanduser(url))  # noqa: PTH111 (as a shell reads it)
    return Path(unquote(urlsplit(url).path))


_KINDS: dict[str, Callable[[str, str, ExitStack], Scratch]] = {
    "sqlite": _sqlite,
    **dict.fromkeys(("postgresql", "postgres"), _postgres),
    "sqlalchemy": _sqlalchemy,
    **dict.fromkeys(("redis", "rediss", "unix", "redis+cluster"), _redis),
    **dict.fromkeys(("etcd", "etcds"), _etcd),
    "zookeeper": _zookeeper,
    "file": _file,
    **dict.fromkeys(("s3", "s3a", "gs", "az", "azure", "abfs", "abfss"), _object),
}
