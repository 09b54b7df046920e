"""The Redis store when the server forgets: scripts, data, its place in time; and what it keeps. test_redis.py is the kit."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

pytest.importorskip("redis")

import lockkit
from lockkit.names import claim_id, new_token
from lockkit.queue import RW_CAPACITY
from lockkit.spi import (
    ABSENT,
    RELEASED,
    Busy,
    Claim,
    Granted,
    Lapsed,
    OpenOptions,
    Queued,
    Terms,
    Unknown,
)
from lockkit.testing.clocks import ShiftedClock
from lockkit.testing.servers.redis import RedisServer
from lockkit_redis.backend import open_store
from lockkit_redis.wire import Wire

AT_ONCE = 1.0
HOUR = 3600.0
SLACK = 60.0
"""Seconds for which keys outlive the last deadline."""
DAY = 86400.0
SHAPES = {
    "mutex": [{}],
    "semaphore": [{"capacity": 2, "kind": "semaphore"}] * 2,
    "writer": [{"weight": RW_CAPACITY, "capacity": RW_CAPACITY, "kind": "write"}],
}
shapes = pytest.mark.parametrize("full", SHAPES.values(), ids=SHAPES.keys())


class Clocks(ShiftedClock):
    """The client's clock; ``both`` lets time pass everywhere, ``server.step`` moves the server's alone."""

    def __init__(self, server):
        super().__init__()
        self.server = server

    def both(self, seconds):
        self.advance(seconds)
        self.server.step(seconds)


@pytest.fixture(scope="module")
def machine():
    with RedisServer(clock=True) as server:
        yield server


@pytest.fixture
def server(machine):
    machine.clock.reset()
    if not machine.alive:
        machine.start()
    machine.cli("FLUSHALL")
    return machine


@pytest.fixture
def clock(server):
    return Clocks(server.clock)


@pytest.fixture
def opened(server, clock):
    with contextlib.ExitStack() as stack:

        def another():
            store = open_store(server.url(), OpenOptions(clock=clock))
            stack.callback(store.close)
            return store

        yield another


@pytest.fixture
def store(opened):
    return opened()


def claim(name="a", *, wait=True, note=None, **terms):
    return Claim(new_token(), Terms(name, **terms), wait=wait, note=note)


def take(store, *args, **kwargs):
    one = claim(*args, **kwargs)
    answer = store.acquire(one, True, 2.0)
    assert isinstance(answer, Granted), answer
    return one, answer.fence


def queue(store, *args, **kwargs):
    one = claim(*args, **kwargs)
    answer = store.acquire(one, True, 2.0)
    assert isinstance(answer, Queued), answer
    return one


def renew(store, one, fence=None):
    return store.renew([(one, fence)], 2.0)[0]


def settled(call):
    """As the protocol does: ask again while the outcome is unknown, as it is on a connection that the server has closed."""
    for _ in range(3):
        with contextlib.suppress(Unknown):
            return call()
    raise AssertionError("three times no answer")


def states(store, name="a"):
    return [info.state for info in store.inspect(name, 2.0).claims]


def keys(server, kind=""):
    """The keys there are, or those of one kind: q, d, c, f, g, r."""
    return sorted(
        key.decode() for key in server.cli("KEYS", "*") if key.endswith(f":{kind}".encode() if kind else b"")
    )


def until(true, within=5.0):
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


# -- the script cache ----------------------------------------------------------------------------------------


def test_every_call_works_when_the_server_has_just_forgotten_the_scripts(server, store):
    def forgetful():
        server.cli("SCRIPT", "FLUSH")
        return store

    one, fence = take(forgetful())
    other = queue(forgetful())
    assert forgetful().acquire(one, True, 2.0).fence == fence
    assert renew(forgetful(), one, fence).state == "HELD"
    assert forgetful().extend(one, fence, 40, 2.0).state == "HELD"
    assert forgetful().annotate("a", claim_id(one.token), {"x": 1}, 2.0)
    assert forgetful().resize("a", 1, 2.0) == 2
    assert forgetful().put_record("a", {"x": 1}, 0, 2.0).version == 1
    assert isinstance(forgetful().acquire(claim(wait=False), True, 2.0), Busy)
    assert forgetful().evict("a", claim_id(other.token), 2.0).outcome == "REMOVED"
    assert forgetful().abandon(claim(), 2.0) == ABSENT
    assert forgetful().emergency_release(claim(), 2.0) == ABSENT
    assert forgetful().release(one, 2.0) == RELEASED
    assert states(forgetful()) == []


def test_a_heartbeat_of_a_thousand_names_works_when_the_server_has_just_forgotten_the_scripts(server, store):
    held = [take(store, f"n{number}") for number in range(1000)]
    server.cli("SCRIPT", "FLUSH")
    began = time.monotonic()

    answers = store.renew(held, 2.0)

    assert {answer.state for answer in answers} == {"HELD"}
    assert time.monotonic() - began < 2.0


# -- lost and kept data --------------------------------------------------------------------------------------


@shapes
def test_a_restart_with_its_data_keeps_holders_and_queue(server, store, full):
    held = [take(store, **shape) for shape in full]
    waiter = queue(store, **full[0])

    server.restart(lose_data=False)

    for one, fence in held:
        assert settled(lambda one=one, fence=fence: renew(store, one, fence)).state == "HELD"
    assert states(store) == ["HELD"] * len(full) + ["WAITING"]
    store.release(held[0][0], 2.0)
    assert store.acquire(waiter, False, 2.0).fence > held[-1][1]


LOSSES = pytest.mark.parametrize(
    "lose",
    [lambda server: server.restart(lose_data=True), lambda server: server.cli("FLUSHALL")],
    ids=["restart", "FLUSHALL by a stranger"],
)


@shapes
@LOSSES
def test_after_lost_data_the_holder_is_lost_and_the_next_fence_is_higher(server, store, full, lose):
    held = [take(store, **shape) for shape in full]
    waiter = queue(store, **full[0])

    lose(server)

    for one, fence in held:
        assert settled(lambda one=one, fence=fence: renew(store, one, fence)).state == "LOST"
        assert store.release(one, 2.0) == ABSENT
    assert renew(store, waiter).state == "LOST"
    assert store.acquire(waiter, False, 2.0) == Lapsed("absent")
    assert take(store, **full[0])[1] > held[-1][1]
    assert renew(store, *held[0]).state == "LOST"


@pytest.mark.parametrize("lose", ["restart", "FLUSHALL"])
def test_a_lease_that_the_server_has_lost_says_so_once_at_the_next_heartbeat(server, lose):
    told = []
    lost = threading.Event()

    def on_lost():
        told.append(1)
        lost.set()

    with lockkit.connect(server.url()) as client:
        lease = client.lock("a", ttl=1.5, on_lost=on_lost).acquire(timeout=0)
        if lose == "restart":
            server.restart(lose_data=True)
        else:
            server.cli("FLUSHALL")
        assert lost.wait(2.0)
        assert not lease.valid()
        again = client.lock("a").acquire(timeout=2)
        assert again.fence > lease.fence
        assert not lease.valid()
        lease.release()
        assert again.valid()
        again.release()
    assert told == [1]


# -- the server's clock --------------------------------------------------------------------------------------


@shapes
@pytest.mark.parametrize("delay", [0.0, 2.0])
def test_when_the_clock_steps_back_an_hour_nobody_gets_more_time_than_was_asked_for(
    server, clock, store, full, delay
):
    held = [take(store, ttl=10, lock_delay=delay, **shape) for shape in full]
    early = queue(store, **full[0])
    clock.server.step(-HOUR)

    newcomer = queue(store, **full[0])

    info = store.inspect("a", 2.0)
    assert [each.claim_id for each in info.claims[-2:]] == [claim_id(early.token), claim_id(newcomer.token)]
    for each in info.claims[: len(full)]:
        assert each.state == "HELD"
        assert each.deadline - info.read_at <= 10 + delay + 0.01
        assert each.since <= info.read_at
    for each in info.claims[len(full) :]:
        assert each.deadline - info.read_at <= 6.01
    fences = [each.fence for each in info.claims]
    assert fences == sorted(set(fences))
    for _ in range(2):
        clock.both(4.9 + delay / 2)
        for waiter in (early, newcomer):
            assert renew(store, waiter).state == "WAITING"
    clock.both(0.3)
    assert isinstance(store.acquire(early, False, 2.0), Granted)
    assert {renew(store, one, fence).state for one, fence in held} == {"LOST"}


@shapes
def test_when_the_clock_steps_back_a_holder_goes_on_renewing(server, clock, store, full):
    held = [take(store, ttl=10, **shape) for shape in full]
    for back in (0.002, 1.0, HOUR):
        clock.server.step(-back)
        for one, fence in held:
            assert renew(store, one, fence).state == "HELD"
            assert store.extend(one, fence, 5, 2.0).state == "HELD"
    assert [store.release(one, 2.0) for one, _ in held] == [RELEASED] * len(held)
    assert states(store) == []


@pytest.mark.parametrize("ends", [{"min_hold": 20.0}, {"lock_delay": 8.0}], ids=str)
def test_when_the_clock_steps_back_a_lingering_claim_blocks_no_longer_than_was_asked_for(clock, store, ends):
    one, _ = take(store, ttl=30, **ends)
    store.release(one, 2.0, graceful=False)
    assert states(store) == ["LINGERING"]
    clock.server.step(-HOUR)

    waiter = queue(store)
    clock.both(5)
    assert isinstance(store.acquire(waiter, False, 2.0), Queued)
    waited = 5
    while isinstance(store.acquire(waiter, False, 2.0), Queued):
        clock.both(1)
        waited += 1
    assert isinstance(store.acquire(waiter, False, 2.0), Granted)
    assert waited <= next(iter(ends.values())) + 1


@shapes
def test_when_the_clock_steps_forward_an_hour_the_holder_is_lost_and_the_next_fence_is_higher(
    clock, store, full
):
    held = [take(store, ttl=10, **shape) for shape in full]
    waiter = queue(store, **full[0])
    clock.server.step(HOUR)

    assert {renew(store, one, fence).state for one, fence in held} == {"LOST"}
    assert renew(store, waiter).state == "LOST"
    _, ahead = take(store, **full[0])
    assert ahead > held[-1][1]
    clock.server.step(-HOUR)
    shared = {"capacity": 9, "kind": "semaphore"}
    fences = [take(store, "b", **shared)[1] for _ in range(3)]
    assert fences == sorted(set(fences))


@pytest.mark.parametrize("step", [HOUR, -HOUR, 29.0, -29.0, 31.0, -31.0])
def test_after_a_step_of_the_clock_at_most_one_create_is_refused_and_fences_rise(clock, store, opened, step):
    fences = []
    other = opened()
    for each in (store, other):
        one, fence = take(each)
        fences.append(fence)
        each.release(one, 2.0)
    for number in range(3):
        clock.server.step(step if number % 2 == 0 else -step)
        for each in (store, other):
            one = claim()
            answer = each.acquire(one, True, 2.0)
            if isinstance(answer, Lapsed):
                assert answer == Lapsed("late")
                one = claim()
                answer = each.acquire(one, True, 2.0)
            assert isinstance(answer, Granted)
            fences.append(answer.fence)
            assert each.release(one, 2.0) == RELEASED
    assert fences == sorted(set(fences))


def test_a_client_notices_no_step_of_the_clock(server):
    with lockkit.connect(server.url()) as client:
        for step in (0.0, HOUR, -HOUR, -HOUR, HOUR):
            server.clock.step(step)
            began = time.monotonic()
            with client.lock("a").acquire(timeout=2):
                assert time.monotonic() - began < AT_ONCE


# -- lapses in the middle ------------------------------------------------------------------------------------


def test_claims_that_lapse_in_the_middle_of_the_queue_let_the_ones_behind_in_and_no_others(clock, store):
    shape = {"capacity": 3, "kind": "semaphore"}
    first = take(store, ttl=60, **shape)
    middle = take(store, ttl=5, **shape)
    last = take(store, ttl=60, **shape)
    dead, alive, behind = (queue(store, **shape) for _ in range(3))
    clock.both(4)
    for waiter in (alive, behind):
        assert renew(store, waiter).state == "WAITING"
    clock.both(2.5)

    assert renew(store, *middle).state == "LOST"
    assert renew(store, dead).state == "LOST"
    assert states(store) == ["HELD", "HELD", "OFFERED", "WAITING"]
    assert isinstance(store.acquire(behind, False, 2.0), Queued)
    assert isinstance(store.acquire(alive, False, 2.0), Granted)
    assert renew(store, *first).state == renew(store, *last).state == "HELD"


def test_readers_behind_a_waiting_writer_that_lapses_all_get_in(clock, store):
    reader = {"weight": 1, "capacity": RW_CAPACITY, "kind": "read"}
    take(store, ttl=60, **reader)
    queue(store, weight=RW_CAPACITY, capacity=RW_CAPACITY, kind="write")
    clock.both(3)
    readers = [queue(store, **reader) for _ in range(3)]
    clock.both(3.5)

    assert all(isinstance(store.acquire(each, False, 2.0), Granted) for each in readers)


# -- late copies ---------------------------------------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch):
    """Each acquire's bytes, as they went out."""
    copies = []
    call, row = Wire.call, Wire.row

    def spied_call(self, packed, budget):
        copies.append((packed, 1))
        return call(self, packed, budget)

    def spied_row(self, packed, budget, count):
        copies.append((packed, count))
        return row(self, packed, budget, count)

    monkeypatch.setattr(Wire, "call", spied_call)
    monkeypatch.setattr(Wire, "row", spied_row)
    return copies


