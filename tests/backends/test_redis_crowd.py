"""Many at once on the Redis store: threads, waiters, processes; and what a client leaves behind."""

from __future__ import annotations

import contextlib
import os
import queue as queues
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("redis")

import lockkit
from lockkit.errors import AcquireCancelled
from lockkit.store.spi import Granted, OpenOptions, Queued
from lockkit.testing.claims import claim, take
from lockkit.testing.processes import PATIENCE, until
from lockkit_redis.backend import open_store
from lockkit_redis.connection import pack
from support.striking import gone, left, strike_each_place

SLOW = 20.0
"""Seconds allowed on a busy machine for what takes milliseconds: only a failure waits that long."""


def queued(store, *args, **kwargs):
    one = claim(*args, **kwargs)
    answer = store.acquire(one, True, SLOW)
    assert isinstance(answer, Queued), answer
    return one, answer.blockers


def connections(server, kind="normal"):
    """Connections over TCP: the test's own come over the unix socket."""
    lines = server.cli("CLIENT", "LIST", "TYPE", kind).decode().splitlines()
    return [line for line in lines if f"laddr={server.host}:" in line]


def commands(server):
    return sum(
        int(line.partition("calls=")[2].partition(",")[0])
        for line in server.cli("INFO", "commandstats").decode().splitlines()
        if line.startswith(("cmdstat_eval", "cmdstat_evalsha"))
    )


