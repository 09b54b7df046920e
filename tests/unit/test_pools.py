"""Pools: some of several members, behind one gate. Tests run on the memory store and the embedded one."""

from __future__ import annotations

import os
import threading

import pytest

import lockkit
from lockkit.errors import AcquireTimeout, ConfigError, DeadlockDetected, LeaseLost
from lockkit.notes.members import in_pool, pool_name
from lockkit.testing.processes import until
from lockkit.testing.stage import Work

CARDS = {"0": 80, "1": 80, "2": 40}


def waits(client, *names):
    """A function that says whether somebody waits in the queue of each of these names."""
    return lambda: all(
        any(claim.state == "WAITING" for claim in client.inspect(name).claims) for name in names
    )


def nothing_left(client):
    return not any(client.inspect(name).claims for name in client.names())


GATE = pool_name("p")
A, B, C = (pool_name("p", member) for member in "abc")


def test_members_that_are_free_are_taken_in_the_order_of_the_pool(client):
    pool = client.pool("p", ["a", "b", "c"])
    with pool.acquire(2) as leases:
        assert leases.members == ("a", "b")
        assert leases.names == (A, B)
        assert client.inspect(GATE).claims == ()
        with pool.acquire() as more:
            assert more.members == ("c",)
            assert pool.try_acquire() is None
    assert nothing_left(client)


def test_the_request_may_say_which_members_will_do_and_in_which_order(client):
    pool = client.pool("p", ["a", "b", "c"])
    with pool.acquire(among=["c", "a"]) as first, pool.acquire(among=["c", "a"]) as second:
        assert (first.members, second.members) == (("c",), ("a",))
        assert pool.try_acquire(among=["c", "a"]) is None


def test_members_are_shared_by_weight(client):
    pool = client.pool("gpus", CARDS)
    with pool.acquire(2, each=30) as first, pool.acquire(2, each=50) as second:
        assert first.members == ("0", "1")
        assert second.members == ("0", "1")
        assert pool.try_acquire(each=41) is None
        assert pool.try_acquire(2) is None  # only one whole member is free
    assert nothing_left(client)


def test_without_each_the_whole_member_is_taken(client):
    pool = client.pool("gpus", CARDS)
    with pool.acquire(3) as leases:
        assert leases.members == ("0", "1", "2")
        assert pool.try_acquire(each=1) is None


def test_the_request_at_the_gate_keeps_what_comes_and_passes_the_gate_on(client, other):
    pool, its = client.pool("p", ["a", "b"]), other.pool("p", ["a", "b"])
    one, two = its.acquire(), its.acquire()
    work = Work(lambda: pool.acquire(2, timeout=20))
    until(waits(other, A, B))
    behind = Work(lambda: its.acquire(timeout=20))
    until(waits(other, GATE))
    two.release()
    until(lambda: [claim.state for claim in other.inspect(B).claims] == ["HELD"])
    assert not behind.done  # it does not overtake
    assert its.try_acquire() is None
    one.release()
    leases = work.result()
    assert leases.members == ("a", "b")
    until(lambda: other.inspect(GATE).claims == () or not waits(other, GATE)())
    leases.release()
    behind.result().release()
    assert nothing_left(other)


def test_a_wait_for_one_takes_the_member_that_comes_first_and_leaves_the_other_queues(client, other):
    held = {member: other.pool("p", ["a", "b", "c"]).acquire(among=[member]) for member in "abc"}
    work = Work(lambda: client.pool("p", ["a", "b", "c"]).acquire(timeout=20))
    until(waits(other, A, B, C))
    held["c"].release()
    with work.result() as leases:
        assert leases.members == ("c",)
        assert [len(other.inspect(name).claims) for name in (A, B, C)] == [1, 1, 1]
    held["a"].release()
    held["b"].release()


def test_a_timeout_gives_back_what_it_had_and_the_gate(client, other):
    with other.pool("p", ["a", "b"]).acquire(among=["b"]) as held:
        pool = client.pool("p", ["a", "b"])
        with pytest.raises(
            AcquireTimeout, match=r"pool 'p' did not give 2 members in time, and it had 1: timed out"
        ):
            pool.acquire(2, timeout=0.2)
        assert client.inspect(A).claims == client.inspect(GATE).claims == ()
        assert [claim.claim_id for claim in client.inspect(B).claims] == [held[0].claim_id]
        work = Work(lambda: pool.acquire(2, timeout=20))
        until(waits(other, B))
        with pytest.raises(AcquireTimeout, match="its turn had not come"):
            other.pool("p", ["a", "b"]).acquire(timeout=0.1)
        with pytest.raises(AcquireTimeout, match="busy"):
            other.pool("p", ["a", "b"]).acquire(timeout=0)
    work.result().release()