def arrives(store, copy):
    """What the server answers to a copy of a request."""
    packed, count = copy
    wire = store.store.router.wires()[0].another()
    try:
        answer = wire.row(packed, 2.0, count)[0]
        return answer[0], answer[2] if answer[0] == b"L" else None
    finally:
        wire.close()


def test_a_copy_of_a_create_that_comes_within_thirty_seconds_of_a_release_after_a_replay_grants_nothing(
    clock, store, sent
):
    one = claim()
    sent.clear()
    store.acquire(one, True, 2.0)
    copy = sent[0]
    store.store.unsure[one.token] = None  # as after no answer
    store.acquire(one, True, 2.0)
    store.release(one, 2.0)

    assert arrives(store, copy) == (b"L", b"late")
    clock.both(29)
    assert arrives(store, copy) == (b"L", b"late")
    assert states(store) == []


def test_a_copy_of_a_create_that_comes_after_thirty_seconds_grants_nothing(clock, store, sent):
    one = claim(ttl=5)
    sent.clear()
    store.acquire(one, True, 2.0)
    store.release(one, 2.0)
    for later in (31, 60, HOUR):
        clock.both(later)
        assert arrives(store, sent[0]) == (b"L", b"late")
    assert states(store) == []


@pytest.mark.parametrize("ending", ["release", "abandon", "emergency_release"])
def test_a_create_that_was_never_answered_and_is_given_up_grants_nothing_when_it_arrives(
    server, store, sent, ending
):
    warm, _ = take(store, "warm")
    store.release(warm, 2.0)
    one = claim()
    sent.clear()
    server.pause()
    with pytest.raises(Unknown):
        store.acquire(one, True, 0.1)
    server.resume()
    getattr(store, ending)(one, 2.0)

    assert arrives(store, sent[0]) == (b"L", b"late")
    assert states(store) == []


