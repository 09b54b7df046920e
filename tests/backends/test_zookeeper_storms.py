"""A storm on three ZooKeeper servers whose leaders stand still, go on, and are deposed without their knowledge."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

pytest.importorskip("kazoo")

from hypothesis import settings

from lockkit.testing.processes import until
from support.servers.zookeeper_groups import ZooKeeperEnsemble
from support.storms import Held, Storm, wrong

TICK, PATIENCE = 0.15, 120.0
GRANTS = 20 * min(settings.default.max_examples, 500)
"""2,000, and 10,000 with the profiles ``long`` and ``nightly``."""
SHORT = 3.0
"""Seconds; a ttl that is over long before a leader finds out by itself that it was deposed."""
CALM = 400
"""Grants from one disturbance to the next."""
LEAST = 3
"""Disturbances of each kind without which a storm proves nothing."""


def held_up(ensemble, chance):
    """The leader stands still for a moment."""
    leader = ensemble.leader()
    leader.pause()
    time.sleep(chance.uniform(0.2, 2.0))
    leader.resume()


def deposed(ensemble, chance):
    """The leader stands still until there is another one, and goes on."""
    leader = ensemble.leader()
    leader.pause()
    ensemble.until_healthy()
    time.sleep(chance.uniform(0.0, 1.0))
    leader.resume()


def deposed_without_a_word(ensemble, chance):
    """The others start again without the leader, which goes on until sessions have ended that only it has heard of."""
    ensemble.depose(ensemble.leader())
    time.sleep(chance.uniform(1.0, 2.0) * SHORT)
    ensemble.heal()


# With the ticks after which followers depose a leader that stands still, and for which a leader goes on that hears nothing.
@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "sync_limit, ttl, kinds", [(20, 6.0, (held_up, deposed)), (200, SHORT, (held_up, deposed_without_a_word))]
)
def test_stopped_and_deposed_leaders_never_let_two_hold_one_lock(sync_limit, ttl, kinds, tmp_path):
    seed = random.randrange(2**32)
    chance, seen = random.Random(seed), Counter()
    with ZooKeeperEnsemble(tick=TICK, proxied=True, syncLimit=sync_limit) as ensemble:
        options = f"?tick={TICK}&max_ttl=9"
        # A client that knows all members goes to another one; one that knows a single member comes back to it, whatever its role is then.
        urls = [ensemble.url("/app") + options] * 3 + [
            each.url("/app") + options for each in ensemble.members
        ]
        with Storm(urls, ttl, seed, tmp_path) as storm:
            while storm.grants < GRANTS or min(seen[kind] for kind in kinds) < LEAST:
                calm = storm.grants + CALM
                until(lambda calm=calm: storm.grants >= calm, "the storm goes on", PATIENCE)
                kind = chance.choice(kinds)
                kind(ensemble, chance)
                ensemble.until_healthy(PATIENCE)
                seen[kind] += 1
            holds = storm.holds()
    assert wrong(holds) == [], f"seed {seed}, after {seen}"
    assert len(holds) >= GRANTS


def test_the_witness_sees_holds_that_meet_and_fences_that_do_not_rise():
    first = Held("a", 1.0, 3.0, 7, 0)
    assert wrong([first, Held("a", 3.1, 4.0, 8, 1), Held("b", 2.0, 2.5, 1, 1)]) == []
    for other in (Held("a", 2.0, 2.5, 8, 1), Held("a", 3.1, 4.0, 7, 1), Held("a", 2.9, 4.0, 8, 1)):
        assert wrong([first, other]) == [(first, other)]
    inside, behind = Held("a", 1.5, 1.6, 8, 1), Held("a", 2.0, 4.0, 9, 2)
    assert wrong([first, inside, behind]) == [(first, inside), (first, behind)], (
        "it forgets who holds the longest"
    )
