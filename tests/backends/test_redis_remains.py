"""Keys that the Redis store leaves on the server, and for how long."""

from __future__ import annotations

import pytest

pytest.importorskip("redis")

from lockkit.store.spi import RELEASED, Busy, Granted
from lockkit.testing.claims import claim, queue, renew, states, take

HOUR = 3600.0
SLACK = 60.0
"""Seconds for which keys outlive the last deadline."""
DAY = 86400.0


def keys(server, kind=""):
    """The keys there are, or those of one kind: q, d, c, f, g, r."""
    return sorted(
        key.decode() for key in server.cli("KEYS", "*") if key.endswith(f":{kind}".encode() if kind else b"")
    )


def test_a_release_leaves_the_fence_and_the_index_and_nothing_else(server, store, full):
    held = [take(store, **shape) for shape in full]
    waiter = queue(store, note={"x": 1}, **full[0])
    store.release(held[0][0], 2.0)
    store.acquire(waiter, False, 2.0)
    for one, _ in [*held, (waiter, 0)]:
        store.release(one, 2.0)

    assert keys(server) == ["lockkit:default:names", "lockkit:default:{a}:f"]
    assert 0 < server.cli("PTTL", "lockkit:default:{a}:f") <= DAY * 1000


def test_after_a_crash_everything_goes_by_itself(server, clock, store, full):
    for shape in full:
        take(store, ttl=10, lock_delay=5, **shape)
    queue(store, **full[0])
    store.abandon(claim(), 2.0)

    clock.both(15 + SLACK + 0.1)
    assert keys(server) == ["lockkit:default:names", "lockkit:default:{a}:f"]
    clock.both(DAY)
    assert keys(server) == []


def test_the_keys_live_as_long_as_the_longest_claim_and_as_long_as_somebody_renews(server, clock, store):
    shape = {"capacity": 3, "kind": "semaphore"}
    long, fence = take(store, ttl=1000, **shape)
    short = take(store, ttl=5, **shape)
    store.renew([short], 2.0)
    for letter in "qdc":
        assert server.cli("PTTL", f"lockkit:default:{{a}}:{letter}") > 1000 * 1000
    for _ in range(4):
        clock.both(900)
        assert renew(store, long, fence).state == "HELD"
    assert states(store) == ["HELD"]


@pytest.mark.parametrize("missing", ["holder", "waiter", "both"])
def test_a_release_leaves_no_key_without_an_end_where_a_script_was_stopped_half_way(server, store, missing):
    """A claim then has a place and no deadline."""
    holder, _ = take(store)
    waiter = queue(store)
    for who, one in {"holder": holder, "waiter": waiter}.items():
        if missing in (who, "both"):
            server.cli("ZREM", "lockkit:default:{a}:d", one.token)

    store.release(holder, 2.0)

    for letter in "qdc":
        assert server.cli("PTTL", f"lockkit:default:{{a}}:{letter}") > 0, letter


@pytest.mark.parametrize("first", ["renewal", "claim"])
def test_a_server_that_throws_the_deadlines_away_ends_no_hold_and_blocks_no_lock_for_good(
    server, clock, store, full, first
):
    """As one with another `maxmemory-policy` than `noeviction` does with any single key."""
    holders = [take(store, ttl=10, **shape) for shape in full]
    server.cli("DEL", "lockkit:default:{a}:d")

    if first == "renewal":
        assert [renew(store, *each).state for each in holders] == ["HELD"] * len(full)
    waiter = queue(store, **full[0])
    assert states(store) == [*["HELD"] * len(full), "WAITING"]
    for letter in "qdc":
        assert server.cli("PTTL", f"lockkit:default:{{a}}:{letter}") > 0, letter

    for _ in range(3):  # the holders are silent, the waiter is not
        clock.both(5)
        renew(store, waiter)
    assert isinstance(store.acquire(waiter, False, 2.0), Granted)


@pytest.mark.parametrize("thrown", ["c", "cd"])
def test_a_place_of_which_the_server_has_thrown_the_claim_away_costs_nobody_an_answer(
    server, store, full, thrown
):
    for shape in full:
        take(store, **shape)
    for letter in thrown:
        server.cli("DEL", f"lockkit:default:{{a}}:{letter}")
    holders = [take(store, **shape) for shape in full]

    waiter = queue(store, **full[0])
    assert isinstance(store.acquire(claim(wait=False, **full[0]), True, 2.0), Busy)
    for one, _ in holders:
        store.release(one, 2.0)
    assert isinstance(store.acquire(waiter, False, 2.0), Granted)


def test_a_hold_of_two_days_keeps_its_fence_the_highest_and_its_name_in_the_index(
    server, clock, store, opened
):
    one, fence = take(store, ttl=HOUR)
    for _ in range(48 * 2):
        clock.both(HOUR / 2)
        assert renew(store, one, fence).state == "HELD"

    assert opened().names("", 2.0) == ["a"]
    assert store.release(one, 2.0) == RELEASED
    assert take(store)[1] > fence


def test_the_index_forgets_names_that_nobody_uses(server, clock, store, opened):
    for number in range(5):
        one, _ = take(store, f"old{number}")
        store.release(one, 2.0)
    clock.both(3 * HOUR)

    take(opened(), "new")

    assert server.cli("ZRANGE", "lockkit:default:names", 0, -1) == [b"new"]


HOSTILE = [
    "a",
    "a/b",
    "{a}",
    "a}b",
    "}{",
    "..",
    ".",
    "*",
    "a:q",
    "names",
    "a b",
    "a\u0301",
    "\u00e1",
    "%41",
    "A",
    "?",
    "[a]",
]


def test_hostile_names_are_independent_and_each_has_its_keys_in_one_slot(server, store):
    names = [*HOSTILE, "\u00e4" * 256]
    for name in names:
        take(store, name)

    assert list(store.names("", 2.0)) == list(store.names("", 2.0, deep=True)) == sorted(names)
    found = [key for key in keys(server) if key != "lockkit:default:names"]
    tags = {}
    for key in found:
        assert key.startswith("lockkit:default:{")
        tag = key.partition("{")[2].partition("}")[0]  # as a Cluster reads it
        assert tag
        assert key == f"lockkit:default:{{{tag}}}:{key[-1]}"
        tags.setdefault(tag, set()).add(key[-1])
    assert len(tags) == len(names)
    assert set(map(frozenset, tags.values())) == {frozenset("qdcf")}
