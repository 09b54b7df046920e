"""The mark of a drain on ZooKeeper, watched by acquires: a claim younger than the mark is never granted."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

pytest.importorskip("kazoo")

from lockkit.errors import Drained
from lockkit.facts import Drain
from lockkit.store.drains import mark_of
from lockkit.store.spi import Granted, OpenOptions, Queued, Refused
from lockkit.testing.claims import BUDGET, claim, queue, take
from lockkit.testing.processes import until
from lockkit.testing.stage import Work
from lockkit_zookeeper import connecting
from lockkit_zookeeper.backend import open_store
from lockkit_zookeeper.private import Exists
from support.servers.started import started
from support.servers.zookeeper import ZooKeeperServer
from support.servers.zookeeper_groups import ZooKeeperEnsemble

TICK = 0.15
TTL = 2.4
USUAL = ["Create2", "GetChildren", "Delete"]
MARK = mark_of(Drain("", "kit"))


server = started(ZooKeeperServer, tick=TICK)


@pytest.fixture
def opened(server, request):
    with contextlib.ExitStack() as stack:
        url = f"{server.url('/' + request.node.name)}?tick={TICK}&max_ttl=9"
        yield lambda: stack.enter_context(contextlib.closing(open_store(url, OpenOptions())))


def connection_of(store):
    return store.at(TTL, time.monotonic() + BUDGET).connection


def requests(store, monkeypatch):
    """The names of the requests that this thread sends."""
    connection, sent, here = connection_of(store), [], threading.get_ident()
    real = connection.send

    def send(request):
        if threading.get_ident() == here:
            sent.append(type(request).__name__)
        return real(request)

    monkeypatch.setattr(connection, "send", send)
    return sent


def cycle(store):
    store.release(take(store, ttl=TTL)[0], BUDGET)


def of_a_cycle(store, sent):
    """The requests of one acquire and one release."""
    sent.clear()
    cycle(store)
    if "CreateContainer" in sent:  # the server had just removed the empty queue, as it does once a minute
        sent.clear()
        cycle(store)
    return sent


def refusal(store, wait=True):
    """The error that an acquire is refused with."""
    with pytest.raises(Refused) as caught:
        store.acquire(claim(ttl=TTL, wait=wait), True, BUDGET)
    return caught.value.error


def test_a_client_that_watches_the_mark_asks_for_it_no_more(opened, monkeypatch):
    store = opened()
    cycle(store)
    sent = requests(store, monkeypatch)
    for _ in range(3):
        assert of_a_cycle(store, sent) == USUAL


@pytest.mark.parametrize("wait", [True, False])
def test_a_client_that_watches_the_mark_is_refused_and_let_in_again(opened, monkeypatch, wait):
    store, other = opened(), opened()
    cycle(store)
    other.extras.drains.set(MARK, BUDGET)
    for _ in range(2):
        assert isinstance(refusal(store, wait), Drained)
    assert store.inspect("a", BUDGET).claims == ()
    assert other.extras.drains.clear(MARK, BUDGET)
    cycle(store)
    cycle(store)
    sent = requests(store, monkeypatch)
    assert of_a_cycle(store, sent) == USUAL, "it watches the mark again"


def refused_while_watchers_are_called(store, other):
    """Whether a client is refused while the thread that calls its watchers is busy with another one."""
    cycle(store)
    go_on = threading.Event()
    connection_of(store)._client.handler.callback_queue.put(go_on.wait)
    try:
        other.extras.drains.set(MARK, BUDGET)
        with contextlib.suppress(Refused):
            return not isinstance(store.acquire(claim(ttl=TTL), True, BUDGET), Granted)
        return True
    finally:
        go_on.set()


def test_the_report_of_a_mark_counts_before_other_watchers_are_called(opened):
    assert refused_while_watchers_are_called(opened(), opened())


def test_a_report_that_waits_for_other_watchers_is_noticed(opened, monkeypatch):
    monkeypatch.delattr(connecting.Handler, "dispatch_callback")
    assert not refused_while_watchers_are_called(opened(), opened())


def test_a_mark_that_is_set_before_a_watch_is_taken_up_is_seen(opened, monkeypatch):
    """The answer to the look at the mark is read late: the mark has come since, and so has its report."""
    store, other = opened(), opened()
    connection = connection_of(store)
    real = connection.send

    def send(request):
        answer = real(request)
        if isinstance(request, Exists):
            answer.wait(BUDGET)
            other.extras.drains.set(MARK, BUDGET)
            reported = request.watcher
            until(lambda: not reported.stands, "the mark is reported")
        return answer

    monkeypatch.setattr(connection, "send", send)
    assert isinstance(refusal(store), Drained)


def test_a_new_connection_has_no_watch_until_the_next_acquire(opened, monkeypatch):
    store = opened()
    cycle(store)
    mine = store.entry(queue_of_one(store).token)[0]
    watch, connection = mine.drain_watch, mine.connection
    assert watch.stands
    turn = connection.turn
    connection.bounce()
    until(lambda: connection.up and connection.turn > turn, "there is another connection")
    assert not watch.stands
    sent = requests(store, monkeypatch)
    one = claim("b", ttl=TTL)
    assert isinstance(store.acquire(one, True, BUDGET), Granted)
    assert "Exists" in sent
    assert mine.drain_watch.stands


def queue_of_one(store):
    return take(store, ttl=TTL)[0]


def test_a_closed_connection_reports_nothing_so_its_watch_does_not_stand(opened):
    store = opened()
    one = queue_of_one(store)
    mine = store.entry(one.token)[0]
    watch = mine.drain_watch
    assert watch.stands
    mine.connection.close(goodbye=True).join(5.0)
    assert not watch.stands


def test_a_waiter_that_polls_is_refused(opened):
    store, other = opened(), opened()
    take(other, ttl=TTL)
    one = queue(store, ttl=TTL)
    assert isinstance(store.acquire(one, False, BUDGET), Queued)
    other.extras.drains.set(MARK, BUDGET)
    with pytest.raises(Refused) as caught:
        store.acquire(one, False, BUDGET)
    assert isinstance(caught.value.error, Drained)
    assert len(store.inspect("a", BUDGET).claims) == 1


def test_a_member_that_lags_behind_reports_the_mark_before_it_shows_a_younger_node():
    with ZooKeeperEnsemble(tick=TICK, proxied=True, syncLimit=40) as ensemble:
        leader, follower = ensemble.leader(), ensemble.followers()[0]
        options = f"/app?tick={TICK}&max_ttl=12"
        with (
            contextlib.closing(open_store(leader.url() + options, OpenOptions())) as store,
            contextlib.closing(open_store(follower.url() + options, OpenOptions())) as late,
        ):
            for each in (store, late):
                each.release(take(each, ttl=9.0)[0], BUDGET)
            ensemble.lag(follower, 0.4)
            store.extras.drains.set(MARK, BUDGET)
            for wait in (True, False):
                with pytest.raises(Refused) as caught:
                    late.acquire(claim(ttl=9.0, wait=wait), True, 10.0)
                assert isinstance(caught.value.error, Drained)
            ensemble.heal()
            assert store.inspect("a", BUDGET).claims == ()


def granted_in_drains(opened, flips):
    """Set and clear the mark often; return fences granted to claims with nodes younger than the mark."""
    admin, stores = opened(), [opened() for _ in range(3)]
    marks, fences, refusals, over, wrong = admin.extras.drains, [], [], threading.Event(), []

    def work(store, name):
        while not over.is_set():
            one = claim(name, ttl=TTL)
            try:
                fences.append(store.acquire(one, True, BUDGET).fence)
            except Refused as refused:
                refusals.append(refused.error)
            else:
                store.release(one, BUDGET)

    def more(seen, what):
        before = len(seen)
        until(lambda: len(seen) > before, what)

    works = [Work(lambda each=each, at=at: work(each, f"name-{at}")) for at, each in enumerate(stores)]
    for _ in range(flips):
        more(fences, "somebody is granted")
        marks.set(MARK, BUDGET)
        mark = admin.extras.drains._store.call(BUDGET).ask(
            Exists(admin.extras.drains._store.paths.mark, None)
        )
        more(refusals, "somebody is refused")
        wrong += [fence for fence in [*fences] if fence > mark.czxid]
        assert marks.clear(MARK, BUDGET)
    over.set()
    for each in works:
        each.result()
    assert all(isinstance(error, Drained) for error in refusals)
    return wrong


def test_no_claim_that_is_younger_than_the_mark_is_granted_however_often_it_comes_and_goes(opened):
    assert granted_in_drains(opened, 50) == []


def test_a_watch_that_is_never_told_is_noticed(opened, monkeypatch):
    monkeypatch.setattr(
        "lockkit_zookeeper.drain_watch.DrainWatch.stands", property(lambda self: self._connection.up)
    )
    store, other = opened(), opened()
    cycle(store)
    other.extras.drains.set(MARK, BUDGET)
    assert isinstance(store.acquire(claim(ttl=TTL), True, BUDGET), Granted)
