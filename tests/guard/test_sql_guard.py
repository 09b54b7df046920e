"""The gate before a row of SQLite and PostgreSQL: refusals, no lost update, mutants, outcome of a commit."""

from __future__ import annotations

import re
import sqlite3
import sys
from contextlib import closing

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockkit import guard
from lockkit.cli.main import run
from lockkit.errors import ConfigError, LeaseLost, NotHeld, OutcomeUnknown, StaleFence
from lockkit.guard import databases, on_sql
from support.guards import FakeLease, lost, lost_in_some_run

KEY = {"id": 42}
POSTGRES = pytest.mark.parametrize("database", ["postgres"], indirect=True)
LOCKED = (sqlite3.OperationalError, psycopg.errors.LockNotAvailable)


def account(connection, **more):
    return guard.sql(connection, "accounts", key=KEY, **more)


def fences(connection):
    return guard.sql(connection, "lockkit_fence", key={"name": "accounts"}, insert=True)


# -- one holder


def test_a_holder_reads_and_writes_its_row(connection, balance):
    with account(connection).open(FakeLease(3)) as guarded:
        assert guarded.read() == {"id": 42, "balance": 100, "note": None, "fence": 3}
        guarded.write({"balance": 90, "note": "x"})
        assert guarded.read()["note"] == "x"

    assert balance() == 90
    assert account(connection).peek() == 3


def test_a_transaction_is_committed_as_a_whole_or_not_at_all(connection, balance):
    guarded = account(connection).open(FakeLease(3))
    with guarded.transaction():
        connection.execute("UPDATE accounts SET balance = balance + 1 WHERE id = 43")
        guarded.write({"balance": guarded.read()["balance"] - 1})
    assert (balance(42), balance(43)) == (99, 8)

    with pytest.raises(KeyError), guarded.transaction():
        _spoil(connection)
    assert (balance(42), balance(43)) == (99, 8)


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_a_transaction_that_the_body_ends_is_noticed(connect, balance, ending):
    mine, other = connect(), connect()
    guarded = account(mine).open(FakeLease(3))

    with pytest.raises(OutcomeUnknown, match="did not last"), guarded.transaction():
        _end(getattr(mine, ending), mine, other)

    assert (balance(42), balance(43)) == (1, 7)
    assert account(mine).peek() == 4


def _end(ending, mine, other):
    """End a transaction of the guard, let a newer holder write, and go on."""
    ending()
    account(other).open(FakeLease(4)).write({"balance": 1})
    mine.execute("UPDATE accounts SET balance = 0 WHERE id = 43")


def test_a_savepoint_of_the_body_does_not_end_the_transaction(connection, balance):
    guarded = account(connection).open(FakeLease(3))
    with guarded.transaction():
        connection.execute("SAVEPOINT mine")
        guarded.write({"balance": 1})
        connection.execute("ROLLBACK TO SAVEPOINT mine")
        connection.execute("UPDATE accounts SET balance = balance + 1")

    assert balance() == 101


def test_a_database_of_which_no_savepoints_are_known_compares_the_fence_again(connect, balance, monkeypatch):
    monkeypatch.setattr(databases, "_marks", lambda connection: False)
    mine, other = connect(), connect()
    guarded = account(mine).open(FakeLease(3))

    with pytest.raises(StaleFence), guarded.transaction():
        _end(mine.commit, mine, other)

    assert (balance(42), balance(43)) == (1, 7)


def _spoil(connection):
    connection.execute("UPDATE accounts SET balance = 0")
    raise KeyError


def test_a_table_of_fences_guards_what_has_no_column_for_one(connect, balance):
    older, newer = connect(), connect()
    first = fences(older).open(FakeLease(3))
    with first.transaction():
        older.execute("UPDATE accounts SET balance = 1")
    second = fences(newer).open(FakeLease(4))

    with pytest.raises(StaleFence), first.transaction():
        older.execute("UPDATE accounts SET balance = 2")

    assert balance() == 1
    assert second.read() == {"name": "accounts", "fence": 4}
    assert fences(older).peek() == 4


# -- two holders


def test_a_newer_holder_stops_an_older_one_before_it_has_written(connect, balance):
    older = account(connect()).open(FakeLease(3))
    account(connect()).open(FakeLease(4))

    with pytest.raises(StaleFence, match="fence 4, and this one is 3"):
        older.write({"balance": 0})
    with pytest.raises(StaleFence):
        older.read()
    with pytest.raises(StaleFence), older.transaction():
        pytest.fail("the body has run")

    assert balance() == 100


