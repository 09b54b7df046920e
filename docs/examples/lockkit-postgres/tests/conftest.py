"""Fixtures that the tests share: one private server, and an empty database for each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from lockkit.store.spi import Backend
from lockkit.testing.claims import open_store
from server import PostgresServer

# A real store answers when it answers.
settings.register_profile(
    "real", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("real")

_databases = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def database(server: PostgresServer) -> str:
    """An empty one."""
    name = f"test_{next(_databases)}"
    server.sql(f"CREATE DATABASE {name}")
    return name


@pytest.fixture
def url(server: PostgresServer, database: str) -> str:
    return server.url(database)


@pytest.fixture
def opened() -> Iterator[Callable[..., Backend]]:
    """Open stores that are closed afterwards, without a client before them."""
    stores: list[Backend] = []

    def open_one(url: str, **options: object) -> Backend:
        stores.append(open_store(url, **options))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[..., Backend], url: str) -> Backend:
    return opened(url)
