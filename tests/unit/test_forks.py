"""Forks during other work: mutexes that another thread holds, child threads that race for the client."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

import lockkit
from lockkit.lib.forks import IMPORTS, Forks, executing
from lockkit.lib.mutex import Mutex
from lockkit.plugins import PluginManager
from lockkit.testing.children import in_child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
_SOON = 25.0


@pytest.fixture
def held_elsewhere():
    """Has another thread hold a mutex for the time of the test."""
    over, threads = threading.Event(), []

    def hold(mutex):
        held = threading.Event()

        def keep():
            with mutex.of_this_process():
                held.set()
                over.wait(30.0)

        threads.append(threading.Thread(target=keep))
        threads[-1].start()
        assert held.wait(_SOON)

    yield hold
    over.set()
    for thread in threads:
        thread.join()


def in_time(call):
    """Return the result of a call on a thread of its own; None if it hangs."""
    given = []
    thread = threading.Thread(target=lambda: given.append(call()), daemon=True)
    thread.start()
    thread.join(_SOON)
    return given[0] if given else None


def test_a_mutex_that_another_thread_holds_is_free_in_the_child(held_elsewhere):
    mutex = Mutex()
    held_elsewhere(mutex)

    def locked():
        with mutex.of_this_process():
            return "free"

    assert in_child(lambda: in_time(locked)) == "free"


def test_a_fork_for_an_exec_takes_no_step_and_frees_the_mutexes():
    """Break it by leaving out one of the three looks at ``_EXECUTING`` in ``Forks``."""
    steps, mutex = [], threading.RLock()
    forks = Forks(
        before=lambda: steps.append("before"),
        in_parent=lambda: steps.append("in parent"),
        in_child=lambda: steps.append("in child"),
        locks=(mutex,),
    )

    def free():
        with mutex:
            return True

    with executing():
        there = in_child(lambda: (list(steps), in_time(free)))
    here = list(steps), in_time(free), forks.under_way()
    assert there == [[], True]
    assert here == ([], True, False)
    assert set(in_child(lambda: list(steps))) == {"before", "in child"}
    assert set(steps) == {"before", "in parent"}


def test_a_plugin_manager_works_in_the_child_whoever_used_it_in_the_parent(held_elsewhere):
    manager = PluginManager()
    held_elsewhere(manager._mutex)

    class Plugin:
        @lockkit.hookimpl
        def lockkit_event(self, event):
            """Hears."""

    assert in_child(lambda: in_time(lambda: manager.register(Plugin(), "mine"))) == "mine"


def test_threads_that_race_after_a_fork_all_get_one_engine_and_never_the_parents():
    client = lockkit.connect("memory:")
    parents = client.driver()

    def race():
        sys.setswitchinterval(1e-6)
        gate, got = threading.Barrier(8), []

        def use():
            gate.wait(_SOON)
            got.append(client.driver())

        threads = [threading.Thread(target=use, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_SOON)
        return [len(got), len(set(got)), parents in got]

    assert all(in_child(race) == [8, 1, False] for _ in range(40))
    client.close()


def test_a_thread_never_gets_the_parents_engine_however_far_another_one_came_with_putting_it_aside():
    client = lockkit.connect("memory:")
    parents = client.driver()

    def half_way():
        client._pid = os.getpid()
        return client.driver() is parents

    assert in_child(half_way) is False
    client.close()


IMPORTING = """
import os, signal, sys, threading
import lockkit

client = lockkit.connect(sys.argv[1])
importing = threading.Event()


class Slow:
    def find_spec(self, name, path, target=None):
        if name == sys.argv[2] + ".backend":
            importing.set()
            threading.Event().wait(0.5)  # a fork now leaves the child the lock of this module


sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=lambda: client.lock("a").acquire(timeout=30).release())
thread.start()
importing.wait(30)
if child := os.fork():
    thread.join()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(40)
