"""The clocks, and what is drawn by lot."""

import random

import lockkit
from lockkit.clock import jitter


def test_jitter_is_a_share():
    drawn = [jitter() for _ in range(1_000)]

    assert all(0.0 <= each < 1.0 for each in drawn)
    assert max(drawn) - min(drawn) > 0.5


def test_the_programs_own_random_is_left_alone():
    random.seed(7)
    before = random.getstate()
    with (
        lockkit.connect("memory:") as client,
        client.lock("a", ttl=0.3).acquire() as lease,
    ):
        while client.stats()["renewals"] < 2:
            assert not lease.lost.wait(0.02)

    assert random.getstate() == before