@pytest.mark.parametrize("ending", ["abandon", "emergency_release"])
def test_giving_up_a_claim_that_is_not_there_leaves_a_tombstone_for_a_minute(server, clock, store, ending):
    one = claim()
    assert getattr(store, ending)(one, 2.0) == ABSENT

    assert store.acquire(one, True, 2.0) == Lapsed("late")
    assert len(keys(server, "g")) == 1
    clock.both(61)
    assert keys(server, "g") == []


def test_whoever_removes_a_claim_that_was_replayed_buries_it(server, clock, store):
    shape = {"capacity": 5, "kind": "semaphore"}
    gone = {"lapse": {"ttl": 5}, "evict": {"ttl": 60}, "release": {"ttl": 60}}
    claims = {}
    for ending, terms in gone.items():
        claims[ending] = one = claim(**shape, **terms)
        for _ in range(2):
            store.acquire(one, True, 2.0)
        store.store.unsure[one.token] = None
    store.evict("a", claim_id(claims["evict"].token), 2.0, now=True)
    store.store.unsure.clear()
    store.release(claims["release"], 2.0)
    clock.both(5)

    for ending, one in claims.items():
        assert store.acquire(one, True, 2.0) == Lapsed("late"), ending


def test_no_server_that_refuses_leaves_the_client_remembering(server, store):
    """A refusal is definite: what is remembered for creates without an answer must not grow by it."""
    warm, _ = take(store, "warm")
    store.release(warm, 2.0)
    server.cli("CONFIG", "SET", "maxmemory", "1")
    try:
        for _ in range(20):
            with contextlib.suppress(Exception):
                store.acquire(claim(), True, 2.0)
    finally:
        server.cli("CONFIG", "SET", "maxmemory", "0")

    assert len(store.store.unsure) == 0


# -- what is left behind -------------------------------------------------------------------------------------


@shapes
def test_a_release_leaves_the_fence_and_the_index_and_nothing_else(server, store, full):
    held = [take(store, **shape) for shape in full]
    waiter = queue(store, note={"x": 1}, **full[0])
    store.release(held[0][0], 2.0)
    store.acquire(waiter, False, 2.0)
    for one, _ in [*held, (waiter, 0)]:
        store.release(one, 2.0)

    assert keys(server) == ["lockkit:default:names", "lockkit:default:{a}:f"]
    assert 0 < server.cli("PTTL", "lockkit:default:{a}:f") <= DAY * 1000


@shapes
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


def test_namespaces_do_not_meet(server, clock):
    stores = [
        open_store(server.url(), OpenOptions(clock=clock, namespace=each)) for each in ("a", "a.b", "b")
    ]
    try:
        for store in stores:
            take(store, "a")
            assert store.names("", 2.0, deep=True) == ["a"]
    finally:
        for store in stores:
            store.close()