def test_one_that_loses_the_gate_stops_and_gives_its_members_back(client, other):
    held = other.pool("p", ["a", "b"]).acquire(among=["b"])
    work = Work(lambda: client.pool("p", ["a", "b"], ttl=3.0).acquire(2, timeout=20))
    until(waits(other, B))
    other.evict(GATE, other.inspect(GATE).claims[0].claim_id, reason="test")
    error = work.error()
    assert isinstance(error, LeaseLost)
    assert error.name == GATE
    until(lambda: other.inspect(A).claims == ())
    assert len(other.inspect(B).claims) == 1
    held.release()
    until(lambda: nothing_left(other))


def test_a_thread_does_not_wait_for_members_that_it_holds(client):
    pool = client.pool("p", ["a", "b"])
    with pool.acquire() as leases:
        with pytest.raises(DeadlockDetected):
            pool.acquire(2, timeout=5)
        assert client.inspect(GATE).claims == ()
        leases.detach()
        with pytest.raises(AcquireTimeout):
            pool.acquire(2, timeout=0.05)


def test_the_note_at_the_gate_says_what_is_asked_for(client, other):
    held = other.pool("gpus", CARDS).acquire(3)
    work = Work(lambda: client.pool("gpus", CARDS).acquire(2, each=20, timeout=20))
    until(waits(other, pool_name("gpus", "0")))
    assert other.inspect(pool_name("gpus")).claims[0].note == {"pool": {"count": 2, "each": 20}}
    held.release()
    work.result().release()


def test_many_requests_of_all_sizes_come_to_an_end_and_never_overlap(url):
    used, mutex, most = dict.fromkeys(CARDS, 0), threading.Lock(), dict.fromkeys(CARDS, 0)

    def work(count, each):
        with lockkit.connect(url) as client:
            pool = client.pool("gpus", CARDS)
            for _ in range(15):
                with pool.acquire(count, each=each, timeout=30) as leases:
                    shares = {member: each or CARDS[member] for member in leases.members}
                    with mutex:
                        for member, share in shares.items():
                            used[member] += share
                            most[member] = max(most[member], used[member])
                    leases.ensure_held()
                    with mutex:
                        for member, share in shares.items():
                            used[member] -= share

    works = [
        Work(lambda each=each: work(*each)) for each in ((2, None), (3, 40), (1, 10), (2, 60), (1, None))
    ]
    for each in works:
        each.result(60.0)
    assert all(most[member] <= CARDS[member] for member in CARDS)


@pytest.mark.parametrize(
    "members, request_, told",
    [
        (["a", "b"], {"count": 3}, "only 2 members"),
        (["a", "b"], {"count": 0}, "count must be"),
        (["a", "b"], {"count": True}, "count must be"),
        (["a", "b"], {"each": 2}, "only 0 members with room for 2"),
        (["a", "b"], {"each": 0}, "each must be"),
        (CARDS, {"count": 3, "each": 41}, "only 2 members with room for 41"),
        (["a", "b"], {"among": []}, "only 0 members among"),
        (["a", "b"], {"among": ["c"]}, "no member 'c'"),
        (["a", "b"], {"among": ["a", "a"]}, "twice"),
        (["a", "b"], {"among": "a"}, "list of members"),
    ],
)
def test_a_request_that_can_never_be_met_is_refused_before_any_io(url, members, request_, told):
    client = lockkit.connect(url)
    with pytest.raises(ConfigError, match=told):
        client.pool("p", members).acquire(**request_)
    with pytest.raises(ConfigError, match=told):
        client.pool("p", members).try_acquire(**request_)
    assert not client.is_open


@pytest.mark.parametrize(
    "members",
    [
        [],
        {},
        "ab",
        3,
        [1, 2],
        ["a", "a"],
        ["a\n"],
        {"a": 0},
        {"a": True},
        {"a": "80"},
        [str(n) for n in range(65)],
    ],
)
def test_members_that_make_no_pool_are_refused(url, members):
    with pytest.raises(ConfigError):
        lockkit.connect(url).pool("p", members)


