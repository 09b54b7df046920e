"""A log that blocks or raises stops neither renewals nor losses: handlers and filters are user code."""

from __future__ import annotations

import logging
import os
import threading

import pytest

import lockkit
from lockkit.config.config import load
from lockkit.store import log
from lockkit.store.spi import Refused
from lockkit.store.starting import start
from lockkit.testing.processes import until
from lockkit_memory.backend import MemoryBackend

LONG = 30.0
"""Seconds to wait for what is to happen at once."""
TTL = 1.5


class Quiet(logging.Handler):
    """A handler that writes nothing."""

    def emit(self, record):
        """Write nothing."""


class Blocks(logging.Handler):
    """A handler whose reader stands still."""

    def __init__(self):
        super().__init__()
        self.over = threading.Event()

    def emit(self, record):
        self.over.wait()


class Raises(logging.Filter):
    """A filter that expects of each record what only the records of its program have."""

    def filter(self, record):
        return record.request_id is not None


@pytest.fixture(params=["blocks", "raises"])
def bad_log(request):
    """A handler of the user's that fails."""
    handler = Blocks() if request.param == "blocks" else Quiet()
    if request.param == "raises":
        handler.addFilter(Raises())
    logger = logging.getLogger("lockkit")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    if request.param == "blocks":
        handler.over.set()
    until(lambda: not log.pending(), "what was to be logged is logged")


def test_each_loss_is_told(bad_log):
    told = [threading.Event() for _ in range(5)]
    with lockkit.connect("memory:") as client:
        leases = [
            client.lock(f"n{at}", ttl=0.2, auto_renew=False, on_lost=each.set).acquire()
            for at, each in enumerate(told)
        ]
        for at, (lease, each) in enumerate(zip(leases, told, strict=True)):
            assert each.wait(LONG), f"the loss of n{at} is not told"
            assert lease.lost.is_set()


def test_renewals_go_on_after_some_that_failed(bad_log, monkeypatch):
    renew, answered, failed = MemoryBackend.renew, threading.Event(), []

    def refuse_twice(self, *args, **keywords):
        if len(failed) < 2:
            failed.append(1)
            raise Refused(lockkit.BackendUnavailable("out of order"))
        answer = renew(self, *args, **keywords)
        answered.set()
        return answer

    monkeypatch.setattr(MemoryBackend, "renew", refuse_twice)
    with lockkit.connect(config=load(url="memory:", request_timeout=0.2)) as client:
        lease = client.lock("a", ttl=TTL).acquire()
        assert answered.wait(LONG), "nothing is renewed any more"
        assert not lease.lost.is_set()


def test_the_records_of_own_threads_are_written_in_order_and_with_their_errors(caplog):
    logger = log.Log("lockkit.test")

    def work():
        for number in range(100):
            logger.warning("%d", number)
        try:
            raise ValueError("why")
        except ValueError:
            logger.exception("the last", extra={"lock": "a"})

    start(work, "lockkit-test")
    until(lambda: "the last" in caplog.text, "all is written")
    assert [record.getMessage() for record in caplog.records[:-1]] == [str(number) for number in range(100)]
    last = caplog.records[-1]
    assert (last.lock, last.threadName, last.exc_info[0]) == ("a", "lockkit-test", ValueError)


def test_a_user_sees_at_once_that_the_log_of_a_call_of_his_fails():
    handler = Quiet()
    handler.addFilter(Raises())
    logging.getLogger("lockkit").addHandler(handler)
    try:
        with pytest.raises(AttributeError, match="request_id"):
            log.Log("lockkit.test").error("here")
    finally:
        logging.getLogger("lockkit").removeHandler(handler)


def test_records_are_dropped_and_counted_while_the_log_stands_still(monkeypatch, caplog):
    monkeypatch.setattr(log, "_MOST", 10)
    logger, handler, done = log.Log("lockkit.test"), Blocks(), threading.Event()
    logging.getLogger("lockkit").addHandler(handler)

    def work():
        for number in range(100):
            logger.warning("%d", number)
        done.set()

    try:
        start(work, "lockkit-test")
        assert done.wait(LONG)
    finally:
        logging.getLogger("lockkit").removeHandler(handler)
        handler.over.set()
    until(lambda: "log records were dropped" in caplog.text, "it is said how many are missing")
    until(lambda: not log.pending(), "the rest is written")


def test_a_forked_child_writes_its_own_records_alone():
    handler = Blocks()
    logging.getLogger("lockkit").addHandler(handler)
    read, write = os.pipe()
    try:
        start(lambda: log.Log("lockkit.test").error("of the parent"), "lockkit-test")
        until(log.pending, "the record of the parent waits")
        pid = os.fork()
        if pid == 0:
            written = threading.Event()
            handler.emit = lambda record: (os.write(write, record.getMessage().encode()), written.set())
            start(lambda: log.Log("lockkit.test").error("of the child"), "lockkit-test")
            os._exit(0 if written.wait(LONG) else 1)
        os.close(write)
        assert os.read(read, 100) == b"of the child"
        os.waitpid(pid, 0)
    finally:
        logging.getLogger("lockkit").removeHandler(handler)
        handler.over.set()
        os.close(read)


def test_a_record_of_a_thread_of_lockkits_own_names_the_line_that_wrote_it(caplog):
    start(lambda: log.Log("lockkit").warning("from a thread"), "lockkit-test")
    until(lambda: caplog.records and not log.pending(), "the record is written")
    assert [(record.filename, record.funcName) for record in caplog.records] == [
        ("test_log_that_fails.py", "<lambda>")
    ]
