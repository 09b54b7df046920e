"""How processes end: exit, SIGTERM, fork; none blocks, none leaks, none takes what is another's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from lockkit.testing.processes import until

BLACK_HOLE = """
from pathlib import Path
import tempfile
from lockkit.testing import faults
from support.harnesses.sqlite import SqliteHarness
harness = SqliteHarness(Path(tempfile.mkdtemp(dir=os.path.dirname(url.partition(':')[2]))))
bad = faults.Faults()
client2 = harness.client(url=faults.FAULTY_URL, plugins=[faults.through(harness, bad)], **{settings!r})
"""


def test_exit_while_holding_releases(cast):
    holders = cast.holders(ttl=60)
    for holder in holders:
        holder.process.stdin.close()
        assert holder.wait() == 0
    assert cast.rows() == []


def test_exit_while_another_thread_waits_takes_its_claim_back(cast):
    holders = cast.holders(ttl=60)
    actor = cast.actor()
    actor.run("""
threading.Thread(target=lambda: shape.newcomer.lock(client, NAME).acquire(), daemon=True).start()
while not client.inspect(NAME).waiters: time.sleep(0.005)
""")
    began = time.monotonic()
    actor.process.stdin.close()
    assert actor.wait() == 0
    assert time.monotonic() - began < 20.0  # and not the 60 s of the holders' ttl
    assert "AcquireCancelled" not in actor.said, (
        "a daemon thread that prints while the interpreter ends may abort it"
    )
    assert [state for state, _ in cast.rows()] == [1] * len(holders)


@pytest.mark.parametrize("doing", ["holding", "waiting", "renewing"])
def test_exit_is_not_blocked_by_a_store_that_swallows_everything(mutex, doing):
    actor = mutex.actor()
    actor.run("lease = client.lock('warm').acquire(40); lease.release()")
    actor.run(BLACK_HOLE.format(settings={"request_timeout": 60.0}))
    if doing == "waiting":
        actor.run("held = harness.client().lock('x', ttl=60).acquire(40)")
        actor.run("threading.Thread(target=lambda: client2.lock('x').acquire(), daemon=True).start()")
        actor.run("while not harness.client().inspect('x').waiters: time.sleep(0.005)")
    else:
        ttl = 60 if doing == "holding" else 0.9
        actor.run(f"lease2 = client2.lock('x', ttl={ttl}).acquire(40)")
    actor.run("bad.always(faults.black_hole)")
    if doing == "renewing":
        actor.run("bad.log.clear()\nwhile 'renew' not in bad.log: time.sleep(0.005)")
    began = time.monotonic()
    actor.process.stdin.close()
    assert actor.wait() == 0
    assert time.monotonic() - began < 2.5 + 20.0, "interpreter exit was blocked"


@pytest.mark.parametrize("kind", ["thread", "pool", "pool imported later"])
def test_exit_ends_the_waits_of_threads_that_the_interpreter_waits_for(mutex, kind):
    mutex.holders(ttl=60)
    actor = mutex.actor()
    if kind == "pool imported later":
        actor.run("""
try: client.lock(NAME).acquire(0.05)
except lockkit.AcquireTimeout: pass
""")
    start = (
        "ThreadPoolExecutor(1).submit(wait)" if "pool" in kind else "threading.Thread(target=wait).start()"
    )
    actor.run(f"""
from concurrent.futures import ThreadPoolExecutor
def wait():
    try: client.lock(NAME).acquire()
    except lockkit.AcquireCancelled as error: print(error, file=sys.stderr)
{start}
while not client.inspect(NAME).waiters: time.sleep(0.005)
""")
    actor.process.stdin.close()
    assert actor.wait() == 0
    until(lambda: "the interpreter is ending" in actor.said, "the wait says why it ended")
    assert [state for state, _ in mutex.rows()] == [1]


def test_exit_is_one_budget_for_all_clients_and_says_until_when_the_rest_lasts(mutex):
    actor = mutex.actor()
    actor.run("lease = client.lock('warm').acquire(40); lease.release()")
    actor.run(BLACK_HOLE.format(settings={}))
    actor.run("""
