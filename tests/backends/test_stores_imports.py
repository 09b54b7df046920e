"""Imports after lockkit's first: a fork during one would leave the child a module it can never import."""

from __future__ import annotations

import pytest

from support.harnesses.etcd import EtcdHarness
from support.harnesses.redis import RedisHarness
from support.harnesses.sqlite import SqliteHarness
from support.harnesses.zookeeper import ZooKeeperHarness
from support.importing import unprotected_imports


@pytest.mark.parametrize(
    "kind", [SqliteHarness, RedisHarness, EtcdHarness, ZooKeeperHarness], ids=lambda kind: kind.name
)
def test_a_store_imports_nothing_while_a_fork_may_come_in_between(kind, tmp_path):
    harness = kind(tmp_path)
    try:
        assert unprotected_imports(harness.url, tmp_path) == []
    finally:
        harness.close()
