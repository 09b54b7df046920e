"""A wait for a claim of one's own process is said as such, with the file and line that acquired it."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import lockkit
from lockkit.errors import AcquireTimeout, DeadlockDetected
from lockkit.lib.caller import caller, shown
from lockkit.protocol import attempt


def here():
    return shown(caller())


@pytest.fixture
def lock(lockkit_client):
    return lockkit_client.lock("a")


@pytest.fixture
def other(lockkit_client):
    """The lock of a second client of this process, as a cell of a notebook makes one each time it is run."""
    return lockkit_client.elsewhere.lock("a")


@pytest.mark.parametrize("timeout", [0, 0.1])
def test_an_error_names_the_line_that_holds(lock, other, timeout):
    place = here(); lease = other.acquire()  # fmt: skip  # noqa: E702
    with pytest.raises(
        AcquireTimeout, match=r"held by .*, this very process, which acquired it at"
    ) as caught:
        lock.acquire(timeout=timeout)
    assert f"which acquired it at {place}, " in str(caught.value)
    lease.release()


def test_a_deadlock_names_the_line_that_holds(lock):
    place = here(); lease = lock.acquire()  # fmt: skip  # noqa: E702
    with pytest.raises(DeadlockDetected) as caught:
        lock.acquire()
    assert f"holds 'a', acquired at {place}, and would wait for itself" in str(caught.value)
    lease.release()


def test_a_thread_of_a_pool_that_acquires_for_another_task_is_told_to_detach(lock):
    with ThreadPoolExecutor(1) as pool:
        lease = pool.submit(lock.acquire).result()
        with pytest.raises(DeadlockDetected) as caught:
            pool.submit(lock.acquire).result()
        assert "call lease.detach() right after the acquire" in str(caught.value)
        assert "a thread of a pool (asyncio.to_thread)" in str(caught.value)
        lease.detach()
        with pytest.raises(AcquireTimeout):
            pool.submit(lock.acquire, timeout=0.1).result()
        lease.release()


def test_a_thread_is_not_taken_for_an_earlier_one_that_has_ended(lock):
    leases, raised = [], []

    def take():
        try:
            leases.append(lock.acquire(timeout=0.1))
        except AcquireTimeout as error:
            raised.append(error)

    for _ in range(2):
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    assert len(leases) == len(raised) == 1
    leases[0].release()


def test_a_long_wait_says_so_in_the_log(lock, other, monkeypatch, caplog):
    monkeypatch.setattr(attempt, "FIRST_WARNING", 0.0)
    place = here(); lease = other.acquire()  # fmt: skip  # noqa: E702
    with caplog.at_level(logging.INFO, "lockkit"), pytest.raises(AcquireTimeout):
        lock.acquire(timeout=0.2)
    told = [record.getMessage() for record in caplog.records]
    assert [
        text
        for text in told
        if text.startswith("gave up the wait") and f"this very process, which acquired it at {place}" in text
    ]
    lease.release()


def test_a_skipped_call_says_so_in_the_log(lockkit_client, other, caplog):
    @lockkit_client.locked("a", timeout=0, on_busy="skip")
    def job():
        raise AssertionError("the lock is held")

    place = here(); lease = other.acquire()  # fmt: skip  # noqa: E702
    with caplog.at_level(logging.INFO, "lockkit"):
        assert not job()
    assert f"this very process, which acquired it at {place}" in caplog.text
    lease.release()


def test_another_process_is_not_said_to_be_this_one(tmp_path):
    text = """
import sys, lockkit
lease = lockkit.connect("sqlite:", state_dir=sys.argv[1]).lock("a").acquire()
print("held", flush=True)
sys.stdin.readline()
"""
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", text, str(tmp_path)]
    with (
        lockkit.connect("sqlite:", state_dir=str(tmp_path)) as client,
        subprocess.Popen(command, **pipe) as child,
    ):
        assert child.stdout.readline() == "held\n"
        with pytest.raises(AcquireTimeout, match="held by") as caught:
            client.lock("a").acquire(timeout=0)
        child.communicate("\n", timeout=30)
    assert "this very process" not in str(caught.value)
