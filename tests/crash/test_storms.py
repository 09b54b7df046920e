"""Storms: in whatever strikes, no two processes hold one lock; and none is left held.

``--lockkit-whole`` plays each for 10,000 grants. ``LOCKKIT_STORM_SEED`` repeats a seed: what the processes
take and what strikes next, though not at which moments.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import sqlite3
import time

import pytest

from lockkit.testing.processes import installed
from support.servers.zookeeper_program import zookeeper_installed
from support.storms.stages import Stage, staged
from support.storms.storm import Storm
from support.storms.witness import Held, wrong

GRANTS, WHOLE = 600, 10_000
STORMS = {
    "forks": ("sqlite", "redis", "etcd", "etcd+grpc", "zookeeper"),  # a child has a memory store of its own
    "signals": ("memory", "sqlite", "redis", "etcd", "etcd+grpc", "zookeeper"),
    "late": ("sqlite", "redis", "etcd", "etcd+grpc", "zookeeper"),  # nothing is under way to the memory store
    "leaders": ("redis", "etcd", "etcd+grpc", "zookeeper"),
    "leaders-unheard": ("zookeeper",),
}
NEEDS = {
    "redis": lambda: installed("redis-server") and importlib.util.find_spec("redis"),
    "etcd": lambda: installed("etcd"),
    "etcd+grpc": lambda: installed("etcd") and importlib.util.find_spec("etcd3"),
    "zookeeper": lambda: zookeeper_installed() and importlib.util.find_spec("kazoo"),
}


@pytest.fixture
def seed():
    return int(os.environ.get("LOCKKIT_STORM_SEED") or random.randrange(2**32))


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("storm, store", [(storm, store) for storm in STORMS for store in STORMS[storm]])
def test_s2_l4_no_two_hold_and_nothing_stays_held(storm, store, seed, tmp_path, request):
    if store in NEEDS and not NEEDS[store]():
        pytest.skip(f"{store} cannot be tested here")
    grants = WHOLE if request.config.getoption("--lockkit-whole") else GRANTS
    print(f"seed {seed}")
    began = time.monotonic()
    with staged(storm, store, seed, tmp_path) as stage, Storm(storm, stage, seed, tmp_path) as played:
        played.play(grants)
        holds, told = played.witness.holds, played.told
    took = time.monotonic() - began
    print(
        store,
        storm,
        f"{len(holds)} grants, {len(wrong(holds))} overlaps, {took:.0f} s, struck: {played.strikes}",
    )
    assert wrong(holds) == []
    assert played.witness.troubles == [], told
    if store == "sqlite":
        with contextlib.closing(sqlite3.connect(tmp_path / "locks.db")) as database:
            anew = database.execute("SELECT value FROM meta WHERE key = 'anew'").fetchall()
        assert not anew, "somebody made a store anew that others have open"
    assert len(holds) >= grants


def test_a_store_that_each_process_has_for_itself_is_found_out(seed, tmp_path):
    stage = Stage(["memory:", "memory:"], 60.0)
    with Storm("signals", stage, seed, tmp_path) as played:
        played.play(500)
        assert wrong(played.witness.holds)


def test_the_witness_sees_holds_that_meet_and_fences_that_do_not_rise():
    first = Held("a", 1.0, 3.0, 7, 0)
    assert wrong([first, Held("a", 3.1, 4.0, 8, 1), Held("b", 2.0, 2.5, 1, 1)]) == []
    for other in (Held("a", 2.0, 2.5, 8, 1), Held("a", 3.1, 4.0, 7, 1), Held("a", 2.9, 4.0, 8, 1)):
        assert wrong([first, other]) == [(first, other)]
    inside, behind = Held("a", 1.5, 1.6, 8, 1), Held("a", 2.0, 4.0, 9, 2)
    assert wrong([first, inside, behind]) == [(first, inside), (first, behind)], (
        "it forgets who holds the longest"
    )