def test_sixty_four_threads_share_a_client_and_never_a_lock(server):
    fences, total, trouble = [], [0], []

    def work(client):
        try:
            for _ in range(4):
                with client.lock("a").acquire(timeout=30) as lease:
                    seen = total[0]
                    fences.append(lease.fence)
                    time.sleep(0)
                    total[0] = seen + 1
        except BaseException as error:
            trouble.append(error)

    with lockkit.connect(server.url()) as client:
        threads = [threading.Thread(target=work, args=(client,)) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(connections(server, "pubsub")) == 1

    assert trouble == []
    assert total == [64 * 4]
    assert fences == sorted(set(fences))
    until(lambda: not connections(server) and not connections(server, "pubsub"))


def test_a_thousand_waiters_share_a_connection_and_are_served_in_order_two_scripts_each(server, store):
    server.clock.stand()  # nobody renews the thousand, and this machine may be slow
    count = 1000
    held, _ = take(store)
    woken = queues.SimpleQueue()
    served, fences = [], []
    waiters = [queued(store) for _ in range(count)]
    for number, (one, blockers) in enumerate(waiters):
        store.watch("a", blockers, lambda number=number: woken.put(number), one)
    until(lambda: len(connections(server, "pubsub")) == 1)
    before = commands(server)

    store.release(held, SLOW)
    while len(served) < count:
        number = woken.get(timeout=SLOW)
        one, _ = waiters[number]
        answer = store.acquire(one, False, SLOW)
        assert isinstance(answer, Granted), (number, answer)
        served.append(number)
        fences.append(answer.fence)
        store.release(one, SLOW)

    assert served == list(range(count))
    assert fences == sorted(set(fences))
    assert len(connections(server, "pubsub")) == 1
    assert commands(server) - before <= 2 * count + 4
    assert woken.empty()


def test_a_wake_that_was_sent_before_the_subscription_stood_is_made_up_for(server, store):
    """The claim was queued before the client's first subscription, and is watched after it."""
    held, _ = take(store, "b")
    early, blockers = queued(store, "b")
    store.release(held, 2.0)
    take(store, "a")
    first, its_blockers = queued(store, "a")
    store.watch("a", its_blockers, lambda: None, first)
    until(lambda: store._wakes._standing)
    time.sleep(0.05)  # those watched by then have been looked at
    woken = threading.Event()

    store.watch("b", blockers, woken.set, early)

    assert woken.wait(PATIENCE)


def test_a_subscription_that_was_cut_is_made_up_for(server, store):
    held, _ = take(store)
    one, blockers = queued(store)
    woken = threading.Event()
    store.watch("a", blockers, woken.set, one)
    until(lambda: connections(server, "pubsub"))

    server.cli("CLIENT", "KILL", "TYPE", "pubsub")
    store.release(held, 2.0)

    assert woken.wait(PATIENCE)
    assert isinstance(store.acquire(one, False, 2.0), Granted)


def test_a_client_that_is_closed_while_waiting_leaves_no_thread_and_no_connection(server):
    before = set(threading.enumerate())
    with lockkit.connect(server.url()) as other:
        lease = other.lock("a").acquire(timeout=0)
        client = lockkit.connect(server.url())
        trouble = []

        def wait():
            try:
                client.lock("a").acquire(timeout=30)
            except AcquireCancelled as error:
                trouble.append(error)

        waiter = threading.Thread(target=wait)
        waiter.start()
        until(lambda: connections(server, "pubsub"))
        client.close()
        waiter.join(PATIENCE)
        assert len(trouble) == 1
        until(lambda: not connections(server, "pubsub"))
        assert [each.state for each in other.inspect("a").claims] == ["HELD"]
        lease.release()
    until(lambda: set(threading.enumerate()) <= before)
    until(lambda: not connections(server))


FORK = """
import os, sys, threading
from lockkit.values.names import new_token
from lockkit.store.spi import Claim, Granted, OpenOptions, Refused, Terms
from lockkit_redis.backend import open_store
url, ending = sys.argv[1:]
store = open_store(url, OpenOptions())
one, waiting = Claim(new_token(), Terms("a")), Claim(new_token(), Terms("a"))
fence = store.acquire(one, True, 2.0).fence
woken = threading.Event()
store.watch("a", store.acquire(waiting, True, 2.0).blockers, woken.set, waiting)
busy = threading.Thread(
    target=lambda: [store.renew([(one, fence), (waiting, None)], 2.0) for _ in range(2000)])
busy.start()  # somebody is in the middle of a call at the fork
pid = os.fork()
if pid == 0:
    for call in (lambda: store.release(one, 2.0), lambda: store.acquire(one, True, 2.0),
                 lambda: store.renew([(one, fence)], 2.0), lambda: store.emergency_release(one, 2.0),
                 lambda: store.inspect("a", 2.0)):
        try:
            call()
        except Refused as refusal:
            assert not refusal.retry
        else:
            os._exit(3)
    store.close()
    mine = open_store(url, OpenOptions())
    if not isinstance(mine.acquire(Claim(new_token(), Terms("b")), True, 2.0), Granted):
        os._exit(4)
    getattr(os if ending == "_exit" else sys, ending)(0)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
busy.join()
assert store.renew([(one, fence)], 2.0)[0].state == "HELD"
assert not woken.is_set()
store.release(one, 2.0)
assert woken.wait(30.0), "the child has cut the parent's subscription"
assert isinstance(store.acquire(waiting, False, 2.0), Granted)
sys.exit(code)
"""

FORKED_CLIENT = """
import os, sys
import lockkit
client = lockkit.connect(sys.argv[1])
lease = client.lock("a").acquire(timeout=0)
pid = os.fork()
if pid == 0:
    bad = 0 if not lease.valid() else 5
    lease.release()
    with client.lock("b").acquire(timeout=0):
        pass
    client.close()
    getattr(os if sys.argv[2] == "_exit" else sys, sys.argv[2])(bad)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert lease.valid()
assert client.inspect("a").claims[0].state == "HELD"
lease.release()
assert not client.inspect("a").claims
sys.exit(code)
"""


@pytest.mark.parametrize("ending", ["_exit", "exit"])
@pytest.mark.parametrize("code", [FORK, FORKED_CLIENT], ids=["store", "client"])
def test_in_a_forked_child_what_was_inherited_is_inert_and_the_parents_connections_work(server, code, ending):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    line = [sys.executable, "-W", "ignore", "-c", code, server.url(), ending]

    done = subprocess.run(line, env=env, timeout=100, check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_kill_9_of_a_client_frees_its_lock_within_its_ttl(server, store):
    code = """
import sys, time, lockkit
lease = lockkit.connect(sys.argv[1]).lock("a", ttl=1.0).acquire(timeout=0)
print(lease.fence, flush=True)
time.sleep(60)
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", code, server.url()], env=env, stdout=subprocess.PIPE
    ) as process:
        try:
            fence = int(process.stdout.readline())
            one, _ = queued(store)
        finally:
            process.kill()
    killed = time.monotonic()
    answer = None
    with contextlib.suppress(TimeoutError):
        while not isinstance(answer := store.acquire(one, False, 2.0), Granted):
            time.sleep(max(0.0, answer.ask_again_at - time.clock_gettime(time.CLOCK_BOOTTIME)))
            assert time.monotonic() - killed < 1.0 + 5.0  # the ttl; the rest is for a slow machine
    assert answer.fence > fence


def test_a_connection_that_is_taken_the_moment_it_is_given_back_is_no_trouble(server):
    class Snatched(list):
        """A queue from which another thread takes each item at once."""

        def append(self, each):
            each[0].close()

    store = open_store(server.url(), OpenOptions())
    (node,) = store.store.servers()
    pool = store.store.performer._pools[node]
    pool.empty()
    pool._free = Snatched()
    assert store.store.call(node, pack("PING"), 2.0) == b"PONG"
    store.close()


def test_a_signal_that_interrupts_the_start_of_the_thread_that_reads_leaves_one(server):
    """Two would read one subscription at once: "concurrent poll() invocation"."""

    def wait(store):
        store._wakes.watch("1", "here", "token", lambda: None, reads=False).close()

    def opened():
        assert gone("lockkit-redis-wakes")
        return open_store(server.url(), OpenOptions())

    for where, store in strike_each_place(opened, wait):
        wait(store)
        until(lambda store=store: store._wakes._standing, "the subscription stands")
        assert left("lockkit-redis-wakes", 1), where
        store.close()
