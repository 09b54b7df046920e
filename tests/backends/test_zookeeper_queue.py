"""Nodes in ZooKeeper: listings and their meaning, resizes and their markers, evictions and their notes."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time

import pytest

pytest.importorskip("kazoo")

from hypothesis import given
from hypothesis import strategies as st
from kazoo.exceptions import NoNodeError

from lockkit.errors import IncompatibleLayout
from lockkit.lib.clock import SYSTEM
from lockkit.protocol.hold import Hold
from lockkit.store.queue import prefix
from lockkit.store.spi import RELEASED, Busy, Granted, Lapsed, OpenOptions, Queued, Refused, Unknown
from lockkit.testing.claims import BUDGET, claim, queue, renew, states, take
from lockkit.testing.processes import until
from lockkit.testing.stage import Work
from lockkit.values.names import claim_id
from lockkit_zookeeper import acquiring, maintenance
from lockkit_zookeeper import store as module
from lockkit_zookeeper.backend import open_store
from lockkit_zookeeper.layout import client_of, read_queue
from lockkit_zookeeper.operating import listed, read_claims
from lockkit_zookeeper.requests import Call
from lockkit_zookeeper.session import Session
from support.harnesses.zookeeper import vanish
from support.servers.proxy import Proxy
from support.servers.started import started
from support.servers.zookeeper import ZooKeeperServer

TICK = 0.15
TTL = 2.4
LONGEST = 9
TOKENS = [f"{at:x}" * 32 for at in range(10)]


def node(at, number, weight=1, capacity=1):
    return f"{TOKENS[at]}-{weight}-{capacity}-{number:010d}"


def marker(number, capacity, upto):
    return f"resize-{capacity}-{upto}-{number:010d}"


# -- listings


def test_the_order_is_the_servers_numbering():
    listed = read_queue([node(0, 12), node(1, 3), node(2, 100)], "a")
    assert [claim.token for claim in listed.claims] == [TOKENS[1], TOKENS[0], TOKENS[2]]
    assert listed.fits == 1
    assert listed.blockers(2) == [node(0, 12)]


def test_a_counter_that_has_gone_round_keeps_the_order():
    last, wrapped = 2**31 - 1, -(2**31)
    listed = read_queue([f"{TOKENS[1]}-1-1-{wrapped}", node(0, last)], "a")
    assert [claim.token for claim in listed.claims] == [TOKENS[0], TOKENS[1]]


def test_a_node_that_is_not_known_is_not_guessed_at():
    with pytest.raises(Refused) as caught:
        read_queue([node(0, 1), "lock-0000000002"], "a")
    assert isinstance(caught.value.error, IncompatibleLayout)
    assert not caught.value.retry


def test_a_marker_is_for_those_before_it():
    nodes = [node(0, 1, capacity=2), node(1, 2, capacity=2), marker(3, 1, 2), node(2, 4, capacity=2)]
    listed = read_queue(nodes, "a")
    assert [claim.capacity for claim in listed.claims] == [1, 1, 2]
    assert listed.fits == 1
    assert listed.grants == 0, "S2: the second may hold"
    assert listed.surely_waits(2)
    assert not listed.surely_waits(1)
    assert listed.markers == [marker(3, 1, 2)]
    left = read_queue(nodes[1:], "a")
    assert (left.fits, left.grants) == (1, 1)
    assert read_queue(nodes[2:], "a").spent == [marker(3, 1, 2)]


def test_the_last_marker_behind_a_claim_counts():
    nodes = [node(0, 1, capacity=2), marker(2, 1, "all"), node(1, 3, capacity=1), marker(4, 5, 1)]
    assert [claim.capacity for claim in read_queue(nodes, "a").claims] == [5, 5]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), max_size=9), st.randoms())
def test_without_a_resize_it_is_the_queue_rule(parts, random):
    nodes = [node(at, at, *part) for at, part in enumerate(parts)]
    shuffled = nodes[:]
    random.shuffle(shuffled)
    listed = read_queue(shuffled, "a")
    assert [claim.node for claim in listed.claims] == nodes
    assert listed.fits == listed.grants == prefix(listed.claims)
    assert all(listed.surely_waits(place) == (place >= listed.fits) for place in range(len(nodes)))


def a_try(at, number, weight=1, capacity=1):
    return f"{TOKENS[at]}-0{weight}-{capacity}-{number:010d}"


def test_a_try_counts_in_the_queue_like_any_claim():
    listed = read_queue([a_try(0, 1), node(1, 2), a_try(2, 3)], "a")
    assert [(claim.weight, claim.tries) for claim in listed.claims] == [(1, True), (1, False), (1, True)]
    assert listed.fits == 1
    assert listed.blockers(1) == [a_try(0, 1)]


@pytest.mark.parametrize(
    "nodes, room",
    [
        ([], "now"),
        ([node(0, 1)], "none"),
        ([a_try(0, 1)], "perhaps"),
        ([a_try(0, 1), a_try(1, 2)], "perhaps"),
        ([a_try(0, 1), node(1, 2)], "none"),
        ([node(0, 1), a_try(1, 2)], "none"),
        ([a_try(0, 1, capacity=2)], "perhaps"),
        ([node(0, 1, capacity=2)], "none"),
        ([marker(0, 1, "all")], "now"),
        ([node(0, 1), marker(2, 5, "all")], "none"),
    ],
)
def test_whether_there_is_room_in_a_mutex(nodes, room):
    assert read_queue(nodes, "a").vacancy(1, 1) == room


@pytest.mark.parametrize(
    "nodes, weight, room",
    [
        ([node(0, 1, 1, 3)], 2, "now"),
        ([node(0, 1, 2, 3)], 2, "none"),
        ([node(0, 1, 1, 3), a_try(1, 2, 1, 3)], 2, "perhaps"),
        ([node(0, 1, 2, 3), a_try(1, 2, 1, 3)], 2, "none"),
        ([node(0, 1, 1, 3), node(1, 2, 3, 3)], 1, "none"),
        ([node(0, 1, 1, 3), a_try(1, 2, 3, 3)], 1, "perhaps"),
        ([node(0, 1, 1, 2), marker(2, 3, "all")], 2, "now"),
    ],
)
def test_whether_there_is_room_in_a_semaphore(nodes, weight, room):
    assert read_queue(nodes, "a").vacancy(weight, 3) == room


def test_a_try_that_stays_holds():
    listed = read_queue([node(0, 1, 1, 3), a_try(1, 2, 1, 3), a_try(2, 3, 1, 3)], "a")
    assert listed.vacancy(1, 3) == "perhaps"
    assert listed.vacancy(1, 3, [TOKENS[1]]) == "perhaps"
    assert listed.vacancy(2, 3, [TOKENS[1]]) == "none"
    assert listed.vacancy(1, 3, [TOKENS[1], TOKENS[2]]) == "none"


BEFORE_TRIES = re.compile(
    r"([0-9a-f]{32})-([0-9]+)-([0-9]+)-(-[0-9]{9,}|[0-9]{10,})|"
    r"resize-([0-9]+)-(-?[0-9]+|all)-(-[0-9]{9,}|[0-9]{10,})"
)
"""The names that a lockkit reads which knows of no tries; it refuses a queue with any other."""


def test_a_lockkit_that_knows_of_no_tries_reads_the_node_of_one_as_a_claim(store, look, parent):
    one, _ = take(store, wait=False, **of(3, 2))
    (name,) = nodes(look, parent)
    token, weight, capacity, number, *_ = BEFORE_TRIES.fullmatch(name).groups()
    assert (token, int(weight), int(capacity)) == (one.token, 2, 3)
    assert read_queue([name], "a").claims[0].tries
    assert not read_queue([f"{token}-2-3-{number}"], "a").claims[0].tries


def requests(store, monkeypatch):
    """The names of the requests that this thread sends; the session confirms itself meanwhile."""
    connection, sent, here = store.at(TTL, time.monotonic() + BUDGET).connection, [], threading.get_ident()
    real = connection.send

    def send(request):
        if threading.get_ident() == here:
            sent.append(type(request).__name__)
        return real(request)

    monkeypatch.setattr(connection, "send", send)
    return sent


def test_a_try_on_a_free_lock_that_this_client_left_takes_the_requests_of_an_acquire(store, monkeypatch):
    store.release(take(store, wait=False, ttl=TTL)[0], BUDGET)
    sent = requests(store, monkeypatch)
    for _ in range(3):
        one, _ = take(store, wait=False, ttl=TTL)
        if "CreateContainer" in sent:  # the server had just removed the empty queue, as it does once a minute
            store.release(one, BUDGET)
            sent.clear()
            one, _ = take(store, wait=False, ttl=TTL)
        assert sent == ["Create2", "GetChildren"]
        store.release(one, BUDGET)
        assert sent[2:] == ["Delete"]
        sent.clear()


def test_a_try_on_a_held_lock_writes_nothing(opened, monkeypatch):
    store, other = opened(), opened()
    one, fence = take(store, ttl=TTL)
    sent = requests(other, monkeypatch)
    answer = other.acquire(claim(ttl=TTL, wait=False), True, BUDGET)
    assert isinstance(answer, Busy)
    assert answer.holder.claim_id == claim_id(one.token)
    assert answer.holder.fence == fence
    assert not {"Create2", "Delete", "SetData"} & set(sent), sent


def test_a_note_on_a_claim_of_this_client_is_a_read_and_a_write(opened, monkeypatch):
    store, other = opened(), opened()
    one, _ = take(store, ttl=TTL)
    two = queue(other, ttl=TTL)
    asked = requests(store, monkeypatch)
    assert store.annotate("a", claim_id(one.token), {"x": 1}, BUDGET)
    assert asked == ["GetData", "SetData"]
    assert store.annotate("a", claim_id(two.token), {"x": 2}, BUDGET)
    assert [each.note for each in store.inspect("a", BUDGET).claims] == [{"x": 1}, {"x": 2}]


def test_a_note_on_a_claim_whose_node_has_gone_says_that_there_is_none(store, look, parent):
    one, _ = take(store, ttl=TTL)
    (name,) = nodes(look, parent)
    path = f"{parent}/{name}"
    look.delete(path)
    store.entry(one.token)[1].path = path  # as long as this client has not heard of it
    assert not store.annotate("a", claim_id(one.token), {"x": 1}, BUDGET)


def test_a_waiter_does_not_read_who_holds_a_lock_that_changes_hands_often(opened, monkeypatch):
    """A waiter reads the holder only after a long wait; an earlier answer would be outdated when read."""
    for part in (module, acquiring):
        monkeypatch.setattr(part, "HOLDER_READ_INTERVAL", 60.0)
    store, other = opened(), opened()
    sent, answers, holders = requests(store, monkeypatch), [], []
    for _ in range(3):
        holder, _ = take(other, ttl=TTL)
        one = claim(ttl=TTL)
        before = SYSTEM.now()
        answers.append(store.acquire(one, True, BUDGET))
        holders.append(claim_id(holder.token))
        store.release(one, BUDGET)
        other.release(holder, BUDGET)

    assert [answer.holder and answer.holder.claim_id for answer in answers] == [*holders[:2], None]
    assert [answer.ask_again_at for answer in answers[:2]] == [None, None]
    assert answers[2].ask_again_at >= before + 60.0
    assert sent.count("GetData") == 2

    for part in (module, acquiring):
        monkeypatch.setattr(part, "HOLDER_READ_INTERVAL", 0.0)
    holder, _ = take(other, ttl=TTL)
    one = queue(store, ttl=TTL)
    answer = store.acquire(one, False, BUDGET)
    assert answer.holder.claim_id == claim_id(holder.token)
    assert answer.ask_again_at is None


def test_a_waiter_of_another_capacity_is_told_who_holds_however_often_that_changes(opened, monkeypatch):
    monkeypatch.setattr(module, "_READS", 0)
    store, other = opened(), opened()
    holder, _ = take(other, **of(2))
    answer = store.acquire(claim(**of(3)), True, BUDGET)
    assert answer.holder.claim_id == claim_id(holder.token)


def test_a_try_that_holds_refuses_another(opened):
    store, other = opened(), opened()
    one, _ = take(store, wait=False, ttl=TTL)
    answer = other.acquire(claim(ttl=TTL, wait=False), True, BUDGET)
    assert isinstance(answer, Busy)
    assert answer.holder.claim_id == claim_id(one.token)


def test_a_try_of_another_capacity_that_holds_is_told(opened):
    store, other = opened(), opened()
    take(store, wait=False, **of(2))
    answer = other.acquire(claim(wait=False, **of(3)), True, BUDGET)
    assert isinstance(answer, Busy)
    assert answer.capacity == 2


def test_a_try_is_not_refused_for_one_that_goes(store, look, parent, monkeypatch):
    monkeypatch.setattr(acquiring, "_STAYS", 60.0)
    store.release(take(store, ttl=TTL)[0], BUDGET)
    refused = look.create(f"{parent}/{TOKENS[0]}-01-1-", sequence=True, makepath=True)
    looks, look_at = [], acquiring._Acquiring.look
    monkeypatch.setattr(acquiring._Acquiring, "look", lambda *args: looks.append(args) or look_at(*args))
    work = Work(lambda: store.acquire(claim(ttl=TTL, wait=False), True, 60.0))
    until(lambda: len(looks) > 2, "it looks again")
    assert len(nodes(look, parent)) == 1, "it stands in the way of others while it is refused"
    look.delete(refused)
    assert isinstance(work.result(), Granted)


def test_of_two_tries_that_see_an_empty_queue_the_first_is_granted_and_the_other_leaves_nothing(
    opened, look, parent, monkeypatch
):
    store, other = opened(), opened()
    take(store, "other", ttl=TTL)
    created, granted = acquiring._Acquiring.create, []

    def late(*args, **more):
        if not granted:  # meanwhile another that saw the same is quicker
            monkeypatch.setattr(acquiring._Acquiring, "create", created)
            granted.append(other.acquire(claim(ttl=TTL, wait=False), True, BUDGET))
        return created(*args, **more)

    monkeypatch.setattr(acquiring._Acquiring, "create", late)
    answer = store.acquire(claim(ttl=TTL, wait=False), True, BUDGET)
    assert isinstance(granted[0], Granted)
    assert isinstance(answer, Busy)
    assert len(nodes(look, parent)) == 1


def test_a_waiter_that_its_server_has_woken_lists_without_a_sync(opened, monkeypatch):
    """The server that tells of a deletion shows the queue without that node."""
    store, other = opened(), opened()
    one, _ = take(store, ttl=TTL)
    two = queue(other, ttl=TTL)
    sent, woken = requests(other, monkeypatch), threading.Event()

    waiting = other.acquire(two, False, BUDGET)
    assert sent == ["Sync", "GetChildren"], "nothing has told this client what its server knows"
    watch = other.watch("a", waiting.blockers, woken.set, two)
    store.release(one, BUDGET)
    assert woken.wait(5.0)
    sent.clear()

    answer = other.acquire(two, False, BUDGET)
    assert isinstance(answer, Granted)
    assert sent == ["GetChildren"]
    assert other.acquire(two, False, BUDGET).fence == answer.fence
    assert sent[1:] == ["Sync", "GetChildren"], "a lagging server confirms no claim"
    watch.close()


def test_a_session_has_one_name_whatever_its_sign():
    assert client_of(0x1000) == "0000000000001000"
    assert client_of(-1) == "f" * 16


# -- resizes


server = started(ZooKeeperServer, tick=TICK)


@pytest.fixture
def opened(server, request):
    with contextlib.ExitStack() as stack:

        def another(**options):
            url = f"{server.url('/' + request.node.name)}?tick={TICK}&max_ttl={LONGEST}"
            store = open_store(url, OpenOptions(**options))
            stack.callback(store.close)
            return store

        yield another


@pytest.fixture
def store(opened):
    return opened()


@pytest.fixture
def look(server):
    with server.connect() as client:
        yield client


@pytest.fixture
def parent(request):
    return f"/{request.node.name}/lockkit/default/q/a"


def nodes(look, path):
    try:
        return sorted(look.get_children(path))
    except NoNodeError:
        return []


def of(capacity, weight=1):
    return {"ttl": TTL, "capacity": capacity, "weight": weight, "kind": "semaphore"}


def test_a_marker_goes_with_the_last_claim_that_goes_by_it(store, look, parent):
    one, _ = take(store, **of(2))
    two, _ = take(store, **of(2))
    assert store.resize("a", 3, BUDGET) == 2
    assert [name for name in nodes(look, parent) if name.startswith("resize")]
    assert store.release(one, BUDGET) == RELEASED
    assert [name for name in nodes(look, parent) if name.startswith("resize")]
    assert store.release(two, BUDGET) == RELEASED
    until(lambda: nodes(look, parent) == [], "the marker is taken away")


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.names("", BUDGET),
        lambda store: store.inspect("a", BUDGET),
        lambda store: store.resize("a", 2, BUDGET),
        lambda store: store.evict("a", "0" * 12, BUDGET),
    ],
    ids=["names", "inspect", "resize", "evict"],
)
def test_a_marker_whose_last_claim_died_goes_when_somebody_looks(opened, server, look, parent, call):
    store, other = opened(), opened()
    one, _ = take(store, **of(2))
    assert other.resize("a", 3, BUDGET) == 1
    connection = store.entry(one.token)[0].connection
    server.expire(connection._client.identity)
    until(lambda: len(nodes(look, parent)) == 1, "the claim goes with its session")
    assert nodes(look, parent)[0].startswith("resize-")
    call(other)
    until(lambda: nodes(look, parent) == [], "the marker is taken away")


def test_a_resize_of_nothing_leaves_nothing(store, look, parent):
    assert store.resize("a", 3, BUDGET) == 0
    assert nodes(look, parent) == []


def test_resizes_in_a_row_leave_one_marker(store, look, parent):
    one, fence = take(store, **of(2))
    for capacity in (3, 1, 5, 2):
        store.resize("a", capacity, BUDGET)
    assert len(nodes(look, parent)) == 2
    assert renew(store, one, fence).state == "HELD"
    two, _ = take(store, **of(2))
    store.release(one, BUDGET)
    store.release(two, BUDGET)


def test_what_was_offered_is_not_granted_beside_what_a_shrunk_lock_still_holds(opened):
    """Three fit, the first and last of them answered; then two have room: the middle one must wait."""
    store, other = opened(), opened()
    heavy, _ = take(store, **of(3, 3))
    first, middle, last = (queue(store, **of(3)) for _ in range(3))
    store.release(heavy, BUDGET)
    assert isinstance(store.acquire(first, False, BUDGET), Granted)
    held = store.acquire(last, False, BUDGET)
    assert isinstance(held, Granted)
    assert other.resize("a", 2, BUDGET) == 3
    assert renew(other, last, held.fence).state == "HELD", "a copy in another process is told that it is lost"
    answer = store.acquire(middle, False, BUDGET)
    assert isinstance(answer, Queued), "S2: three hold a lock that is for two"
    store.release(last, BUDGET)
    assert isinstance(store.acquire(middle, False, BUDGET), Granted)


def test_waiters_that_fitted_for_a_moment_do_not_wait_for_each_other(opened, look, parent):
    """The lock grew and shrank before they asked. Only each of them knows that it does not hold."""
    store, other = opened(), opened()
    one, _ = take(store, **of(1))
    first, second, third = queue(store, **of(1)), queue(other, **of(1)), queue(other, **of(1))
    other.resize("a", 4, BUDGET)
    other.resize("a", 1, BUDGET)
    store.release(one, BUDGET)
    woken = threading.Event()
    watch = store.watch("a", store.acquire(first, False, BUDGET).blockers, woken.set, first)

    assert renew(other, second).state == "WAITING", "it can do nothing yet"
    for waiter in (third, second):
        assert not woken.is_set()
        assert renew(other, waiter).state == "OFFERED", "its owner is to ask"
        assert isinstance(other.acquire(waiter, False, BUDGET), Queued)
        assert renew(other, waiter).state == "WAITING"
    assert woken.wait(30.0)
    watch.close()
    assert isinstance(store.acquire(first, False, BUDGET), Granted)
    assert isinstance(other.acquire(second, False, BUDGET), Queued), "S2"
    assert len([name for name in nodes(look, parent) if name.startswith("resize")]) == 1
    store.release(first, BUDGET)
    assert isinstance(other.acquire(second, False, BUDGET), Granted)


def test_a_waiter_is_woken_once_it_is_the_last_that_may_hold(opened):
    store, other = opened(), opened()
    one, _ = take(store, **of(1))
    first, second = queue(store, **of(1)), queue(other, **of(1))
    other.resize("a", 3, BUDGET)
    other.resize("a", 1, BUDGET)
    woken = threading.Event()
    watch = store.watch("a", store.acquire(first, False, BUDGET).blockers, woken.set, first)
    assert renew(store, first).state == "WAITING"
    assert not woken.is_set()
    other.acquire(second, False, BUDGET)
    assert woken.wait(30.0)
    watch.close()
    assert isinstance(store.acquire(first, False, BUDGET), Queued), "it was woken because it had lapsed"
    store.release(one, BUDGET)


def test_a_waiter_that_fitted_for_a_moment_and_never_can_again_is_told(store):
    one, _ = take(store, **of(3, 3))
    light, heavy = queue(store, **of(3)), queue(store, **of(3, 2))
    store.release(one, BUDGET)
    assert isinstance(store.acquire(light, False, BUDGET), Granted)
    store.resize("a", 1, BUDGET)
    store.acquire(heavy, False, BUDGET)
    answer = store.acquire(heavy, False, BUDGET)
    assert isinstance(answer, Lapsed)
    assert answer.why == "resized"
    store.release(light, BUDGET)
    take(store, **of(1))


def test_a_waiter_whose_capacity_a_resize_has_changed_waits_on(store):
    one, _ = take(store, **of(3, 3))
    waiter = queue(store, **of(3))
    store.resize("a", 2, BUDGET)
    assert store.acquire(waiter, False, BUDGET).capacity == 3, "its claim and the first agree"
    store.release(one, BUDGET)
    assert isinstance(store.acquire(waiter, False, BUDGET), Granted)


def test_a_claim_that_comes_while_a_lock_shrinks_is_counted_on_one_side_of_it(store, look, parent):
    one, _ = take(store, **of(2))
    store.resize("a", 1, BUDGET)
    late = queue(store, **of(2))
    assert states(store)[0] == "HELD"
    answer = store.acquire(late, False, BUDGET)
    assert isinstance(answer, Queued)
    assert answer.capacity == 1
    store.release(one, BUDGET)


def test_what_somebody_else_put_into_a_queue_stops_the_lock(store, look, parent):
    one, _ = take(store, ttl=TTL)
    look.create(f"{parent}/lock-", sequence=True)
    with pytest.raises(Refused) as caught:
        store.acquire(claim(ttl=TTL), True, BUDGET)
    assert isinstance(caught.value.error, IncompatibleLayout)
    assert store.release(one, BUDGET) == RELEASED


def test_data_for_newer_readers_is_not_rewritten(store, look, parent):
    one, _ = take(store, ttl=TTL)
    (name,) = nodes(look, parent)
    look.set(f"{parent}/{name}", json.dumps({"v": 9, "min_reader": 9}).encode())
    for call in (
        lambda: store.annotate("a", claim_id(one.token), {"x": 1}, BUDGET),
        lambda: store.resize("a", 2, BUDGET),
        lambda: store.evict("a", claim_id(one.token), BUDGET),
    ):
        with pytest.raises(Refused) as caught:
            call()
        assert isinstance(caught.value.error, IncompatibleLayout)
    (shown,) = store.inspect("a", BUDGET).holders
    assert "a newer lockkit wrote it" in shown.evidence


def test_whoever_waited_writes_down_how_it_stands(opened, monkeypatch):
    monkeypatch.setattr(maintenance, "_WHILE", 0.0)  # nobody renews the holder meanwhile
    store, other = opened(), opened()
    one, _ = take(store, ttl=LONGEST)
    two = queue(other, ttl=LONGEST)
    until(lambda: b'"waits"' in data(store, two), "it is written down that it waits")
    assert states(store) == ["HELD", "WAITING"]
    store.release(one, BUDGET)
    assert states(store) == ["OFFERED"]
    monkeypatch.setattr(maintenance, "_MOMENT", 1e9)  # so it is not written down later either
    assert isinstance(other.acquire(two, False, BUDGET), Granted)
    until(lambda: states(store) == ["HELD"], "it is written down at once that it holds")


def test_a_note_that_somebody_writes_meanwhile_does_not_keep_a_grant_from_being_written_down(
    opened, monkeypatch
):
    monkeypatch.setattr(maintenance, "_WHILE", 0.0)
    store, other = opened(), opened()
    one, _ = take(store, ttl=TTL)
    two = queue(other, ttl=TTL)
    until(lambda: other.entry(two.token)[1].version == 1, "it has written that it waits")
    write, asked = maintenance.Maintenance._write, []

    def overtaken(self, entry, data, state):
        if "granted" in state and not asked:
            asked.append(store.annotate("a", claim_id(two.token), {"please": 1}, BUDGET))
        write(self, entry, data, state)

    monkeypatch.setattr(maintenance.Maintenance, "_write", overtaken)
    store.release(one, BUDGET)
    assert isinstance(other.acquire(two, False, BUDGET), Granted)
    until(lambda: states(store) == ["HELD"], "it is written down all the same")
    assert asked == [True]
    (info,) = store.inspect("a", BUDGET).claims
    assert info.note["please"] == 1


def all_requests(store, monkeypatch):
    """The names of the requests that this client sends for its claims, by any thread."""
    connection, sent = store.at(TTL, time.monotonic() + BUDGET).connection, []
    real = connection.send

    def send(request):
        if "/q/" in getattr(request, "path", ""):
            sent.append(type(request).__name__)
        return real(request)

    monkeypatch.setattr(connection, "send", send)
    return sent


def test_a_waiter_writes_that_it_waits_with_one_write_and_one_read(opened, monkeypatch):
    monkeypatch.setattr(maintenance, "_WHILE", 0.0)
    store, other = opened(), opened()
    take(store, ttl=TTL)
    sent = all_requests(other, monkeypatch)
    two = queue(other, ttl=TTL)
    entry = other.entry(two.token)[1]
    until(lambda: entry.version == 1, "it has written that it waits")
    assert b'"waits"' in data(store, two)
    assert [each for each in sent if each != "GetChildren"][-2:] == ["SetData", "GetData"]


def test_a_waiter_whose_note_was_written_first_keeps_the_note_and_writes_that_it_waits(opened, monkeypatch):
    monkeypatch.setattr(maintenance, "_WHILE", 0.2)
    store, other = opened(), opened()
    take(store, ttl=TTL)
    two = queue(other, ttl=TTL)
    assert store.annotate("a", claim_id(two.token), {"x": 1}, BUDGET)
    until(lambda: b'"waits"' in data(store, two), "it is written down that it waits")
    assert b'"x":1' in data(store, two)


def test_a_claim_that_is_granted_before_it_is_written_down_that_it_waits_is_left_alone(opened):
    store = opened()
    one, _ = take(store, ttl=TTL)
    session, entry = store.entry(one.token)
    before = data(store, one)
    session.maintenance._note_wait(entry)
    assert not entry.waits
    assert data(store, one) == before


def data(store, one):
    call = store.call(BUDGET)
    found = listed(store, call, "a")
    place = found.place(one.token)
    read = read_claims(store, call, "a", found)
    return json.dumps(read[place][0], separators=(",", ":")).encode()


# -- evictions


def notes(look, parent, store, one):
    session = store.entry(one.token)
    client = client_of(session[0].connection.session) if session else ""
    return nodes(look, f"{parent.rpartition('/q/')[0]}/c/{client}")


def test_a_holder_that_reads_its_note_lets_go(opened, look, parent):
    store, other = opened(), opened()
    one, fence = take(store, ttl=TTL)
    answer = other.evict("a", claim_id(one.token), BUDGET)
    assert answer.outcome == "MARKED"
    assert notes(look, parent, store, one) == [claim_id(one.token)]
    until(lambda: renew(store, one, fence).state == "LOST", "it reads the note")
    assert renew(store, one, fence).why == "evicted"
    assert isinstance(store.acquire(one, False, BUDGET), Lapsed)
    until(lambda: nodes(look, parent) == [], "the claim goes")
    until(lambda: look.get_children(parent.rpartition("/q/")[0] + "/c") == [], "the note goes")


def test_a_note_that_is_read_between_the_listing_and_the_grant_counts(opened, monkeypatch):
    store, other = opened(), opened()
    grant = Session.grant

    def late(self, entry):
        assert other.evict("a", claim_id(entry.token), BUDGET).outcome == "MARKED"
        until(lambda: entry.evicted, "its client reads the note")
        return grant(self, entry)

    monkeypatch.setattr(Session, "grant", late)
    one = claim(ttl=TTL)
    assert store.acquire(one, True, BUDGET) == Lapsed("evicted")
    assert store.acquire(one, False, BUDGET) == Lapsed("evicted")
    until(lambda: states(other) == [], "it goes")


def test_a_holder_that_reads_nothing_is_removed_when_it_cannot_believe_in_it_any_more(opened, look, parent):
    """The holder's pings go on and its session lives: only the evictor can end it."""
    store, other = opened(), opened()
    one, _ = take(store, ttl=TTL)
    session, entry = store.entry(one.token)
    # The keeper of the session does nothing, so nothing is read, confirmed or reaped; kazoo still pings.
    session._turn = lambda: 60.0
    session.poke()
    end = session.basis + session.span
    noted = SYSTEM.now()
    assert other.evict("a", claim_id(one.token), BUDGET).outcome == "MARKED"
    until(lambda: nodes(look, parent) == [], "the evictor removes it", 2 * TTL + 2.0)
    assert SYSTEM.now() >= noted + TTL, "S3: removed while its holder could still believe in it"
    assert SYSTEM.now() >= end
    assert entry is not None