def test_an_older_holder_cannot_open_and_the_same_lease_can(connect):
    account(connect()).open(FakeLease(10))

    with pytest.raises(StaleFence, match="fence 10, and this one is 9"):
        account(connect()).open(FakeLease(9))
    account(connect()).open(FakeLease(10)).write({"balance": 1})


def test_a_check_guards_a_transaction_that_the_user_has_begun(connect, balance):
    mine, other = connect(), connect()
    guarded = account(mine).open(FakeLease(3))
    mine.execute("UPDATE accounts SET balance = 8 WHERE id = 43")
    guarded.check()
    with pytest.raises(LOCKED):  # the newer holder waits until the transaction is over
        account(other).open(FakeLease(4))
    mine.commit()
    assert balance(43) == 8

    account(other).open(FakeLease(4))
    mine.execute("UPDATE accounts SET balance = 9 WHERE id = 43")
    with pytest.raises(StaleFence):
        guarded.check()
    mine.rollback()
    assert balance(43) == 8


def test_a_fence_that_went_back_stops_its_holder(connect):
    guarded = account(connect()).open(FakeLease(3))
    restored = connect()
    restored.execute("UPDATE accounts SET fence = NULL")
    restored.commit()

    with pytest.raises(StaleFence, match="does not know fence 3"):
        guarded.write({"balance": 1})


# -- refused before anything is sent, or before anything is done


def test_a_lease_that_is_shared_or_not_valid_sends_nothing(connection):
    class Lost(FakeLease):
        def ensure_held(self):
            raise LeaseLost("gone")

    gate = account(connection)
    with pytest.raises(ConfigError, match="shared"):
        gate.open(FakeLease(3, exclusive=False))
    with pytest.raises(LeaseLost):
        gate.open(Lost(3))
    assert gate.peek() is None

    guarded = gate.open(FakeLease(3))
    guarded.close()
    for late in (
        guarded.read,
        guarded.check,
        lambda: guarded.write({"balance": 0}),
        guarded.transaction().__enter__,
    ):
        with pytest.raises(NotHeld):
            late()


@pytest.mark.parametrize("kind", ["TEXT", "VARCHAR(20)", "REAL"])
@pytest.mark.parametrize("insert", [False, True])
def test_a_column_that_keeps_no_whole_numbers_is_refused(connection, database, kind, insert):
    """As text 9 is more than 10, and a floating-point number is the same for many fences."""
    connection.execute(f"CREATE TABLE others (id INTEGER PRIMARY KEY, fence {kind})")
    if not insert:
        connection.execute("INSERT INTO others (id) VALUES (42)")
    connection.commit()
    gate = guard.sql(connection, "others", key=KEY, insert=insert)

    for fence in (10, 9):
        # PostgreSQL does not compare text and numbers by itself.
        with pytest.raises((ConfigError, psycopg.ProgrammingError), match=r"BIGINT|operator does not exist"):
            gate.open(FakeLease(fence))

    stored = connection.execute("SELECT fence FROM others").fetchall()
    assert stored == ([] if insert else [(None,)])


@pytest.mark.parametrize(
    "arguments",
    [
        {"table": "accounts; DROP TABLE accounts"},
        {"table": ""},
        {"table": 7},
        {"key": {}},
        {"key": 42},
        {"key": {"id": None}},
        {"key": {"id = 42 OR 1": 1}},
        {"key": {"fence": 1}},
        {"key": {"id": 1, "ID": 1}},
        {"fence": "fence--"},
        {"paramstyle": "dollar"},
    ],
)
def test_bad_arguments_are_refused(connection, arguments):
    with pytest.raises(ConfigError):
        guard.sql(connection, **{"table": "accounts", "key": KEY, **arguments})


@pytest.mark.parametrize(
    "columns", [{}, None, {"id": 1}, {"fence": 9}, {"FENCE": 9}, {"balance = 0 --": 1}, {7: 1}]
)
def test_columns_that_a_holder_may_not_write_are_refused(connection, columns):
    guarded = account(connection).open(FakeLease(3))

    with pytest.raises(ConfigError):
        guarded.write(columns)


@pytest.mark.parametrize("other", [None, object(), "sqlite:"])
def test_what_is_no_connection_is_refused(other):
    with pytest.raises(ConfigError, match="not a connection"):
        account(other)


