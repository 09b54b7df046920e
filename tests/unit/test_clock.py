"""The clocks, and what is drawn by lot."""

import subprocess
import sys
import textwrap
from types import SimpleNamespace

from lockkit.lib.clock import jitter
from lockkit.testing.clocks import ShiftedClock


def test_jitter_is_a_share():
    drawn = [jitter() for _ in range(1_000)]

    assert all(0.0 <= each < 1.0 for each in drawn)
    assert max(drawn) - min(drawn) > 0.5


def test_the_programs_own_random_is_left_alone():
    program = """
        import random
        import lockkit

        random.seed(7)
        before = random.getstate()
        with lockkit.connect("memory:") as client, client.lock("a", ttl=1.5).acquire() as lease:
            while client.stats()["renewals"] < 2:
                assert not lease.lost.wait(0.02)
        assert random.getstate() == before
    """
    # In a process of its own, because other threads of this one may draw.
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=60)


def test_on_a_clock_that_stands_still_whole_seconds_add_up_exactly(monkeypatch):
    for began in (317.123456789, 1027.7, 86400.1):
        monkeypatch.setattr(
            "lockkit.testing.clocks.SYSTEM",
            SimpleNamespace(now=lambda at=began: at, wall=lambda at=began: at),
        )
        clock = ShiftedClock()
        clock.freeze()
        clock.advance(30)
        at = clock.now()
        for _ in range(40):
            clock.advance(30)
        assert began <= at - 30 < began + 0.001
        assert clock.now() - at == clock.wall() - at == 1200.0
