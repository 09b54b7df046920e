"""Corners where two things happen to one claim at once: giving up, closing, releasing in a release."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

import lockkit
from support.programs import programs

ACTOR = """
import sys, time
import lockkit
client = lockkit.connect(sys.argv[1])
lock = client.lock("x", ttl=60)
print("ready", flush=True)
{body}
"""


@pytest.fixture
def actor(tmp_path):
    with programs(stdin=subprocess.PIPE) as start:

        def begin(body):
            process = start(sys.executable, "-u", "-c", ACTOR.format(body=body), f"sqlite:{tmp_path}/x.db")
            assert process.stdout.readline() == "ready\n"
            return process

        yield begin


@pytest.fixture
def client(tmp_path):
    with lockkit.connect(f"sqlite:{tmp_path}/x.db") as client:
        yield client


def queued(client, count):
    """Wait until that many claims stand in the queue."""
    end = time.monotonic() + 40
    while len(client.inspect("x").claims) != count:
        assert time.monotonic() < end, client.inspect("x")
        time.sleep(0.01)


def test_l3_a_waiter_whose_blocker_gave_up_still_notices_a_death_further_ahead(actor, client):
    holder = actor("lease = lock.acquire(); sys.stdin.read()")
    queued(client, 1)
    quitter = actor(
        "try: lock.acquire()\nexcept KeyboardInterrupt: print('gave up', flush=True)\nsys.stdin.read()"
    )
    queued(client, 2)
    waiter = actor("lease = lock.acquire(); print('granted', flush=True); lease.release()")
    queued(client, 3)
    quitter.send_signal(signal.SIGINT)
    assert quitter.stdout.readline() == "gave up\n"
    holder.kill()
    killed = time.monotonic()
    assert waiter.stdout.readline() == "granted\n"
    assert time.monotonic() - killed < 20  # its ttl is 60 s


def test_l3_readers_that_leave_one_by_one_keep_the_writers_watch_on_who_is_left(client):
    rw = client.rwlock("x", ttl=60)
    short = client.rwlock("x", ttl=0.8, auto_renew=False).read().acquire()
    other = rw.read().acquire()
    granted = threading.Event()

    def write():
        with rw.write().acquire(timeout=30):
            granted.set()

    thread = threading.Thread(target=write)
    thread.start()
    queued(client, 3)
    other.release()
    assert granted.wait(max(0.0, short.remaining()) + 20)
    thread.join()
    short.release()


def test_s10_closing_a_client_lets_a_body_that_is_just_ending_finish_its_release(tmp_path):
    cleaned = []

    class Slow:
        @lockkit.hookimpl
        def lockkit_cleanup(self, context):
            time.sleep(0.5)
            cleaned.append(context.name)

    url = f"sqlite:{tmp_path}/x.db"
    client = lockkit.connect(url, plugins=[Slow()])
    held = client.lock("a2", ttl=60).acquire()
    inside, errors = threading.Event(), []

    def body():
        try:
            with client.lock("b", ttl=60).acquire():
                inside.set()
                time.sleep(0.2)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    inside.wait(10)
    client.close()
    thread.join()
    assert not errors
    assert sorted(cleaned)[-2:] == ["a2", "b"]
    assert held.report is not None or not held.valid()
    with lockkit.connect(url) as other:
        assert not other.names()


def test_s10_a_hook_that_releases_its_own_lease_waits_for_nobody(tmp_path):
    leases = []

    class Meddler:
        @lockkit.hookimpl
        def lockkit_cleanup(self, context):
            leases[0].release()

    with lockkit.connect(f"sqlite:{tmp_path}/x.db", plugins=[Meddler()]) as client:
        leases.append(client.lock("x").acquire())
        began = time.monotonic()
        report = leases[0].release()
        assert time.monotonic() - began < 5
    assert report.outcome == "RELEASED"
    assert [layer.outcome for layer in report.layers] == ["DONE", "DONE"]


def test_l4_a_dropped_process_bound_lease_ends_with_its_validity(client):
    lease = client.lock("x", ttl=0.5, process_bound=True).acquire()
    # Past its first ttl: renewed once, so that nothing else wakes the one who watches deadlines.
    time.sleep(0.7)
    with pytest.warns(ResourceWarning, match="never released"):
        del lease
    queued(client, 0)


def test_min_hold_is_kept_when_a_copy_releases(client):
    lease = client.lock("x", min_hold=30, ttl=60, pulseless=True).acquire()
    copy = client.adopt(lease.hand_over())
    assert copy.release().outcome == "RELEASED"
    assert [claim.state for claim in client.inspect("x").claims] == ["LINGERING"]
    assert client.lock("x").try_acquire() is None


def test_a_generator_function_cannot_be_decorated(client):
    with pytest.raises(lockkit.ConfigError, match="generator function"):

        @client.locked("x")
        def numbers():
            yield 1


@pytest.mark.parametrize(
    "options",
    [
        {"reentrant": "no"},
        {"on_lost": 5},
        {"note": {"a": object()}},
        {"note": {"a": "b" * 5000}},
        {"bogus": 1},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_of_the_wrong_kind_are_refused_before_any_io(tmp_path, options):
    client = lockkit.connect(f"sqlite:{tmp_path}/never.db")
    with pytest.raises(lockkit.ConfigError):
        client.lock("x", **options)
    with pytest.raises(lockkit.ConfigError):
        client.locked("x", **options)
    client.close()
    assert not list(tmp_path.iterdir())


def test_a_block_left_in_another_thread_releases_what_it_took(client):
    lock = client.lock("x")

    def steps():
        with lock:
            yield

    suspended = steps()
    next(suspended)
    thread = threading.Thread(target=suspended.close)
    thread.start()
    thread.join()
    assert not client.inspect("x").claims


SUSPENDED = """
import builtins, sys
import lockkit

def suspended():
    with lockkit.connect(sys.argv[1]) as client, client.lock("x"):
        yield

builtins.suspended = suspended()  # is finalized with the interpreter, after everything else
next(builtins.suspended)
"""


def test_a_generator_that_is_suspended_in_a_client_does_not_keep_the_process_from_ending(tmp_path, client):
    done = subprocess.run(
        [sys.executable, "-c", SUSPENDED, f"sqlite:{tmp_path}/x.db"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    client.lock("x").try_acquire().release()
