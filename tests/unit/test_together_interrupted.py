"""L4, S9: Ctrl-C at every place of an acquisition of several locks, of their release and their ``with``."""

from __future__ import annotations

import os
import random
import time
import warnings
from collections import Counter

import pytest

import lockkit
from lockkit.testing.interrupts import Bomb, CtrlC
from lockkit.testing.processes import until
from lockkit.testing.scenarios.interrupted import unraisable
from lockkit.testing.stage import Work
from lockkit_sqlite.pulses import LISTENER

TTL = 1.5  # long enough for a machine that stands still for a second: the holds must not lapse by themselves


class Cleaner:
    def __init__(self):
        self.runs = Counter()

    @lockkit.hookimpl
    def lockkit_cleanup(self, context):
        self.runs[context.claim_id] += 1


def locks(client):
    return [client.lock("a", ttl=TTL), client.rwlock("r", ttl=TTL).write(), client.semaphore("c", 2, ttl=TTL)]


def all_in_with(client, kept):
    with client.all_of(locks(client)).acquire(20.0) as leases:
        kept.append(leases)


def all_in_short_form(client, kept):
    with client.all_of(locks(client), timeout=20.0) as both:
        kept.append(both.lease)


def all_released_by_hand(client, kept):
    leases = client.all_of(locks(client)).acquire(20.0)
    kept.append(leases)
    try:
        leases.release()
    finally:
        leases.release()


def any_in_with(client, kept):
    with client.any_of(locks(client)).acquire(20.0) as lease:
        kept.append(lease)


def any_after_a_wait(client, kept):
    """Both are busy, and the second comes free while it waits."""
    a, b = client.lock("a", ttl=TTL), client.lock("b", ttl=TTL)
    with a.acquire(20.0) as first, b.acquire(20.0) as second:
        first.detach()
        second.detach()
        with client.any_of([a, b]).acquire(20.0, on_wait=lambda waiting: second.release()) as lease:
            kept.append(lease)


def all_after_a_failure(client, kept):
    held = client.lock("b2", ttl=TTL).acquire().detach()
    try:
        client.all_of([*locks(client), client.lock("b2", ttl=TTL)]).acquire(0.02)
    except lockkit.AcquireTimeout:
        pass
    finally:
        held.release()


def pool_in_with(client, kept):
    with client.pool("p", {"0": 2, "1": 2, "2": 1}, ttl=TTL).acquire(2, each=2, timeout=20.0) as leases:
        kept.append(leases)


def pool_after_a_wait(client, kept):
    """The request has one member, and the second comes free while it waits."""
    pool = client.pool("p", ["0", "1"], ttl=TTL)
    with pool.acquire(among=["0"]) as first:
        first.detach()
        with pool.acquire(2, timeout=20.0, on_wait=lambda waiting: first.release()) as leases:
            kept.append(leases)


class Fickle:
    """A chooser that first refuses the first member, and finds the second one dirty at its first grant."""

    every = 0.01

    def __init__(self):
        self.asked = self.judged = 0

    def choose(self, held):
        self.asked += 1
        return lockkit.Choice(["1"], {"0": "used"}) if self.asked == 1 else lockkit.Choice(["0", "1"])

    def judge(self, member):
        self.judged += 1
        return "dirty" if self.judged == 1 else None


def pool_with_a_chooser(client, kept):
    pool = client.pool("p", ["0", "1"], ttl=TTL)
    with pool.acquire(2, chooser=Fickle(), timeout=20.0) as leases:
        kept.append(leases)


def pool_of_slices(client, kept):
    """One slice has its own claim and waits for the card, while the other card comes free."""
    pool = client.pool("p", {"card": 2, "a": 1, "b": 1}, within={"a": "card", "b": "card"}, ttl=TTL)
    with pool.acquire(among=["card"]) as first:
        first.detach()
        with pool.acquire(
            2, among=["a", "b"], timeout=20.0, on_wait=lambda waiting: first.release()
        ) as leases:
            kept.append(leases)


FORMS = [
    pool_with_a_chooser,
    pool_of_slices,
    pool_in_with,
    pool_after_a_wait,
    all_in_with,
    all_in_short_form,
    all_released_by_hand,
    any_in_with,
    any_after_a_wait,
    all_after_a_failure,
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "store, most",
    [
        ("memory", 30),
        pytest.param("memory", 250, marks=pytest.mark.full),
        pytest.param("sqlite", 80, marks=pytest.mark.full),
    ],
)
def test_l4_interrupted_together_at_any_place_nothing_is_left(store, form, most, tmp_path):
    sweep(store, form, tmp_path, lambda chance: 0, most)


@pytest.mark.full
@pytest.mark.parametrize("form", FORMS)
def test_l4_interrupted_together_twice_nothing_is_left(form, tmp_path):
    sweep("memory", form, tmp_path, lambda chance: chance.randint(1, 40), 60)


def sweep(store, form, folder, then, most):
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    url = f"memory://{os.urandom(8).hex()}" if store == "memory" else f"sqlite:{folder}/locks.db"
    cleaner = Cleaner()
    late = []
    with lockkit.connect(url, plugins=[cleaner]) as client, lockkit.connect(url) as observer:
        form(client, [])
        cleaner.runs.clear()
        count = Bomb(1 << 30)
        with count:
            form(client, [])
        struck = 0
        for at in count.places(most, chance):
            bomb, kept = Bomb(at, then(chance)), []
            with warnings.catch_warnings(), unraisable():
                warnings.simplefilter("ignore", ResourceWarning)
                try:
                    with bomb:
                        form(client, kept)
                except CtrlC:
                    struck += 1
                where = f"after Ctrl-C at {bomb.where} and {bomb.again or 'no more'}, seed {seed}"
                began = time.monotonic()
                while left := [name for name in observer.names() if observer.inspect(name).claims]:
                    assert time.monotonic() < began + TTL + 3.0, f"{left} stay {where}"
                    time.sleep(0.002)
                if time.monotonic() > began + TTL / 2:
                    late.append(where)
            for claim, runs in cleaner.runs.items():
                assert runs == 1, f"S9: cleanup of {claim} ran {runs} times {where}"
            cleaner.runs.clear()
            error = Work(lambda: client.all_of(locks(client)).acquire(20.0).release()).error()
            assert error is None, f"{where}: {error!r}"
            cleaner.runs.clear()
            for lease in kept:
                assert Work(lease.release).result(30.0).outcome in ("RELEASED", "LOST", "KEPT"), where
        assert struck > 20, "the bomb hardly ever went off"
        assert len(late) <= max(struck / 8, 8), f"of {struck} places these left claims to their ttl: {late}"
    until(lambda: not LISTENER.watcher._waiters, f"a watch is left, seed {seed}")
