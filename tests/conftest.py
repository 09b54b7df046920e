"""Hypothesis profiles. Each failure prints a line that repeats it: `@reproduce_failure(...)`."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from support.locked import MAIN, constrained_by, unlike

# Real stores answer when they answer: pytest-timeout guards against hanging, so no deadline per example.
settings.register_profile(
    "lockkit",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly",
    settings.get_profile("lockkit"),
    max_examples=5_000,
    stateful_step_count=100,
)
settings.register_profile(
    "long",
    settings.get_profile("lockkit"),
    max_examples=500,
    stateful_step_count=50,
)
settings.register_profile(
    "brief",
    settings.get_profile("lockkit"),
    max_examples=25,
    stateful_step_count=50,
)
settings.load_profile("lockkit")

# `nohup` ignores SIGHUP, a shell's background jobs SIGINT and SIGQUIT: so would all that the tests start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse an environment of tox that is older than the versions in tests/locked, or differs from them."""
    file = constrained_by()
    others = unlike(file) if file is not None and not hasattr(config, "workerinput") else []
    if others:
        raise pytest.UsageError(
            "\n".join(
                [
                    *others,
                    "make the environment anew (tox run --recreate), or the locked versions (make lock)",
                ]
            )
        )


@contextlib.contextmanager
def _after_the_first() -> Iterator[None]:
    """Let one worker of xdist collect first: on a fresh clone it compiles for 10 s what all of them load."""
    with Path(__file__).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector away from pytest's own test objects, which last as long as the process.

    That is 400,000 objects for the suite: each ``gc.collect()`` would visit them for a quarter of a second.
    """
    gc.disable()
    try:
        with _after_the_first():
            return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _collector_away_from_what_is_there() -> None:
    """Keep it away, too, from the leftovers of earlier files' tests: modules, and the caches of libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it would be told of the first test of this file
        gc.collect()
    gc.freeze()


OF_ONE_CLAIM = ("S3", "S5", "S6", "S8", "S9", "S10", "S11", "L4", "L6")
"""Guarantees about one claim, its time and its hooks, not its neighbours in the queue: a mutex is enough."""

OF_THE_FORM = ("L4-interrupted-exit-stack", "L4-interrupted-levels", "L4-interrupted-short-form")
"""Interruptions of forms of ``with`` that ask a store for nothing that the others do not."""


def _leave_to_full(items: list[pytest.Item]) -> None:
    """Leave to ``make full`` a second Ctrl-C, more kinds of lock, and on servers more forms of ``with``."""
    seen = set()
    for item in items:
        scenario = getattr(item, "scenario", None)
        if scenario is not None:
            again = (item.parent, scenario.name) in seen
            seen.add((item.parent, scenario.name))
            server = item.path.stem not in ("test_memory", "test_sqlite")
            if (
                scenario.name.endswith("-twice")
                or (again and scenario.guarantee in OF_ONE_CLAIM)
                or (server and scenario.name in OF_THE_FORM)
            ):
                item.add_marker(pytest.mark.full)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Leave the names of the tests that failed, each with its output, where ``.ci/again`` looks for them.

    And name each package that is installed in another version than tests/locked has: that may be why.
    """
    reports = [*terminalreporter.stats.get("failed", []), *terminalreporter.stats.get("error", [])]
    file = constrained_by() or MAIN
    others = unlike(file) if reports else []
    if others:
        terminalreporter.section(f"not as in {file.relative_to(file.parents[2])}")
        terminalreporter.write("".join(f"VERSION {each}\n" for each in others))
    if "RED_TESTS" in os.environ:
        red = {each.nodeid: f"{each.longreprtext}\n{each.capstdout}{each.capstderr}" for each in reports}
        Path(os.environ["RED_TESTS"]).write_text(json.dumps(red))


@pytest.hookimpl(tryfirst=True)  # before ``-m`` chooses by the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is for ``make full``, and start with the state machines, which last long, in parallel."""
    _leave_to_full(items)
    items.sort(key=lambda item: not item.name.endswith("-machine"))  # lockkit may not be installed


def _written() -> None:
    """Wait until what lockkit's own threads log is written, or the next test would find it."""
    log = sys.modules.get("lockkit.store.log")  # lockkit may not be installed
    end = time.monotonic() + 30.0
    while log is not None and log.pending() and time.monotonic() < end:
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Undo what an in-process command did to logging, or ``caplog`` would see nothing in later tests."""
    logger = logging.getLogger("lockkit")
    handlers, propagate, level = [*logger.handlers], logger.propagate, logger.level
    yield
    _written()
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


class _CaughtUp(pytest.LogCaptureFixture):
    """The log, with the records of lockkit's own threads: another thread hands them over a moment later."""

    @property
    def handler(self) -> Any:
        """The handler that keeps the records."""
        _written()
        return super().handler


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Wait for the log where it is read."""
    caplog.__class__ = _CaughtUp
    return caplog


SETTINGS, STORE = Path("/etc/lockkit"), Path("/var/lib/lockkit")
"""The folders of this machine's administrator, by which its programs find their store."""


def _administrators() -> dict[str, tuple[int, int]]:
    """The administrator's files as they are, and whether the store's folder, which others may use, exists."""
    paths = (SETTINGS, *SETTINGS.iterdir()) if SETTINGS.is_dir() else ()
    found = {str(path): (seen.st_ino, seen.st_ctime_ns) for path in paths for seen in (path.lstat(),)}
    return found | ({str(STORE): (STORE.stat().st_ino, 0)} if STORE.exists() else {})


@pytest.fixture(autouse=True)
def _system_as_it_was() -> Iterator[None]:
    """Fail a test during which this machine's own settings changed, as root could change them for others."""
    before = _administrators()
    yield
    told = "the test, or one that ran beside it, wrote to the folders of this machine's administrator"
    assert _administrators() == before, told


@pytest.fixture(autouse=True)
def _no_memory_store_of_another_test() -> Iterator[None]:
    """Hide the last test's ``memory:`` store, which lasts as long as any client that was not closed."""
    yield
    memory = sys.modules.get("lockkit_memory.store")  # lockkit may not be installed
    if memory is not None:
        memory.SHARED.forget()


@pytest.fixture
def slow_memory_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory store that takes a millisecond per acquire, so that requests of clients and tasks mix."""
    from lockkit_memory.backend import MemoryBackend

    acquire = MemoryBackend.acquire

    def slowly(self: MemoryBackend, *args: Any) -> object:
        time.sleep(0.001)
        return acquire(self, *args)

    monkeypatch.setattr(MemoryBackend, "acquire", slowly)
