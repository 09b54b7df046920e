"""Databases for the gate before rows: SQLite, and the private PostgreSQL of the example's tests."""

from __future__ import annotations

import contextlib
import importlib.util
import sqlite3
from pathlib import Path

import psycopg
import pytest

SERVER = Path(__file__).parents[2] / "docs/examples/lockkit-postgres/tests/server.py"
ROWS = (
    "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, note TEXT, fence BIGINT)",
    "CREATE TABLE lockkit_fence (name TEXT PRIMARY KEY, fence BIGINT)",
    "INSERT INTO accounts (id, balance) VALUES (42, 100), (43, 7)",
)


class SqliteDatabase:
    """A file of its own for each test. A file that another connection has locked is an error, not a wait."""

    name = "sqlite"

    def __init__(self, folder):
        self.file = folder / "app.db"
        self.url = f"sqlite:///{self.file}"

    def connect(self, **more):
        connection = sqlite3.connect(self.file, **{"timeout": 0.0, "check_same_thread": False, **more})
        connection.execute("PRAGMA synchronous = off")
        return connection


class PostgresDatabase:
    """One database, emptied for each test. A locked row is an error, not a wait."""

    name = "postgres"

    def __init__(self, server):
        server.sql("DROP SCHEMA public CASCADE")
        server.sql("CREATE SCHEMA public")
        self.conninfo = server.conninfo().decode()
        self.url = self.conninfo.replace("postgresql://", "postgresql+psycopg://")

    def connect(self, **more):
        return psycopg.connect(self.conninfo, options="-c lock_timeout=5ms", **more)


@pytest.fixture(scope="session")
def postgres():
    spec = importlib.util.spec_from_file_location("postgres_server", SERVER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.PostgresServer(auth="trust") as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path):
    made = (
        SqliteDatabase(tmp_path)
        if request.param == "sqlite"
        else PostgresDatabase(request.getfixturevalue("postgres"))
    )
    with contextlib.closing(made.connect()) as connection:
        for statement in ROWS:
            connection.execute(statement)
        connection.commit()
    return made


@pytest.fixture
def connect(database):
    with contextlib.ExitStack() as stack:
        yield lambda **more: stack.enter_context(contextlib.closing(database.connect(**more)))


@pytest.fixture
def connection(connect):
    return connect()


@pytest.fixture
def balance(connect):
    """The balance of an account, as another connection sees it."""
    looking = connect()

    def look(account=42):
        (found,) = looking.execute(f"SELECT balance FROM accounts WHERE id = {account}").fetchone()
        looking.rollback()
        return found

    return look
