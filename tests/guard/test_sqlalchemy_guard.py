"""The gate on connections and sessions of SQLAlchemy."""

from __future__ import annotations

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from lockkit import guard
from lockkit.errors import ConfigError, OutcomeUnknown, StaleFence
from support.guards import FakeLease

KEY = {"id": 42}


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int]


@pytest.fixture
def engine(database):
    made = sqlalchemy.create_engine(database.url)
    yield made
    made.dispose()


@pytest.fixture(params=["core", "orm"])
def connected(request, engine):
    """A function that makes connections, or sessions."""
    made = []

    def connect():
        made.append(engine.connect() if request.param == "core" else Session(engine))
        return made[-1]

    yield connect
    for each in made:
        each.close()


def test_a_row_is_read_written_and_guarded(connected, balance):
    mine, other = connected(), connected()
    older = guard.sql(mine, "accounts", key=KEY).open(FakeLease(3))
    older.write({"balance": older.read()["balance"] - 10})
    with older.transaction():
        mine.execute(sqlalchemy.text("UPDATE accounts SET balance = balance - 1 WHERE id = 42"))
    assert balance() == 89

    newer = guard.sql(other, "accounts", key=KEY).open(FakeLease(4))
    with pytest.raises(StaleFence), older.transaction():
        pytest.fail("the body has run")
    newer.write({"balance": 1})
    assert balance() == 1


def test_objects_of_the_orm_are_written_in_the_transaction_of_the_guard(engine, balance):
    with Session(engine) as mine, Session(engine) as other:
        gate = guard.sql(mine, "lockkit_fence", key={"name": "accounts"}, insert=True)
        older = gate.open(FakeLease(3))
        with older.transaction():
            mine.get(Account, 42).balance = 90
        assert balance() == 90

        guard.sql(other, "lockkit_fence", key={"name": "accounts"}).open(FakeLease(4))
        with pytest.raises(StaleFence), older.transaction():
            mine.get(Account, 42).balance = 0
        assert balance() == 90


def test_a_check_guards_a_block_that_the_user_has_begun(engine, balance):
    with Session(engine) as mine, Session(engine) as other:
        older = guard.sql(mine, "accounts", key=KEY).open(FakeLease(3))
        with mine.begin():
            older.check()
            mine.get(Account, 43).balance = 8
        guard.sql(other, "accounts", key=KEY).open(FakeLease(4))
        with mine.begin() as begun:
            mine.get(Account, 43).balance = 9
            with pytest.raises(StaleFence):
                older.check()
            begun.rollback()
    assert balance(43) == 8


def test_work_that_is_pending_is_not_committed_by_the_gate(engine, balance):
    with Session(engine) as mine:
        guarded = guard.sql(mine, "accounts", key=KEY).open(FakeLease(3))
        mine.add(Account(id=44, balance=1))
        with pytest.raises(ConfigError, match="a transaction is open"):
            guarded.write({"balance": 1})
        mine.rollback()


def test_a_connection_in_autocommit_is_refused(engine):
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as mine:
        guarded = guard.sql(mine, "accounts", key=KEY).open(FakeLease(3))
        with pytest.raises(ConfigError, match="protects nothing"):
            guarded.read()


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_a_commit_without_an_answer_is_unknown(connected, postgres, monkeypatch):
    mine = connected()
    gate = guard.sql(mine, "accounts", key=KEY)
    guarded = gate.open(FakeLease(3))
    commit = mine.commit

    def ended():
        core = mine.connection() if isinstance(mine, Session) else mine
        postgres.sql(
            f"SELECT pg_terminate_backend({core.connection.dbapi_connection.info.backend_pid}, 5000)"
        )
        commit()

    monkeypatch.setattr(mine, "commit", ended)
    with pytest.raises(OutcomeUnknown, match="was committed is not known"):
        guarded.write({"balance": 0})
    monkeypatch.undo()
    guarded.write({"balance": 1})


def test_what_is_no_connection_is_refused(engine):
    with pytest.raises(ConfigError, match="Connection or a Session"):
        guard.sql(engine, "accounts", key=KEY)
    with pytest.raises(ConfigError, match="synchronous"):
        guard.sql(AsyncSession(), "accounts", key=KEY)
    with engine.connect() as mine, pytest.raises(ConfigError, match="knows its own"):
        guard.sql(mine, "accounts", key=KEY, paramstyle="qmark")