client.lock("b").acquire(timeout=30).release()
os._exit(0)
"""


@pytest.mark.parametrize("url, module", [("memory:", "lockkit_memory"), ("sqlite:{}", "lockkit_sqlite")])
def test_a_child_uses_a_store_that_another_thread_was_importing_at_the_fork(url, module, tmp_path):
    # CPython warns of forks beside threads.
    run = [sys.executable, "-W", "ignore", "-c", IMPORTING, url.format(tmp_path / "locks.db"), module]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")


_IMPORTS_AND_LOGS = """
import os, threading, time
import lockkit
from lockkit.lib import forks
{before}
with lockkit.connect("memory:"):
    pass
import logging
held, ended = threading.Event(), []

def importing():
    with forks.IMPORTS:
        held.set()
        while not forks._FORKING:
            time.sleep(0.001)
        time.sleep(0.1)  # let the fork come to where it waits
        logging.getLogger("of a module that is imported now")
        ended.append("logged while the fork waited" if forks._FORKING else "logged after the fork")

thread = threading.Thread(target=importing)
thread.start()
held.wait()
if os.fork() == 0:
    with forks.IMPORTS:  # free in the child
        logging.getLogger("of the child")
    os._exit(0)
thread.join()
with forks.IMPORTS:
    print(*ended, os.waitstatus_to_exitcode(os.wait()[1]), forks._FORKING)
"""


@pytest.mark.parametrize("before", ["", "import logging"], ids=["logging late", "logging first"])
def test_a_fork_that_waits_for_an_import_does_not_hold_the_lock_of_logging(before):
    """Break it by omitting ``_register_imports`` in ``after_logging``: both wait for five seconds."""
    done = subprocess.run(
        # From 3.12 on Python warns of a fork beside threads.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _IMPORTS_AND_LOGS.format(before=before)],
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.stdout, done.stderr) == ("logged while the fork waited 0 []\n", "")


_REGISTERS_BESIDE_A_FORK = """
import os, threading
import lockkit
from lockkit.lib import forks
import logging  # now: hooks of its own, registered beside a fork, make Python complain, too

mutex, held, forking = threading.RLock(), threading.Event(), threading.Event()
ran = set()
forks.Forks(before=lambda: None, locks=(mutex,))
forks.Forks(before=forking.set)

def register():
    with {mutex}:  # the fork waits for it
        held.set()
        forking.wait()
        {registers}

thread = threading.Thread(target=register)
thread.start()
held.wait()
beside = os.fork()
if beside == 0:
    os._exit(len(ran))
thread.join()
assert not forks._FORKING and not forks._LATE
later = os.fork()
if later == 0:
    os._exit(10 * len(ran))
print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in (beside, later)))
"""


@pytest.mark.parametrize(
    "mutex, registers, ended",
    [
        ("mutex", "forks.Forks(before=lambda: None, in_child=lambda: ran.add(1))", "1 10\n"),
        ("forks.IMPORTS", "forks.after_logging()", "0 0\n"),
    ],
    ids=["a module", "logging"],
)
def test_hooks_that_are_registered_while_a_fork_waits_for_a_mutex_leave_that_fork_alone(
    mutex, registers, ended
):
    script = _REGISTERS_BESIDE_A_FORK.format(mutex=mutex, registers=registers)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.stdout, done.stderr) == (ended, "")


def test_a_handler_may_fork_while_its_own_thread_imports():
    child = None
    try:
        with IMPORTS:
            child = os.fork()
        with IMPORTS:
            pass
    finally:
        if child == 0:
            os._exit(1 if sys.exc_info()[0] else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


EARLIER = """
import os, sys
client = None


def lock():
    if client is not None:
        with client.lock("x").acquire(timeout=40) as lease:
            said.append(lease.valid())


said = []
os.register_at_fork(after_in_child=lock)
import lockkit

client = lockkit.connect(sys.argv[1])
client.lock("x").acquire().release()
pid = os.fork()
if pid == 0:
    lock()
    os._exit(0 if said == [True, True] else 1)
client.lock("x").acquire(timeout=40).release()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
client.close()
"""


@pytest.mark.parametrize("store", ["memory:", "sqlite"])
def test_a_hook_that_was_registered_earlier_opens_a_store_that_the_child_keeps(store, tmp_path):
    url = store if store == "memory:" else f"sqlite:{tmp_path}/locks.db"
    done = subprocess.run(
        [sys.executable, "-c", EARLIER, url], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.stdout == "0\n", done.stdout + done.stderr