clients = [harness.client(url=faults.FAULTY_URL, plugins=[faults.through(harness, bad)]) for _ in range(20)]
leases = [each.lock(f"x{n}", ttl=60).acquire(40) for n, each in enumerate(clients)]
""")
    actor.run("bad.always(faults.black_hole)")
    began = time.monotonic()
    actor.process.stdin.close()
    assert actor.wait() == 0
    assert time.monotonic() - began < 20.0, "one after the other they take more than 40 s"
    until(lambda: actor.said.count("they lapse by 2") == 20, "the log says until when what is left lasts")


def test_exit_is_not_blocked_by_a_hook_that_hangs_where_no_thread_can_be_started(mutex):
    """From Python 3.12 on there are no new threads at the end; here they are refused."""
    actor = mutex.actor()
    actor.run("""
import atexit
from lockkit.config.config import load
class Hangs:
    @lockkit.hookimpl
    def lockkit_cleanup(self, context):
        print("began", file=sys.stderr, flush=True)
        threading.Event().wait()
client2 = lockkit.connect(config=load(url=url, cleanup_budget=0.2), plugins=[Hangs()])
lease = client2.lock(NAME, ttl=60).acquire(40)
def refuse(*_):
    raise RuntimeError("can't create new thread at interpreter shutdown")
@atexit.register
def refuse_all():
    import _thread
    threading.Thread.start = _thread.start_new_thread = refuse
""")
    actor.process.stdin.close()
    assert actor.wait() == 0
    until(lambda: "began" in actor.said, "the hook runs all the same")


DAEMON = """
import asyncio, atexit, sys, threading

@atexit.register
def last():  # registered before lockkit is imported, so it runs after the release at exit
    print("ending", flush=True)
    sys.stdin.readline()

import lockkit, lockkit.aio
held = threading.Event()

def works():
    with lockkit.connect({url!r}).lock("crash/lock", ttl=60):
        held.set()
        threading.Event().wait()

def loops():
    async def main():
        async with lockkit.aio.connect({url!r}).lock("crash/lock", ttl=60):
            held.set()
            await asyncio.Event().wait()
    asyncio.run(main())

def done():
    with lockkit.connect({url!r}).lock("other"):
        pass
    kept.append(lockkit.connect({url!r}).lock("crash/lock", ttl=60).acquire())
    held.set()

kept = []
thread = threading.Thread(target={kind}, daemon=True)
thread.start()
held.wait()
if {kind} is done:
    thread.join()
"""


@pytest.mark.parametrize("kind", ["works", "loops", "done"])
def test_exit_frees_nothing_under_a_daemon_thread_that_still_works(mutex, kind):
    """Such a thread goes on until the interpreter is gone, which other exit functions may delay for long."""
    code = DAEMON.format(url=mutex.url, kind=kind)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline() == b"ending\n"
        assert len(mutex.rows()) == (0 if kind == "done" else 1), "what no thread works under is released"
        process.stdin.close()
        assert process.wait() == 0
    mutex.holders(ttl=60)  # at once, and not after the ttl


CHILD = """
import multiprocessing, sys, lockkit
client = lockkit.connect({url!r})
kept = []
def job():
    kept.append(client.lock("crash/lock", ttl=60, pulseless=True).acquire(40))
if __name__ == "__main__":
    child = multiprocessing.get_context({method!r}).Process(target=job)
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_of_multiprocessing_releases_what_it_holds(mutex, tmp_path, method):
    """Such a child ends by os._exit, without atexit; and this claim would outlive its process."""
    script = tmp_path / "parent.py"
    script.write_text(CHILD.format(url=mutex.url, method=method))
    subprocess.run([sys.executable, str(script)], check=True, timeout=60)
    assert mutex.rows() == []