@pytest.mark.parametrize("options", [{"reentrant": True}, {"ttl": 0}, {"capacity": 3}, {"note": 1}])
def test_options_that_a_pool_does_not_have_are_refused(url, options):
    with pytest.raises(ConfigError):
        lockkit.connect(url).pool("p", ["a"], **options)


@pytest.mark.parametrize("options", [{"capacity": 3}, {"on_lost": 4}, {"min_hold": 40, "max_hold": 30}])
def test_the_error_of_an_option_names_the_pool_and_not_a_member(url, options):
    with pytest.raises(ConfigError) as caught:
        lockkit.connect(url).pool("p", ["a"], **options)
    assert caught.value.name == "p"


@pytest.mark.parametrize("make", ["lock", "rwlock", lambda client, name: client.semaphore(name, 2)])
def test_nobody_locks_a_member_or_the_gate_by_its_name(url, make):
    client = lockkit.connect(url)
    for name in (A, GATE, "@pool/"):
        with pytest.raises(ConfigError, match="belongs to a pool"):
            make(client, name) if callable(make) else getattr(client, make)(name)


def test_different_pools_and_members_have_different_names():
    names = ["a", "b", "a/b", "a%2Fb", "%", "%25", "a%b", "/", "@pool/a"]
    locks = {pool_name(pool, member): (pool, member) for pool in names for member in [None, *names]}
    assert len(locks) == len(names) * (len(names) + 1)
    assert {name: in_pool(name) for name in locks} == locks
    assert in_pool("a") is None


def test_the_members_may_come_from_the_configuration(url, tmp_path):
    file = tmp_path / "lockkit.toml"
    file.write_text('[pools.gpus]\nmembers = ["0", "1"]\n[pools.shared.members]\n0 = 80\n1 = 40\n')
    config = lockkit.config.config.load(url, config=file)
    assert config.pools == {"gpus": {"0": 1, "1": 1}, "shared": {"0": 80, "1": 40}}
    assert config.source("pools.gpus") == str(file)
    with lockkit.connect(config=config) as client:
        assert client.pool("shared").members == {"0": 80, "1": 40}
        with client.pool("gpus"), pytest.raises(ConfigError, match="no pool 'gpu'") as caught:
            client.pool("gpu")
    assert "did you mean gpus?" in str(caught.value.hint)


@pytest.mark.parametrize(
    "text",
    ["pools = 3", "[pools]\ngpus = 3", "[pools.gpus]",
     "[pools.gpus]\nmember = []", "[pools.gpus]\nmembers = []",
     "[pools.gpus]\nmembers = [1]", "[pools.gpus]\nmembers = {a = 0}"],
)  # fmt: skip
def test_a_pool_of_the_configuration_that_is_not_right_is_an_error_that_names_the_file(url, tmp_path, text):
    file = tmp_path / "lockkit.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"lockkit.toml: (pools|unknown key pools.gpus.member)"):
        lockkit.config.config.load(url, config=file)


@pytest.mark.parametrize("among", [5, [[]], [0.5], "0", {"0": 1}.values()])
def test_members_that_would_do_are_names_in_a_list(among):
    with lockkit.connect(f"memory://{os.urandom(8).hex()}") as client, pytest.raises(ConfigError) as caught:
        client.pool("p", ["0", "1"]).check(among=among)
    assert caught.value.name == "p"


def test_a_member_that_is_held_whole_does_not_grow_and_one_that_is_shared_does(client, other):
    cards = client.pool("gpus", CARDS)
    name = pool_name("gpus", "0")
    with cards.acquire(among=["0"]):
        with pytest.raises(ConfigError, match="is held whole by"):
            other.resize(name, 81)
        assert other.inspect(name).capacity == 80
    with cards.acquire(each=40, among=["0"]):
        assert other.resize(name, 81) == 1
        assert other.inspect(name).capacity == 81


def test_a_busy_pool_names_a_holder_even_if_the_last_member_was_free(client):
    pool = client.pool("cards", ["x", "y", "z"])
    with pool.acquire(count=2) as leases, pytest.raises(AcquireTimeout) as busy:
        pool.acquire(count=2, timeout=0)
    assert busy.value.holder.claim_id in {lease.claim_id for lease in leases}
