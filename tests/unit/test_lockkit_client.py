"""The fixture ``lockkit_client``: a rival holds, time passes, a lease is lost; the next test starts clean."""

from __future__ import annotations

import math
import threading
import time

import pytest

from lockkit.errors import AcquireTimeout, ConfigError, LeaseLost
from lockkit.testing.clocks import ShiftedClock

pytest_plugins = ["pytester"]


def test_somebody_else_holds_until_released(lockkit_client):
    elsewhere = lockkit_client.hold_elsewhere("a")
    assert lockkit_client.lock("a").try_acquire() is None
    with pytest.raises(AcquireTimeout, match="held by"):
        lockkit_client.lock("a").acquire(timeout=0)
    elsewhere.release()
    with lockkit_client.lock("a").acquire(timeout=0) as lease:
        assert lease.fence > elsewhere.fence


def test_somebody_else_holds_although_the_test_keeps_no_lease(lockkit_client):
    lockkit_client.hold_elsewhere("a", ttl=5)
    lockkit_client.clock.advance(600)
    assert lockkit_client.lock("a").try_acquire() is None


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1, True, "1"])
def test_time_that_is_no_duration_is_refused(lockkit_client, seconds):
    before = lockkit_client.clock.now()
    with pytest.raises(ConfigError, match="seconds must be"):
        lockkit_client.clock.advance(seconds)
    with pytest.raises(ConfigError, match="seconds must be"):
        ShiftedClock().advance(seconds)
    assert lockkit_client.clock.now() - before < 60


def test_time_passes_and_a_lease_that_is_renewed_stays_valid(lockkit_client):
    lease = lockkit_client.lock("a", ttl=30).acquire()
    began, since = time.monotonic(), lockkit_client.clock.now()
    lockkit_client.clock.advance(3600)
    assert 3600 <= lockkit_client.clock.now() - since < 3660
    assert time.monotonic() - began < 30
    lease.ensure_held()
    lease.confirm()
    assert lease.release().outcome == "RELEASED"


def test_the_heartbeat_goes_on_in_real_time_after_a_step(lockkit_client):
    """A thread that slept through the step must not sleep on: a hold with a short ttl depends on it."""
    with lockkit_client.lock("long", ttl=30).acquire() as kept:
        time.sleep(0.2)  # the thread falls asleep, for a third of 30 s
        lockkit_client.clock.advance(100)
        with lockkit_client.lock("short", ttl=1.5).acquire() as lease:
            time.sleep(2.0)
            lease.ensure_held()
        assert kept.valid()


def test_time_ends_what_is_not_renewed_and_what_has_a_limit(lockkit_client):
    still = lockkit_client.lock("still", ttl=30, auto_renew=False).acquire()
    limited = lockkit_client.lock("limited", max_hold=100).acquire()
    lockkit_client.clock.advance(60)
    assert not still.valid()
    assert limited.valid()
    lockkit_client.elsewhere.lock("still").acquire(timeout=0).release()
    lockkit_client.clock.advance(60)
    assert limited.lost_because == "max_hold"
    assert [lease.release().outcome for lease in (still, limited)] == ["LOST", "LOST"]


def test_min_hold_and_lock_delay_pass_by_the_clock(lockkit_client):
    lockkit_client.lock("nightly", min_hold=60).acquire().release()
    assert lockkit_client.lock("nightly").try_acquire() is None
    lockkit_client.clock.advance(61)
    with lockkit_client.lock("nightly").acquire(timeout=0):
        pass


def test_a_wait_of_another_thread_ends_when_its_time_has_passed(lockkit_client):
    lockkit_client.hold_elsewhere("a")
    errors, began = [], time.monotonic()

    def wait():
        try:
            lockkit_client.lock("a").acquire(timeout=300)
        except AcquireTimeout as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not lockkit_client.inspect("a").waiters:
        time.sleep(0.01)
    lockkit_client.clock.advance(301)
    thread.join(30)
    assert errors
    assert time.monotonic() - began < 30


def test_a_simulated_loss_is_a_loss(lockkit_client, caplog):
    called = []
    lease = lockkit_client.lock("a").acquire()
    lease.on_lost(lambda: called.append("lost"))
    lease.simulate_loss()
    assert called == ["lost"], "the callbacks have returned"
    assert not lease.valid()
    assert lease.lost.is_set()
    with pytest.raises(LeaseLost):
        lease.simulate_loss()
    with pytest.raises(LeaseLost, match="not renewed in time"):
        lease.__exit__(None, None, None)
    assert "may have lapsed" in caplog.text
    assert lockkit_client.stats()["lost"] == 1


def test_the_next_one_gets_a_lock_whose_loss_was_simulated_when_its_validity_is_over(lockkit_client):
    lost = lockkit_client.lock("a", ttl=30).acquire()
    lost.simulate_loss()
    assert lockkit_client.elsewhere.lock("a").try_acquire() is None, "its holder may still be at work"
    lockkit_client.clock.advance(31)
    until = time.monotonic() + 30
    while (following := lockkit_client.elsewhere.lock("a").try_acquire()) is None:
        assert time.monotonic() < until
    assert following.fence > lost.fence
    following.release()


TESTS = """
import pytest

def test_first(lockkit_client, monkeypatch):
    lockkit_client.lock("a", pulseless=True, ttl=600).acquire().hand_over()
    lockkit_client.hold_elsewhere("b")
    lockkit_client.put_record("a", {"left": "over"}, 0)
    assert lockkit_client.config.ttl == 30, "neither a file nor the environment counts"
    assert lockkit_client.url_source == "argument"

def test_second(lockkit_client):
    assert lockkit_client.lock("a").try_acquire().release().released
    assert lockkit_client.lock("b").try_acquire().release().released
    assert lockkit_client.record("a") is None
    assert lockkit_client.names() == []

def test_third():
    import sys
    assert not [name for name in sys.modules if name.split(".")[0] == "hypothesis"]
"""


WITHOUT_HYPOTHESIS = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:schemathesis")


def test_tests_leave_nothing_to_each_other_and_need_no_hypothesis(pytester, monkeypatch):
    monkeypatch.setenv("LOCKKIT_TTL", "7")
    pytester.makepyfile(TESTS)
    pytester.makefile(".toml", lockkit="ttl = '8s'")
    result = pytester.runpytest_subprocess(*WITHOUT_HYPOTHESIS)
    result.assert_outcomes(passed=3)
    assert (
        "lockkit_client" in pytester.runpytest_subprocess("--fixtures", "-p", "no:cacheprovider").stdout.str()
    )


def test_the_plugin_costs_nothing_where_nobody_uses_it(pytester):
    pytester.makepyfile(
        """
import sys

def test_nothing():
    assert "lockkit.testing.plugin" in sys.modules
    for name in ("lockkit.testing.clients", "lockkit.shared.opening", "lockkit.drivers.threads"):
        assert name not in sys.modules
"""
    )
    result = pytester.runpytest_subprocess(*WITHOUT_HYPOTHESIS)
    result.assert_outcomes(passed=1)