def test_a_row_that_is_missing_or_not_one_is_named(connection):
    with pytest.raises(ConfigError, match="is not there"):
        guard.sql(connection, "accounts", key={"id": 1}).open(FakeLease(3))
    connection.execute("CREATE TABLE twice (name TEXT, fence BIGINT)")
    connection.execute("INSERT INTO twice (name) VALUES ('a'), ('a')")
    connection.commit()
    with pytest.raises(ConfigError, match="2 rows"):
        guard.sql(connection, "twice", key={"name": "a"}).open(FakeLease(3))
    connection.execute("UPDATE accounts SET note = 'text'")
    connection.commit()
    with pytest.raises(ConfigError, match="no fence in it"):
        guard.sql(connection, "accounts", key=KEY, fence="note").peek()


def test_a_transaction_that_is_open_is_not_ended_by_the_gate(connection, connect):
    guarded = account(connection).open(FakeLease(3))
    connection.execute("UPDATE accounts SET balance = 0 WHERE id = 43")

    for refused in (
        lambda: account(connection).open(FakeLease(4)),
        lambda: guarded.write({"balance": 1}),
        guarded.read,
        account(connection).peek,
    ):
        with pytest.raises(ConfigError, match="a transaction is open"):
            refused()
    connection.rollback()
    with guarded.transaction(), pytest.raises(ConfigError, match="not nested"), guarded.transaction():
        pass


# -- ways to be connected


def autocommit(database, connect):
    return connect(isolation_level=None) if database.name == "sqlite" else connect(autocommit=True)


def test_a_connection_in_autocommit_has_transactions_all_the_same(database, connect, balance):
    mine = autocommit(database, connect)
    guarded = account(mine).open(FakeLease(3))
    guarded.write({"balance": 90})
    with pytest.raises(KeyError), guarded.transaction():
        _spoil(mine)
    with guarded.transaction():
        mine.execute("UPDATE accounts SET balance = balance - 1 WHERE id = 42")

    assert balance() == 89


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("mode", [True, False])
def test_both_modes_of_sqlite3_in_new_pythons_have_transactions(database, connect, balance, mode):
    mine = connect()
    mine.autocommit = mode
    guarded = account(mine).open(FakeLease(3))
    guarded.write({"balance": 90})
    with pytest.raises(KeyError), guarded.transaction():
        _spoil(mine)
    with guarded.transaction():
        mine.execute("UPDATE accounts SET balance = balance - 1 WHERE id = 42")
    account(mine).open(FakeLease(4))
    with pytest.raises(StaleFence):
        guarded.write({"balance": 0})

    assert balance() == 89


def test_a_check_in_autocommit_would_protect_nothing_and_is_refused(database, connect):
    mine = autocommit(database, connect)
    guarded = account(mine).open(FakeLease(3))

    with pytest.raises(ConfigError, match="protects nothing"):
        guarded.check()
    mine.execute("BEGIN")
    guarded.check()
    mine.execute("COMMIT")


@pytest.mark.parametrize(
    "database, style",
    [
        ("sqlite", "qmark"),
        ("sqlite", "named"),
        ("sqlite", "numeric"),
        ("postgres", "format"),
        ("postgres", "pyformat"),
    ],
    indirect=["database"],
)
def test_every_parameter_style_reaches_a_database(database, connect, style):
    mine = connect()
    if style == "numeric":
        mine = Numeric(mine)

    guarded = account(mine, paramstyle=style).open(FakeLease(3))
    guarded.write({"balance": 90})

    assert guarded.read()["balance"] == 90


class Numeric:
    """A connection that understands ``:1``, as that of Oracle does; sqlite3 writes it ``?1``."""

    def __init__(self, connection):
        self._connection = connection

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def cursor(self):
        connection = self._connection

        class Cursor(sqlite3.Cursor):
            def execute(self, text, values=()):
                return super().execute(re.sub(r":(\d+)", r"?\1", text), values)

        return connection.cursor(Cursor)


def test_the_style_is_that_of_the_module_of_the_connection(database, connection):
    class Mine(sqlite3.Connection):
        pass

    assert on_sql.adapted(connection, None)._style == ("qmark" if database.name == "sqlite" else "pyformat")
    with closing(Mine(":memory:")) as mine:
        assert on_sql.adapted(mine, None)._style == "qmark"
    with pytest.raises(ConfigError, match="say paramstyle="):
        account(Numeric(connection))


def test_rows_that_come_as_mappings_are_read_as_well(database, connect):
    mine = connect()
    if database.name == "sqlite":
        mine.row_factory = sqlite3.Row
    else:
        mine.row_factory = psycopg.rows.dict_row

    assert account(mine).open(FakeLease(3)).read()["balance"] == 100
    assert account(mine).peek() == 3


# -- no lost update


