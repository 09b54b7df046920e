"""The gate before rows of a SQL database: a conditional UPDATE, in the transaction of what it guards."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

from lockkit.errors import ConfigError, OutcomeUnknown
from lockkit.guard.databases import SqlConnection, adapted
from lockkit.guard.gate import Opened, stale
from lockkit.guard.leases import FencedLease, accepted
from lockkit.guard.record import LONGEST, Record
from lockkit.guard.telling import refused, telling

__all__ = ["GuardedRow", "SqlGate"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_TABLE = re.compile(rf"(?:{_NAME.pattern}\.)?{_NAME.pattern}")


class SqlGate:
    """The gate before one row: of your own table with a column for the fence, or of a table of fences.

    All that a transaction writes after it checked the row's fence is guarded, because the check locks the row
    until its end. The connection belongs to the caller; use a gate only where you would use its connection.
    """

    def __init__(
        self,
        connection: SqlConnection,
        table: str,
        *,
        key: Mapping[str, object],
        fence: str = "fence",
        insert: bool = False,
        paramstyle: str | None = None,
    ) -> None:
        _check(table, key)
        columns = _columns([*key, fence])
        if fence in key:
            raise ConfigError(f"{fence!r} is the column of the fence, and cannot be part of the key")
        if any(value is None for value in key.values()):
            raise ConfigError("a value of the key is None, and NULL equals nothing")
        self._database = adapted(connection, paramstyle)
        self.local = self._database.local
        self._insert = insert
        self._table, self._fence = table, fence
        self._key = {f"key_{at}": value for at, value in enumerate(key.values())}
        self._row = " AND ".join(f"{column} = :key_{at}" for at, column in enumerate(columns[:-1]))
        self._columns = columns
        self.where = f"the row of {table} with " + ", ".join(
            f"{name} {value!r:.60}" for name, value in key.items()
        )

    def open(self, lease: FencedLease) -> GuardedRow:
        """Register a lease's fence in the row, in a separate transaction. Older holders are refused then.

        Args:
            lease: An exclusive lease. All holders of one row must use the same lock.

        Raises:
            StaleFence: A newer holder has opened the row.
            ConfigError: The lease is shared; a transaction is open (commit or roll it back before); the key
                names no row, or several; the fence's column keeps no whole numbers.
            LeaseLost, NotHeld: The lease is not valid any more. Nothing was sent.
            OutcomeUnknown: The commit was not answered.
            Exception: An error of the driver; the transaction was rolled back.
        """
        accepted(lease).ensure_held()
        self.require_idle()
        with telling(lease, "guard_opened", self), self.transaction():
            if not self._register(lease):
                self._refuse(lease)
            self._kept(lease.fence)
        return GuardedRow(self, lease)

    def peek(self) -> int | None:
        """The fence in the row, without a lease; None if no gate has opened it yet, or if there is no row."""
        self.require_idle()
        with self.transaction():
            found = self._stored()
        return found[0] if found else None

    # -- for GuardedRow

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction: committed at the end, rolled back if the body raises.

        Raises:
            OutcomeUnknown: The commit was not answered.
        """
        database, committing = self._database, False
        try:  # one, so that an interrupt between two of its steps leaves no transaction open either
            database.begin()
            yield
            committing = True
            database.commit()
        except BaseException as error:
            broken = getattr(
                error, "connection_invalidated", False
            )  # SQLAlchemy's, whose rollback then raises nothing
            try:
                database.rollback()
            except Exception:
                broken = True
            if committing and broken and isinstance(error, Exception):
                raise OutcomeUnknown(
                    f"whether the transaction on {self.where} was committed is not known: {error}",
                    hint="look at the row over a new connection",
                ) from error
            raise  # of a commit: the database has refused, and the connection has answered since

    def check(self, lease: FencedLease) -> None:
        """Check and lock the row in the open transaction."""
        found = self._database.run(
            f"UPDATE {self._table} SET {self._fence} = :fence WHERE {self._row} AND {self._fence} = :fence",  # noqa: S608
            {**self._key, "fence": lease.fence},
        )
        if found.matched != 1:
            self._refuse(lease)
        if self._database.begun() is False:
            raise ConfigError(
                f"no transaction is open, so this check of {self.where} protects nothing",
                hint="with guarded.transaction(): ..., or begin one before",
            )

    @contextmanager
    def unbroken(self, lease: FencedLease) -> Iterator[None]:
        """Notice that the body has ended the open transaction, after which nothing it wrote was guarded.

        A savepoint ends with its transaction. Without one, another fence check guards the last writes.

        Raises:
            OutcomeUnknown: The transaction was committed or rolled back in the body.
        """
        database, name = self._database, f"lockkit_{secrets.token_hex(8)}"
        marked = database.marks()
        if marked:
            database.run(f"SAVEPOINT {name}", {})
        yield
        if not marked:
            self.check(lease)
            return
        try:
            database.run(f"RELEASE SAVEPOINT {name}", {})
        except Exception as error:
            raise OutcomeUnknown(
                f"the transaction on {self.where} did not last to the end of the block: {error}",
                hint="neither commit nor roll back in the block; see what was written before you go on",
            ) from error

    def read(self) -> dict[str, object]:
        """The row, in the open transaction."""
        found = self._database.run(f"SELECT * FROM {self._table} WHERE {self._row}", self._key)  # noqa: S608
        (row,) = found.rows
        return dict(zip(found.columns, row, strict=True))

    def write(self, lease: FencedLease, columns: Mapping[str, object]) -> None:
        """Change columns of the row, in the open transaction."""
        sets = ", ".join(f"{name} = :set_{at}" for at, name in enumerate(columns))
        values = {f"set_{at}": value for at, value in enumerate(columns.values())}
        found = self._database.run(
            f"UPDATE {self._table} SET {sets} WHERE {self._row} AND {self._fence} = :fence",  # noqa: S608
            {**self._key, **values, "fence": lease.fence},
        )
        if found.matched != 1:
            self._refuse(lease)

    def writable(self, columns: object) -> Mapping[str, object]:
        """Return columns that a holder may write.

        Raises:
            ConfigError: No columns, not names of columns, or columns of the key or the fence.
        """
        if not isinstance(columns, Mapping) or not columns:
            raise ConfigError("write takes the new values by column", hint='for instance {"balance": 90}')
        for name in _columns(list(columns)):
            if name.lower() in {own.lower() for own in self._columns}:
                raise ConfigError(f"the column {name!r} belongs to the guard, or to the key of the row")
        return columns

    def require_idle(self) -> None:
        """Raise if the user has a transaction open, as far as the driver says."""
        if self._database.busy():
            raise ConfigError(
                f"a transaction is open on the connection of {self.where}",
                hint="commit or roll it back before: what it has read may be out of date",
            )

    def _register(self, lease: FencedLease) -> bool:
        values = {**self._key, "fence": lease.fence}
        for _ in range(2):
            found = self._database.run(
                f"UPDATE {self._table} SET {self._fence} = :fence WHERE {self._row}"  # noqa: S608
                f" AND ({self._fence} IS NULL OR {self._fence} <= :fence)",
                values,
            )
            if found.matched == 1:
                return True
            if found.matched > 1:
                raise ConfigError(
                    f"{self.where}: the key names {found.matched} rows", hint="use a unique key"
                )
            if not self._insert or self._stored():
                return False
            names = ", ".join(self._columns)
            places = ", ".join(f":{name}" for name in (*self._key, "fence"))
            try:
                self._database.run(f"INSERT INTO {self._table} ({names}) VALUES ({places})", values)  # noqa: S608
            except Exception as error:
                if "IntegrityError" not in {kind.__name__ for kind in type(error).__mro__}:
                    raise
                self._database.rollback()  # another holder has inserted the row meanwhile
                self._database.begin()
            else:
                return True
        return False

    def _kept(self, fence: int) -> None:
        """Read the new fence back in its transaction: a text column compares as text, and a REAL one rounds.

        Raises:
            ConfigError: The column does not keep it as a whole number.
        """
        if self._stored() != [fence]:
            raise ConfigError(
                f"the column {self._fence!r} of {self._table} does not keep fence {fence}", hint="BIGINT"
            )

    def _stored(self) -> list[int | None]:
        """The fence of each row that the key names."""
        found = self._database.run(f"SELECT {self._fence} FROM {self._table} WHERE {self._row}", self._key)  # noqa: S608
        cells = [cell for (cell,) in found.rows]
        if any(cell is not None and not (isinstance(cell, int) and 0 <= cell <= LONGEST) for cell in cells):
            raise ConfigError(
                f"the column {self._fence!r} of {self._table} has no fence in it: {cells[0]!r:.40}",
                hint="BIGINT",
            )
        return [cell if isinstance(cell, int) else None for cell in cells]

    def _refuse(self, lease: FencedLease) -> NoReturn:
        cells = self._stored()
        if not cells:
            raise ConfigError(
                f"{self.where} is not there", hint="insert it before you guard it, or say insert=True"
            )
        refused(lease, self, cells[0] or 0)
        raise stale(self.where, lease.name, lease.fence, Record(cells[0] or 0, ""))

    def __repr__(self) -> str:
        return f"<SqlGate {self.where}>"