@pytest.mark.parametrize("handler", ["default", "own"])
def test_sigterm_with_release_releases_and_then_does_what_it_did_before(mutex, handler):
    actor = mutex.actor()
    own = "import signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(42))" if handler == "own" else ""
    actor.run(f"""
{own}
client2 = lockkit.connect(url, on_sigterm="release")
lease = client2.lock(NAME, ttl=60).acquire(40)
""")
    waiter = mutex.waiter()
    actor.process.send_signal(signal.SIGTERM)
    assert actor.wait() == (42 if handler == "own" else -signal.SIGTERM)
    waiter.result(timeout=20.0)
    assert len(mutex.rows()) == 1


def test_sigterm_releases_in_the_middle_of_a_call(mutex):
    """The handler runs between two bytecodes of a thread that may hold any of our mutexes."""
    actor = mutex.actor()
    actor.start("""
client2 = lockkit.connect(url, on_sigterm="release")
lease = client2.lock(NAME, ttl=60).acquire(40)
while True:
    client2.lock("other").acquire(40).release()
""")
    while not mutex.path.exists() or not mutex.rows():
        time.sleep(0.01)
    time.sleep(0.1)
    began = time.monotonic()
    actor.process.send_signal(signal.SIGTERM)
    assert actor.wait() == -signal.SIGTERM
    assert time.monotonic() - began < 20.0
    assert mutex.rows() == []


@pytest.mark.parametrize("ending", ["os._exit(0)", "sys.exit(0)", "raise RuntimeError('crash')"])
def test_s7_a_forked_child_that_ends_takes_nothing_from_its_parent(cast, ending):
    holders = cast.holders(ttl=60)
    code = f"""
child = os.fork()
if child == 0:
    devnull = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2): os.dup2(devnull, descriptor)
    assert not lease.valid()
    assert lease.release().outcome == "KEPT"
    {ending}
os.waitpid(child, 0)
lease.confirm()
result = lease.valid()
"""
    before = cast.rows()
    assert all(holder.run(code) for holder in holders[:1])
    assert cast.rows() == before


def test_s7_a_child_that_outlives_its_parent_does_not_keep_the_claim(cast):
    holders = cast.holders(ttl=60)
    code = """
child = os.fork()
if child == 0:
    devnull = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2): os.dup2(devnull, descriptor)
    time.sleep(30)
    os._exit(0)
result = child
"""
    children = [holder.run(code) for holder in holders]
    waiter = cast.waiter()
    try:
        for holder in holders[: cast.shape.leaves]:
            holder.kill()
        waiter.result(timeout=20.0)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


def test_s7_a_child_that_holds_loses_it_with_its_own_death_not_with_its_parents_life(cast):
    parent = cast.actor()
    left = parent.run("""
client.lock("warm").acquire(40).release()
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    lease = shape.holders[0].lock(client, NAME, ttl=60).acquire(40)
    os.write(writer, str(lease.fence).encode())
    os._exit(0)
os.waitpid(child, 0)
result = int(os.read(reader, 100))
""")
    began = time.monotonic()
    holders = cast.holders(ttl=60)
    assert time.monotonic() - began < 20.0
    assert left not in [fence for _, fence in cast.rows()]
    assert len(cast.rows()) == len(holders)


def test_sigterm_lets_nothing_run_unlocked_while_a_slow_cleanup_is_under_way(mutex):
    """In the user's own code the handler waits for the release, hooks and all; the body does not go on."""
    actor = mutex.actor()
    log = mutex.path.parent / "log"
    actor.start(f"""
import pathlib
class Slow:
    @lockkit.hookimpl
    def lockkit_cleanup(self, context):
        time.sleep(0.8)
        with open({str(log)!r}, "a") as file: file.write(f"cleaned {{context.reason}} {{lease.valid()}} ")
client2 = lockkit.connect(url, plugins=[Slow()], on_sigterm="release")
lease = client2.lock(NAME, ttl=60).acquire(40)
while True:
    time.sleep(0.01)
    if not lease.valid():
        with open({str(log)!r}, "a") as file: file.write("ran unlocked")
""")
    while not mutex.path.exists() or not mutex.rows():
        time.sleep(0.01)
    time.sleep(0.1)
    actor.process.send_signal(signal.SIGTERM)
    assert actor.wait() == -signal.SIGTERM
    assert log.read_text() == "cleaned sigterm True "
    assert mutex.rows() == []
