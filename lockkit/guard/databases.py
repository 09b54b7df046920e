"""SQL connections as a gate uses them: DB-API 2.0 connections of any parameter style, and SQLAlchemy."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TypeAlias

from lockkit.errors import ConfigError

__all__ = ["STYLES", "Answer", "Database", "DbApiConnection", "SqlAlchemy", "SqlConnection", "adapted"]

STYLES = ("qmark", "numeric", "named", "format", "pyformat")
"""The parameter styles of PEP 249."""

_PLACE = re.compile(r":([a-z_0-9]+)")
_WITH_SAVEPOINTS = frozenset({"sqlite3", "psycopg", "psycopg2", "pg8000"})
_UNKNOWN = 4
"""psycopg's status of a broken or closed connection, which may or may not have been in a transaction."""
_LEGACY = -1
"""``sqlite3.LEGACY_TRANSACTION_CONTROL``, from Python 3.12 on."""


class DbApiConnection(Protocol):
    """A connection as PEP 249 describes it, of sqlite3 or psycopg for instance."""

    def cursor(self) -> Any: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...


class SqlAlchemy(Protocol):
    """A ``Connection`` or a ``Session`` of SQLAlchemy 2."""

    def execute(self, statement: Any, parameters: Any = ..., /) -> Any: ...

    def in_transaction(self) -> bool: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...


SqlConnection: TypeAlias = DbApiConnection | SqlAlchemy


class Answer(NamedTuple):
    """The result of a statement.

    Attributes:
        matched: Rows that it matched, or -1.
        rows: Rows that it returned.
        columns: The names of their columns.
    """

    matched: int
    rows: Sequence[Sequence[object]] = ()
    columns: Sequence[str] = ()


class Database(Protocol):
    """A connection with transactions started and ended by hand. The errors of the driver pass through.

    Attributes:
        local: Whether the database is a file of this host; other hosts then have another one of this name.
    """

    local: bool

    def begin(self) -> None:
        """Start a transaction, where the connection does not do so by itself."""

    def run(self, statement: str, values: Mapping[str, object]) -> Answer:
        """Run a statement; parameters are written ``:name``."""

    def begun(self) -> bool | None:
        """Whether a transaction is open; None if the driver does not say."""

    def marks(self) -> bool:
        """Whether the database is known to have savepoints that end with their transaction."""

    def busy(self) -> bool:
        """Whether the user has work on this connection that a commit would end."""

    def commit(self) -> None:
        """Commit the transaction."""

    def rollback(self) -> None:
        """Give the transaction up."""


def adapted(connection: SqlConnection, paramstyle: str | None) -> Database:
    """The connection, ready for use by a gate.

    Raises:
        ConfigError: The connection cannot be used, or its parameter style is not known.
    """
    if any(kind.__module__.split(".")[0] == "sqlalchemy" for kind in type(connection).__mro__):
        if paramstyle is not None:
            raise ConfigError("paramstyle is for DB-API connections; SQLAlchemy knows its own")
        return _Alchemy(connection)
    if not all(callable(getattr(connection, call, None)) for call in ("cursor", "commit", "rollback")):
        raise ConfigError(
            f"not a connection to a database: {type(connection).__name__}",
            hint="pass a DB-API connection, or a Connection or Session of SQLAlchemy",
        )
    return _DbApi(connection, paramstyle)


class _DbApi:
    def __init__(self, connection: Any, paramstyle: str | None) -> None:
        style = _style_of(connection) if paramstyle is None else paramstyle
        if style not in STYLES:
            raise ConfigError(
                f"the parameter style of {type(connection).__module__} is not known: {style!r}",
                hint=f"say paramstyle= one of {', '.join(STYLES)}",
            )
        self._connection = connection
        self.local = "sqlite3" in {kind.__module__.partition(".")[0] for kind in type(connection).__mro__}
        self._style = style
        self._by_hand = False

    def begin(self) -> None:
        self._by_hand = _autocommit(self._connection)
        if self._by_hand:
            self._execute("BEGIN")

    def run(self, statement: str, values: Mapping[str, object]) -> Answer:
        text, parameters = _written(statement, values, self._style)
        cursor = self._connection.cursor()
        try:
            cursor.execute(text, parameters)
            if cursor.description is None:
                return Answer(cursor.rowcount)
            columns = [each[0] for each in cursor.description]
            return Answer(cursor.rowcount, [_cells(row, columns) for row in cursor.fetchall()], columns)
        finally:
            cursor.close()

    def begun(self) -> bool | None:
        return _begun(self._connection)

    def marks(self) -> bool:
        return _marks(self._connection)

    def busy(self) -> bool:
        return _begun(self._connection) is True

    def commit(self) -> None:
        if self._by_hand:
            self._execute("COMMIT")
        else:
            self._connection.commit()

    def rollback(self) -> None:
        if self._by_hand and _begun(self._connection) is not False:
            self._execute("ROLLBACK")
        else:
            self._connection.rollback()

    def _execute(self, word: str) -> None:
        cursor = self._connection.cursor()
        try:
            cursor.execute(word)
        finally:
            cursor.close()


