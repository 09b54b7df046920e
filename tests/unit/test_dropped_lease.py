"""A lease that is dropped while it holds is reported at once, with the file and line that took it."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest

import lockkit
from lockkit.lib.caller import caller, shown
from lockkit.testing.children import in_child
from lockkit.testing.processes import until

pytestmark = pytest.mark.filterwarnings("ignore:the lease of:ResourceWarning")


@pytest.fixture
def client(tmp_path):
    with lockkit.connect(f"memory://{tmp_path.name}", state_dir=str(tmp_path)) as client:
        yield client


def here():
    """This line of the test, as messages show it."""
    return shown(caller())


class Told(logging.Handler):
    """Keeps the messages of one kind of event, and says when there is one."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.records = []
        self.first = threading.Event()

    def emit(self, record):
        if getattr(record, "kind", None) == self.kind:
            self.records.append(record)
            self.first.set()

    @property
    def messages(self):
        return [record.getMessage() for record in self.records]


@pytest.fixture
def told():
    handlers = []

    def of(kind):
        handler = Told(kind)
        handlers.append(handler)
        logging.getLogger("lockkit").addHandler(handler)
        return handler

    yield of
    for handler in handlers:
        logging.getLogger("lockkit").removeHandler(handler)


def settle(client):
    """Have the deadline thread look once, and wait until it has."""
    ticker, done = client.driver().heartbeat._looking, threading.Event()
    turn = ticker._turn

    def once():
        again = turn()
        done.set()
        return again

    ticker._turn = once
    client.driver().heartbeat.look()
    assert done.wait(30)
    ticker._turn = turn


def test_a_dropped_lease_is_logged_at_once_with_its_place_and_what_to_do(client, told):
    dropped = told("dropped")
    place = here(); client.lock("a", ttl=600).acquire()  # fmt: skip  # noqa: E702
    assert dropped.first.wait(30)
    (record,) = dropped.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        f"the lease of 'a', acquired at {place}, was dropped without a release"
    )
    assert "with lock.acquire() as lease" in record.getMessage()
    assert record.claim_id in record.getMessage()
    assert client.inspect("a").holders, "somebody may still work under it"


def test_a_lease_that_an_exit_stack_took_is_named_by_the_place_that_entered_it(client, told):
    lost = told("lost")
    lock = client.lock("a", ttl=600)
    stack = contextlib.ExitStack()
    place = here(); stack.enter_context(lock)  # fmt: skip  # noqa: E702
    lock.lease.simulate_loss()
    with pytest.raises(lockkit.LeaseLost):
        stack.close()
    assert lost.first.wait(30)
    assert f"acquired at {place}, may have lapsed" in lost.messages[0]


def test_the_end_of_its_validity_is_an_error_that_names_the_place_again(client, told):
    dropped, collected = told("dropped"), told("collected")
    place = here(); client.lock("a", ttl=0.3).acquire()  # fmt: skip  # noqa: E702
    assert collected.first.wait(30)
    assert len(dropped.records) == 1
    (record,) = collected.records
    assert record.levelno == logging.ERROR
    assert f"acquired at {place}" in record.getMessage()


def test_a_loss_names_the_place_too(client, told):
    lost = told("lost")
    place = here(); lease = client.lock("a").acquire()  # fmt: skip  # noqa: E702
    client.evict("a", lease.claim_id, reason="test", now=True)
    with pytest.raises(lockkit.LeaseLost):
        lease.confirm()
    assert lost.first.wait(30)
    assert lost.messages[0].startswith(f"the hold of 'a', acquired at {place}, may have lapsed")


def test_what_is_kept_or_released_is_not_reported(client, told, tmp_path):
    dropped = told("dropped")
    lock, kept = client.lock("a", reentrant=True), []
    with lock.acquire() as outer:
        lock.acquire()  # an inner level: the outer one still holds
        assert outer.valid()
    with lock:
        gc.collect()
    with lock, client.lock("b"):
        pass
    lock.acquire().release()
    kept.append(client.lock("detached").acquire().detach())
    client.adopt(client.lock("script", pulseless=True).acquire().hand_over())
    with pytest.raises(ZeroDivisionError), lock.acquire():
        raise ZeroDivisionError
    with lockkit.connect("memory://other", state_dir=str(tmp_path)) as other:
        closed = other.lock("a").acquire()
    del closed, outer
    gc.collect()
    settle(client)
    assert dropped.messages == []
    kept.pop()  # nothing else keeps it
    assert dropped.first.wait(30)


