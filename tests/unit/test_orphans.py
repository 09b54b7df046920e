"""The orphan list: each claim is removed whatever becomes of the others."""

import threading
import time

import pytest

from lockkit.drivers.orphans import Orphans
from lockkit.errors import BackendUnavailable
from lockkit.lib.clock import SYSTEM
from lockkit.protocol.effects import Orphan
from lockkit.protocol.orphaning import OrphanList
from lockkit.store.spi import NO_EXTRAS, RELEASED, Claim, Extras, Refused, Terms, Unknown
from lockkit.testing.claims import open_store
from lockkit.testing.processes import until
from lockkit.values.names import new_token

TIMEOUT = 2.0


class SilentFor:
    """A store of which one server is silent: whoever asks for a name of it waits for as long as he may.

    Attributes:
        tries: Each try for such a name, with the budget it was given.
        back: Set once that server answers again.
    """

    def __init__(self):
        self._store = open_store("memory://orphans")
        self.extras = NO_EXTRAS
        self.tries = []
        self.back = threading.Event()

    def release(self, claim, budget, *, how="released"):
        if claim.terms.name.startswith("silent"):
            self.tries.append((claim.terms.name, budget))
            if not self.back.wait(budget):
                raise Unknown(BackendUnavailable("no answer"))
        return self._store.release(claim, budget, how=how)

    abandon = release


class Removals:
    def __init__(self):
        self.names = []
        self.changed = threading.Condition()

    def __call__(self, event):
        with self.changed:
            self.names.append(event.name)
            self.changed.notify_all()

    def of(self, start, count):
        with self.changed:
            return self.changed.wait_for(
                lambda: sum(name.startswith(start) for name in self.names) >= count, 60.0
            )


@pytest.fixture
def store():
    made = SilentFor()
    yield made
    made.back.set()


@pytest.fixture
def told():
    return Removals()


@pytest.fixture
def orphans(store, told):
    made = Orphans(store, SYSTEM, told, TIMEOUT)
    yield made
    made.close()


def orphan(name, after=0.0):
    return Orphan(Claim(new_token(), Terms(name)), abandon=False, how="ungraceful", after=after)