class Pausing:
    """A connection whose user may be paused before each statement and each commit."""

    def __init__(self, connection, pause):
        self._connection, self._pause = connection, pause

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def commit(self):
        self._pause()
        self._connection.commit()

    def cursor(self):
        pause, cursor = self._pause, self._connection.cursor()

        class Cursor:
            def __getattr__(self, name):
                return getattr(cursor, name)

            def execute(self, *words):
                pause()
                return cursor.execute(*words)

        return Cursor()


class Balance:
    """The balance of an account as a counter; see support.guards.Register."""

    refusals = LOCKED

    def __init__(self, connect, style, kind=on_sql.SqlGate):
        self._style, self._kind = style, kind
        self._admin = connect()
        # Only an error abandons a holder inside a transaction, and rolls back: two connections serve all.
        self._free = [connect() for _ in range(3)]
        self._next = 0

    def clear(self):
        self._admin.execute("UPDATE accounts SET balance = 0, fence = NULL WHERE id = 42")
        self._admin.commit()
        self._next = 0

    def _connection(self, pause):
        self._next += 1
        return Pausing(self._free[self._next - 1], pause)

    def opened(self, fence, pause):
        gate = self._kind(self._connection(pause), "accounts", key=KEY, paramstyle=self._style)
        guarded = gate.open(FakeLease(fence))
        return lambda: guarded.read()["balance"], lambda number: guarded.write({"balance": number})

    def unguarded(self, pause):
        connection = self._connection(pause)

        def run(statement):
            cursor = connection.cursor()
            try:
                cursor.execute(statement)
                return cursor.fetchone() if cursor.description else None
            finally:
                connection._connection.commit()

        return (
            lambda: run("SELECT balance FROM accounts WHERE id = 42")[0],
            lambda number: run(f"UPDATE accounts SET balance = {number} WHERE id = 42"),
        )

    def value(self):
        (found,) = self._admin.execute("SELECT balance FROM accounts WHERE id = 42").fetchone()
        self._admin.commit()
        return found


@pytest.fixture
def counter(database, connect):
    style = {"sqlite": "qmark", "postgres": "pyformat"}[database.name]
    return lambda kind=on_sql.SqlGate: Balance(connect, style, kind)


def test_an_unguarded_row_loses_updates(counter):
    assert lost_in_some_run(counter(), guarded=False)


def test_a_guarded_row_loses_none(counter):
    assert not lost_in_some_run(counter())


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(schedule=st.lists(st.integers(0, 5), max_size=40))
def test_a_guarded_row_loses_none_among_three_holders(counter, schedule):
    assert lost(counter(), schedule, holders=3) == 0


class TwoSteps(on_sql.SqlGate):
    """A gate that compares in one statement and writes in another, in one transaction."""

    def write(self, lease, columns):
        if self._stored() != [lease.fence]:
            self._refuse(lease)
        (name,) = columns
        self._database.run(
            f"UPDATE accounts SET {name} = :value WHERE {self._row}", {**self._key, "value": columns[name]}
        )


class NotCompared(on_sql.SqlGate):
    """A gate that does not compare."""

    def _register(self, lease):
        return True

    def _kept(self, fence):
        """Do nothing."""

    def check(self, lease):
        """Do nothing."""

    def write(self, lease, columns):
        values = {**self._key, "value": columns["balance"]}
        self._database.run(f"UPDATE accounts SET balance = :value WHERE {self._row}", values)


class Unchecked(on_sql.SqlGate):
    """A gate that compares, and does not look whether the statement has found the row."""

    def _refuse(self, lease):
        """Do nothing."""


class Strict(on_sql.SqlGate):
    """A gate that wants a higher fence than the last."""

    def _register(self, lease):
        cells = self._stored()
        return super()._register(lease) and cells != [lease.fence]


@pytest.mark.parametrize("kind", [TwoSteps, NotCompared, Unchecked])
def test_the_schedules_kill_a_gate_that_is_none(counter, kind):
    assert lost_in_some_run(counter(kind))


def test_the_tests_kill_a_gate_that_wants_a_higher_fence(connect, monkeypatch):
    monkeypatch.setattr(on_sql, "SqlGate", Strict)

    with pytest.raises(StaleFence):
        test_an_older_holder_cannot_open_and_the_same_lease_can(connect)


# -- the outcome of a commit


@POSTGRES
def test_a_commit_without_an_answer_is_unknown(database, connect, postgres):
    mine = connect()
    pid = mine.info.backend_pid

    class Ended(Pausing):
        def commit(self):
            if guarded is not None:
                postgres.sql(f"SELECT pg_terminate_backend({pid}, 5000)")
            super().commit()

    guarded = None
    ended = Ended(mine, lambda: None)
    guarded = guard.sql(ended, "accounts", key=KEY, paramstyle="pyformat").open(FakeLease(3))

    with pytest.raises(OutcomeUnknown, match="was committed is not known"), guarded.transaction():
        ended.cursor().execute("UPDATE accounts SET balance = 0")