class GuardedRow(Opened):
    """A row that a holder has opened: reads, writes, and transactions that a newer holder stops entirely."""

    def __init__(self, gate: SqlGate, lease: FencedLease) -> None:
        super().__init__(gate.where, lease)
        self._gate = gate
        self._inside = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction in which the fence is checked first, so that whatever you execute in it is guarded.

        Commits at the end, and rolls back if the body raises. A newer holder waits until then to open it.

        Raises:
            StaleFence: A newer holder has opened the row. The body has not run.
            OutcomeUnknown: The commit was not answered, or the body has committed or rolled back itself.
            ConfigError: A transaction is open already; use :meth:`check` in it.
            LeaseLost, NotHeld: The lease is not valid any more. Nothing was sent.
            Exception: An error of the body or of the driver; the transaction was rolled back.
        """
        self._ensure()
        if self._inside:
            raise ConfigError("transactions of a guard are not nested")
        self._gate.require_idle()
        with telling(self._lease, "guard_written", self._gate), self._gate.transaction():
            self._gate.check(self._lease)
            try:
                self._inside = True
                with self._gate.unbroken(self._lease):
                    yield
            finally:
                self._inside = False

    def check(self) -> None:
        """Check the fence in your own open transaction, and lock the row until you end it.

        All reads and writes from here on are guarded. If your commit gets no answer, the outcome is unknown.

        Raises:
            StaleFence: A newer holder has opened the row. Roll back.
            ConfigError: No transaction is open after the statement, so that the check protects nothing.
            LeaseLost, NotHeld: The lease is not valid any more. Nothing was sent.
            Exception: An error of the driver.
        """
        self._ensure()
        self._gate.check(self._lease)

    def read(self) -> dict[str, object]:
        """Return the row's columns, in the guard's open transaction or in a separate one.

        Raises:
            StaleFence, OutcomeUnknown, LeaseLost, NotHeld: As for :meth:`transaction`.
        """
        if self._inside:
            return self._gate.read()
        self._ensure()
        self._gate.require_idle()
        with self._gate.transaction():
            self._gate.check(self._lease)
            return self._gate.read()

    def write(self, columns: Mapping[str, object]) -> None:
        """Change columns of the row, in the guard's open transaction or in a separate one.

        Args:
            columns: The new values, by name. Names are checked, values are passed as parameters.

        Raises:
            StaleFence: A newer holder has opened the row. Nothing was written.
            OutcomeUnknown: The commit was not answered.
            ConfigError: A name is not that of a column that may be written.
            LeaseLost, NotHeld: The lease is not valid any more. Nothing was sent.
            Exception: An error of the driver; the transaction was rolled back.
        """
        columns = self._gate.writable(columns)
        self._ensure()
        if self._inside:
            self._gate.write(self._lease, columns)
            return
        self._gate.require_idle()
        with telling(self._lease, "guard_written", self._gate), self._gate.transaction():
            self._gate.write(self._lease, columns)


def _check(table: object, key: object) -> None:
    if not isinstance(table, str) or not _TABLE.fullmatch(table):
        raise ConfigError(f"not the name of a table: {table!r:.100}", hint="letters, digits and _")
    if not isinstance(key, Mapping) or not key:
        raise ConfigError("key must name one row", hint='for instance key={"id": 42}')


def _columns(names: list[object]) -> list[str]:
    good = [name for name in names if isinstance(name, str) and _NAME.fullmatch(name)]
    if len(good) != len(names) or len({name.lower() for name in good}) != len(good):
        raise ConfigError(f"not different names of columns: {names!r:.100}", hint="letters, digits and _")
    return good