def test_an_evictor_that_leaves_at_once_is_heard_all_the_same(opened, look, parent):
    """As `lockkit evict` does: its session is left to its timeout, and so is the note."""
    store, other = opened(), opened()
    one, fence = take(store, ttl=TTL)
    assert other.evict("a", claim_id(one.token), BUDGET).outcome == "MARKED"
    other.close()
    until(lambda: renew(store, one, fence).state == "LOST", "it reads the note")
    until(lambda: nodes(look, parent) == [], "the claim goes")


@pytest.mark.parametrize("grants", [60.0, 8.5])
def test_an_evictor_that_dies_at_once_is_heard_by_a_holder_that_was_cut_off(request, grants, monkeypatch):
    """A connection that comes back counts from then, so the note must outlast a holder's absence."""
    monkeypatch.setattr(module, "_DEFAULT_TTL", 2.4)  # of a session that is there for nothing in particular
    with (
        ZooKeeperServer(tick=TICK, longest_session=grants) as server,
        Proxy((server.host, server.port)) as proxy,
    ):
        options = f"/{request.node.name}?tick={TICK}&max_ttl=9"
        with (
            contextlib.closing(open_store(f"zookeeper://{proxy.address}{options}", OpenOptions())) as store,
            contextlib.closing(open_store(f"zookeeper://{server.address}{options}", OpenOptions())) as other,
        ):
            one, _ = take(store, ttl=8.0)
            proxy.hold()
            answer = other.evict("a", claim_id(one.token), BUDGET)
            assert answer.outcome == "MARKED"
            vanish(other)
            time.sleep(5.0)  # well over half of its ttl
            proxy.heal()
            until(lambda: asked(store, one) == Lapsed("evicted"), "it reads the note")
            assert SYSTEM.wall() <= answer.blocks_until