@POSTGRES
def test_a_connection_that_breaks_in_the_body_is_no_commit(connect, postgres, balance):
    mine = connect()
    guarded = account(mine).open(FakeLease(3))
    pid = mine.info.backend_pid

    with pytest.raises(OutcomeUnknown, match="did not last"), guarded.transaction():
        postgres.sql(f"SELECT pg_terminate_backend({pid}, 5000)")
    assert balance() == 100


def test_a_commit_that_the_database_refuses_is_the_error_of_the_database(database, connect, balance):
    mine = connect()
    guarded = account(mine).open(FakeLease(3))
    deferred = "REFERENCES accounts DEFERRABLE INITIALLY DEFERRED"
    mine.execute("PRAGMA foreign_keys = ON") if database.name == "sqlite" else None
    mine.execute(f"CREATE TABLE payments (account INTEGER {deferred})")
    mine.commit()

    with pytest.raises((sqlite3.IntegrityError, psycopg.IntegrityError)), guarded.transaction():
        mine.execute("INSERT INTO payments VALUES (99)")

    guarded.write({"balance": 90})
    assert balance() == 90


@POSTGRES
def test_a_connection_that_has_died_is_not_taken_for_one_in_a_transaction(connect, postgres):
    mine = connect()
    guarded = account(mine).open(FakeLease(3))
    postgres.sql(f"SELECT pg_terminate_backend({mine.info.backend_pid}, 5000)")

    for attempt in (guarded.read, guarded.read, account(mine).peek):
        with pytest.raises(psycopg.OperationalError):
            attempt()


@pytest.mark.parametrize("call", ["begin", "commit"])
def test_an_interrupt_leaves_no_transaction_open(database, connect, monkeypatch, balance, call):
    mine = autocommit(database, connect) if call == "begin" else connect()
    guarded = account(mine).open(FakeLease(3))
    begin = databases._DbApi.begin

    def interrupted(self):
        if call == "begin":
            begin(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(databases._DbApi, call, interrupted)
    with pytest.raises(KeyboardInterrupt):
        guarded.write({"balance": 1})
    monkeypatch.undo()

    guarded.write({"balance": 2})
    assert balance() == 2


def test_an_error_in_the_body_leaves_the_connection_ready(connection):
    guarded = account(connection).open(FakeLease(3))
    with pytest.raises((sqlite3.Error, psycopg.Error)):
        guarded.write({"missing": 1})

    guarded.write({"balance": 90})


@POSTGRES
def test_two_holders_that_insert_the_same_row_at_once_agree(database, connect):
    """The second INSERT finds the row of the first, committed since it looked. (SQLite locks the file.)"""
    mine, other = connect(), connect()
    gate = fences(mine)
    right = gate._stored

    def stored():
        found = right()
        if not found:
            fences(other).open(FakeLease(2))
        return found

    gate._stored = stored
    gate.open(FakeLease(3))

    assert fences(other).peek() == 3


@POSTGRES
def test_the_rights_in_the_docs_are_enough(database, connect):
    owner, writer = connect(), connect()
    owner.execute("DROP ROLE IF EXISTS writer")
    owner.execute("CREATE ROLE writer")
    owner.execute("GRANT USAGE ON SCHEMA public TO writer")
    owner.execute("GRANT SELECT, UPDATE ON accounts TO writer")
    owner.execute("GRANT SELECT, UPDATE, INSERT ON lockkit_fence TO writer")
    owner.commit()
    writer.execute("SET ROLE writer")
    writer.commit()

    account(writer).open(FakeLease(3)).write({"balance": 90})
    fences(writer).open(FakeLease(3)).read()

    writer.rollback()
    owner.execute("DROP OWNED BY writer")
    owner.execute("DROP ROLE writer")
    owner.commit()


@POSTGRES
@pytest.mark.parametrize("library", ["psycopg", "sqlalchemy"])
def test_the_command_shows_it_and_leaves_nothing(database, connect, capsys, library):
    assert run(["guard", "check", database.conninfo if library == "psycopg" else database.url]) == 0
    told = capsys.readouterr().out
    assert told.count("\nok ") == 6
    assert "hunter2" not in told
    found = connect().execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    )
    assert {name for (name,) in found.fetchall()} == {"accounts", "lockkit_fence"}