def test_a_dropped_level_ends_the_renewals_although_the_lock_has_the_lease_of_an_outer_one(client):
    """A signal handler that raises ends a ``with lock:`` unreleased; the lock has the lease until reuse."""
    lock = client.lock("a", ttl=0.5, reentrant=True)
    leave = lock.__exit__
    lock.__enter__()
    lock.acquire()
    del leave  # as the statement does at its end

    until(lambda: client.inspect("a").claims == (), "the lock is free")


def test_the_last_level_of_a_reentrant_hold_that_is_dropped_is_the_one_that_is_named(client, told):
    dropped = told("dropped")
    lock = client.lock("a", reentrant=True)
    outer = lock.acquire()
    place = here(); inner = lock.acquire()  # fmt: skip  # noqa: E702
    del outer
    settle(client)
    assert dropped.messages == []
    del inner
    assert dropped.first.wait(30)
    assert f"acquired at {place}" in dropped.messages[0]


def test_a_forked_child_is_silent(client):
    lease = client.lock("a").acquire()

    def child():
        nonlocal lease
        dropped = Told("dropped")
        logging.getLogger("lockkit").addHandler(dropped)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del lease
            gc.collect()
        client.lock("b").acquire().release()
        settle(client)
        assert not caught
        assert not dropped.messages

    in_child(child)
    assert lease.valid()


def test_a_drop_in_a_signal_handler_and_in_the_middle_of_a_log_message_blocks_nobody(client, told):
    """The finalizer takes no mutex: it runs where the thread already has those of logging and of the hold."""
    dropped, leases = told("dropped"), [client.lock("a").acquire(), client.lock("b").acquire()]
    before = signal.signal(signal.SIGUSR1, lambda *_: leases.pop())

    class Dropping(logging.Handler):
        def emit(self, record):
            if leases and getattr(record, "kind", None) is None:
                leases.pop()

    handler = Dropping()
    logging.getLogger("lockkit").addHandler(handler)
    try:
        with leases[0]._hold._mutex:
            os.kill(os.getpid(), signal.SIGUSR1)
        logging.getLogger("lockkit").warning("somebody else's message")
        assert not leases
        until = time.monotonic() + 30
        while len(dropped.records) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert {record.lock for record in dropped.records} == {"a", "b"}
    finally:
        signal.signal(signal.SIGUSR1, before)
        logging.getLogger("lockkit").removeHandler(handler)


def test_a_drop_that_the_deadline_thread_has_not_seen_is_reported_by_the_close(client, told, monkeypatch):
    dropped, lock = told("dropped"), client.lock("a")
    lease = lock.acquire()
    settle(client)
    monkeypatch.setattr(client.driver().heartbeat, "look", lambda: None)
    del lease
    assert dropped.messages == []
    client.close()
    assert len(dropped.messages) == 1


PROGRAM = """
import lockkit
client = lockkit.connect("memory:")
client.lock("x").acquire()
"""


def run(*arguments, text=None, state):
    environment = {**os.environ, "LOCKKIT_STATE_DIR": str(state), "LOCKKIT_CONFIG": os.devnull}
    environment.pop("PYTHONWARNINGS", None)
    return subprocess.run(
        [sys.executable, *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=True,
    )


def test_a_program_that_ends_right_after_the_drop_says_so_too(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    for _ in range(5):
        told = run(str(program), state=tmp_path).stderr
        assert told.count(f"the lease of 'x', acquired at {program}:4, was dropped without a release") == 1


def test_a_program_that_keeps_its_lease_to_the_end_says_nothing(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("client.lock", "lease = client.lock"))
    assert run(str(program), state=tmp_path).stderr == ""


def test_an_interactive_session_says_so_when_its_last_result_is_replaced(tmp_path):
    """The prompt keeps the last result in ``_``, and with it the lease: the lock is held until then."""
    typed = PROGRAM + 'print(client.inspect("x").holders != ())\n1 + 1\nimport time; time.sleep(0.5)\n'
    told = run("-i", "-q", state=tmp_path, text=typed)
    assert "True" in told.stdout
    assert re.search(r"the lease of 'x', acquired at <.*>.*:1, was dropped without a release", told.stderr)


def test_the_collection_of_a_lease_that_is_over_runs_no_code_that_a_signal_handler_could_interrupt(
    client, tmp_path
):
    lock, calls = client.lock("a", reentrant=True), []
    closing = lockkit.connect("memory://closing", state_dir=str(tmp_path))
    with lock.acquire() as outer:
        inner = lock.acquire()
        inner.release()
    leases = [outer, inner, client.lock("b", pulseless=True).acquire(), closing.lock("a").acquire()]
    leases[2].hand_over()
    closing.close()
    del outer, inner
    settle(client)

    sys.setprofile(
        lambda frame, event, arg: calls.append(frame.f_code.co_qualname) if event == "call" else None
    )
    leases.clear()
    sys.setprofile(None)

    assert calls == []