def asked(store, one):
    try:
        return store.acquire(one, False, BUDGET)
    except (Refused, Unknown) as trouble:
        return trouble


def test_an_evictor_that_dies_changes_nothing(opened, look, parent):
    store, other = opened(), opened()
    one, _ = take(store, ttl=TTL)
    session, _ = store.entry(one.token)
    session.confirming._read_notes = lambda _: True  # it does not look
    assert other.evict("a", claim_id(one.token), BUDGET).outcome == "MARKED"
    for each in other.sessions():
        each.close(goodbye=True).join(2.0)  # with its session goes its note
    other._sessions = ()
    assert notes(look, parent, store, one) == []
    time.sleep(TTL / 2)
    assert len(nodes(look, parent)) == 1


def test_a_waiter_is_evicted_only_while_what_it_waits_for_stands(opened, look, parent):
    store, other = opened(), opened()
    one, _ = take(store, ttl=TTL)
    two = queue(store, ttl=TTL)
    assert other.evict("a", claim_id(two.token), BUDGET).outcome == "REMOVED"
    assert isinstance(store.acquire(two, False, BUDGET), Lapsed)
    three = queue(store, ttl=TTL)
    store.release(one, BUDGET)
    assert other.evict("a", claim_id(three.token), BUDGET).outcome == "MARKED", "it may be granted by now"
    assert other.evict("a", "0" * 12, BUDGET).outcome == "ABSENT"