@pytest.mark.parametrize("silent", [1, 24])
def test_claims_on_a_silent_server_do_not_delay_those_on_others(orphans, store, told, silent):
    for number in range(silent):
        orphans.add(orphan(f"silent:{number}"))
    for number in range(20):
        orphans.add(orphan(f"healthy:{number}"))
    assert told.of("healthy", 20)
    # A short first try for each, and then four at a time: never the whole budget one after the other.
    until(lambda: len({name for name, _ in store.tries}) == silent, "each silent one is tried")
    first = {}
    for name, budget in list(store.tries):
        first.setdefault(name, budget)
    assert max(first.values()) < 0.5
    assert sum(budget > 0.5 for _, budget in store.tries) <= max(4, silent // 2)
    # While it goes on, the others still pass.
    for number in range(20):
        orphans.add(orphan(f"later:{number}"))
        assert told.of("later", number + 1)
    store.back.set()
    assert told.of("silent", silent)
    assert not len(orphans)


def test_several_claims_of_a_crowd_are_removed_at_the_same_time(store, told):
    """The store answers each request only together with two others, like one that answers slowly."""
    together = threading.Barrier(3, timeout=20)

    class Slowly(SilentFor):
        def release(self, claim, budget, *, how="released"):
            together.wait()
            return super().release(claim, budget, how=how)

    made = Orphans(Slowly(), SYSTEM, told, TIMEOUT)
    try:
        # Known before the thread begins: the last claim starts it.
        for number in range(8):
            made._list.add(orphan(f"healthy:{number}"))
        made.add(orphan("healthy:8"))
        assert told.of("healthy", 9)
        assert not len(made)
    finally:
        made.close()


def test_helpers_end_once_there_is_nothing_to_help_with(orphans, store, told):
    before = set(threading.enumerate())
    for number in range(12):
        orphans.add(orphan(f"silent:{number}"))
    orphans.add(orphan("healthy"))
    assert told.of("healthy", 1)
    assert len(set(threading.enumerate()) - before) <= 9
    done = threading.Event()
    orphans.retire(done.set)
    store.back.set()
    assert done.wait(30)
    assert told.of("silent", 12)
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


def test_without_a_thread_to_be_had_all_are_removed_all_the_same(orphans, store, told, monkeypatch):
    orphans.add(orphan("healthy:0"))
    assert told.of("healthy", 1)

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for number in range(3):
        orphans.add(orphan(f"silent:{number}"))
    orphans.add(orphan("healthy:1"))
    assert told.of("healthy", 2)
    store.back.set()
    assert told.of("silent", 3)


def test_an_error_that_nobody_expected_does_not_end_the_tries(orphans, store, told, caplog):
    real, broken = store.release, [RuntimeError("a bug")] * 2

    def release(claim, budget, *, how="released"):
        if broken and claim.terms.name == "broken":
            time.sleep(0.2)  # as one whose server is slow, so that a helper tries it as well
            raise broken.pop()
        return real(claim, budget, how=how)

    store.release = release
    orphans.add(orphan("broken"))
    orphans.add(orphan("healthy"))
    assert told.of("healthy", 1)
    assert told.of("broken", 1)
    assert not broken
    assert "a claim could not be removed" in caplog.text


def test_a_flush_gives_every_claim_its_share_of_the_time(orphans, store, told):
    later = SYSTEM.now() + 1000
    for name in ("silent:0", "silent:1", "healthy"):
        orphans.add(orphan(name, after=later))
    orphans.flush(0.3)
    assert told.names == ["healthy"]
    assert sum(budget for _, budget in store.tries) <= 0.31


class Many:
    """A store that removes many claims at once: each request's claims, and the answers of ``refuses``."""

    def __init__(self, refuses=lambda _names: None):
        self.extras = Extras(remove_many=self._remove_many)
        self.asked = []
        self._refuses = refuses

    def release(self, claim, budget, *, how="released"):
        self.asked.append([claim.terms.name])
        return RELEASED

    abandon = release

    def _remove_many(self, removals, budget):
        names = [each.claim.terms.name for each in removals]
        self.asked.append(names)
        trouble = self._refuses(names)
        if isinstance(trouble, Exception):
            raise trouble
        return trouble or [None] * len(names)


def worked_off(store, told, names):
    """Have claims removed that are all known before the first one is."""
    made = Orphans(store, SYSTEM, told, TIMEOUT)
    try:
        for name in names[:-1]:
            made._list.add(orphan(name))
        made.add(orphan(names[-1]))
        assert told.of("", len(names))
        until(lambda: not len(made), "the list is empty")
    finally:
        made.close()
    assert sorted(told.names) == sorted(names)


def test_hundreds_of_claims_take_a_request_for_each_hundred_where_the_store_removes_many(told):
    store = Many()
    worked_off(store, told, [f"a:{number}" for number in range(300)])
    assert [len(each) for each in store.asked] == [100, 100, 100]


def test_a_claim_that_was_not_removed_with_others_is_tried_alone(told):
    trouble = Unknown(BackendUnavailable("no answer"))
    store = Many(lambda names: [trouble if name == "odd" else None for name in names])
    worked_off(store, told, ["a", "odd", "b"])
    assert store.asked == [["a", "odd", "b"], ["odd"]]


def test_claims_that_all_failed_together_are_tried_one_by_one_so_that_none_keeps_the_others_back(told):
    store = Many(lambda _names: Refused(BackendUnavailable("one of these is not welcome")))
    worked_off(store, told, ["a", "b", "c"])
    assert store.asked == [["a", "b", "c"], ["a"], ["b"], ["c"]]


def test_a_client_that_closes_gives_up_many_claims_in_one_request(told):
    store, later = Many(), SYSTEM.now() + 1000
    made = Orphans(store, SYSTEM, told, TIMEOUT)
    try:
        for number in range(30):
            made._list.add(orphan(f"a:{number}", after=later))
        made.flush(1.0)
    finally:
        made.close()
    assert [len(each) for each in store.asked] == [30]
    assert len(told.names) == 30


def test_claims_that_a_dead_server_refuses_are_not_tried_in_one_go():
    claims = OrphanList(TIMEOUT)
    for number in range(3):
        claims.add(orphan(f"a:{number}"))
    now = 10.0
    for _ in range(2):
        (entry,) = claims.take(now, slow=False)
        claims.failed([entry], now, 0.0, 0.3)
        assert not claims.take(now, slow=False)
        now = claims.soonest()
        assert 10.0 < now < 10.04, "another claim is due, after a rest"


def test_a_removed_claim_is_followed_by_the_next_one_at_once():
    claims = OrphanList(TIMEOUT)
    for number in range(2):
        claims.add(orphan(f"a:{number}"))
    for _ in range(2):
        (entry,) = claims.take(10.0, slow=False)
        claims.removed(entry)
    assert not claims.claims()
