"""Stores for the tests of the asyncio face: one called on the loop, and one called on threads."""

from __future__ import annotations

import pytest

from support.harnesses.memory import MemoryHarness
from support.harnesses.sqlite import SqliteHarness


@pytest.fixture(params=[MemoryHarness, SqliteHarness], ids=["memory", "sqlite"])
def harness(request, tmp_path):
    harness = request.param(tmp_path)
    yield harness
    harness.close()