class _Alchemy:
    def __init__(self, connection: Any) -> None:
        kind = type(connection).__name__
        if kind.startswith("Async") or hasattr(connection, "sync_session"):
            raise ConfigError(f"a gate is synchronous, and {kind} is not", hint="open it inside run_sync()")
        if not all(
            callable(getattr(connection, call, None))
            for call in ("execute", "in_transaction", "commit", "rollback")
        ):
            raise ConfigError(
                f"a gate takes a Connection or a Session of SQLAlchemy 2, not {kind}",
                hint="with engine.connect() as connection: ...",
            )
        self._connection = connection
        bind = connection
        with suppress(Exception):  # a Session with a database for each table has no one bind
            bind = connection.get_bind() if hasattr(connection, "get_bind") else connection
        self.local = getattr(getattr(bind, "dialect", None), "name", "") == "sqlite"

    def begin(self) -> None:
        """Do nothing: SQLAlchemy starts one with the first statement."""

    def run(self, statement: str, values: Mapping[str, object]) -> Answer:
        from sqlalchemy import text

        result = self._connection.execute(text(statement), dict(values))
        if not result.returns_rows:
            return Answer(result.rowcount)
        return Answer(-1, [tuple(row) for row in result.fetchall()], list(result.keys()))

    def begun(self) -> bool | None:
        if not self._connection.in_transaction():
            return False
        # SQLAlchemy calls it a transaction in AUTOCOMMIT, too.
        return _begun(self._driver())

    def marks(self) -> bool:
        return _marks(self._driver())

    def _driver(self) -> Any:
        core = self._connection
        if callable(getattr(core, "connection", None)):  # of a Session
            core = core.connection()
        return core.connection.dbapi_connection

    def busy(self) -> bool:
        return self._connection.in_transaction() or any(
            getattr(self._connection, pending, ()) for pending in ("new", "dirty", "deleted")
        )

    def commit(self) -> None:
        self._connection.commit()

    def rollback(self) -> None:
        self._connection.rollback()


def _style_of(connection: object) -> str | None:
    """The ``paramstyle`` of the module that the connection's class comes from."""
    for kind in type(connection).__mro__:
        name = kind.__module__
        while name and name != "builtins":
            style = getattr(sys.modules.get(name), "paramstyle", None)
            if isinstance(style, str):
                return style
            name = name.rpartition(".")[0]
    return None


def _written(
    statement: str, values: Mapping[str, object], style: str
) -> tuple[str, Mapping[str, object] | Sequence[object]]:
    """A statement and its parameters in a style of PEP 249."""
    order: list[str] = []
    forms: dict[str, Callable[[str], str]] = {
        "qmark": lambda _: "?",
        "numeric": lambda _: f":{len(order)}",
        "named": lambda name: f":{name}",
        "format": lambda _: "%s",
        "pyformat": lambda name: f"%({name})s",
    }

    def place(match: re.Match[str]) -> str:
        order.append(match[1])
        return forms[style](match[1])

    text = _PLACE.sub(place, statement)
    if style in ("named", "pyformat"):
        return text, dict(values)
    return text, [values[name] for name in order]


def _cells(row: Any, columns: Sequence[str]) -> Sequence[object]:
    """The cells of a row in order, also where the user has set a row factory."""
    if isinstance(row, Mapping):
        return [row[name] for name in columns]
    return tuple(row)


def _autocommit(connection: Any) -> bool:
    """Whether each statement is committed by itself, so that a transaction has to be started by hand."""
    legacy = getattr(connection, "isolation_level", "")
    mode = getattr(connection, "autocommit", None)
    if hasattr(connection, "in_transaction") and (mode is None or mode == _LEGACY):  # sqlite3
        return legacy is None
    if mode is None and callable(getattr(connection, "get_autocommit", None)):
        mode = connection.get_autocommit()
    return mode is True or mode == 1


def _marks(connection: Any) -> bool:
    families = {kind.__module__.partition(".")[0] for kind in type(connection).__mro__}
    # Classes that wrap or adapt a connection have its attributes, though not its module.
    known = ("in_transaction", "pgconn", "get_transaction_status")
    return not families.isdisjoint(_WITH_SAVEPOINTS) or any(hasattr(connection, name) for name in known)


def _begun(connection: Any) -> bool | None:
    """Whether a transaction is open; None if the driver does not say."""
    inside = getattr(connection, "in_transaction", None)  # sqlite3
    if isinstance(inside, bool):
        # With autocommit=False (Python 3.12) one is open at all times, and that says nothing.
        return None if getattr(connection, "autocommit", None) is False else inside
    status = getattr(getattr(connection, "info", None), "transaction_status", None)  # psycopg
    if status is None and callable(getattr(connection, "get_transaction_status", None)):  # psycopg2
        status = connection.get_transaction_status()
    return None if status in (None, _UNKNOWN) else int(status) != 0