def test_a_waiter_that_a_resize_lets_in_meanwhile_is_not_removed(opened, monkeypatch):
    """All that it waited for still stands, but it may be granted by now."""
    store, other = opened(), opened()
    take(store, **of(1))
    two = queue(other, **of(1))
    commit = Call.commit

    def late(self, operations):
        monkeypatch.setattr(Call, "commit", commit)
        assert store.resize("a", 2, BUDGET) == 2
        assert isinstance(other.acquire(two, False, BUDGET), Granted)
        return commit(self, operations)

    monkeypatch.setattr(Call, "commit", late)
    assert store.evict("a", claim_id(two.token), BUDGET).outcome == "MARKED", "S2: removed while it holds"


def test_the_next_is_granted_no_earlier_than_the_evicted_stops_to_believe(opened):
    store, other = opened(), opened()
    for _ in range(3):
        one, fence = take(store, ttl=TTL)
        hold = Hold(one, fence, store.entry(one.token)[1].basis, store.capabilities)
        waiter = queue(other, ttl=TTL)
        other.evict("a", claim_id(one.token), BUDGET)
        while not isinstance(other.acquire(waiter, False, BUDGET), Granted):
            renewal = renew(store, one, fence)
            if renewal.state == "HELD":
                hold.renewed(renewal.basis, SYSTEM.now())
            else:
                hold.lose("evicted")
            time.sleep(0.01)
        assert not hold.valid(SYSTEM.now())
        other.release(waiter, BUDGET)
