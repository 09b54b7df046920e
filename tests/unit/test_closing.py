"""A client that is closed while a thread of it asks for a lock."""

from __future__ import annotations

import threading
import time
from functools import partial
from types import FrameType

import pytest

import lockkit
from lockkit.drivers import orphans
from lockkit.errors import AcquireCancelled
from lockkit.store.spi import BackendSpec
from lockkit.testing.interrupts import Bomb, CtrlC
from lockkit.testing.processes import until
from lockkit_memory import CAPABILITIES
from lockkit_memory.backend import open_store


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/locks.db"


def test_what_is_granted_while_the_client_closes_is_not_left_held(url, monkeypatch):
    client = lockkit.connect(url)
    store = client.driver().backend
    acquire, granted, heard, ended = store.acquire, threading.Event(), threading.Event(), []

    def slow(*args):
        answer = acquire(*args)
        granted.set()
        heard.wait(30.0)
        return answer

    def ask():
        try:
            client.lock("a").acquire()
        except AcquireCancelled as error:
            ended.append(error)

    monkeypatch.setattr(store, "acquire", slow)
    thread = threading.Thread(target=ask)
    thread.start()
    assert granted.wait(30.0)
    threading.Timer(0.1, heard.set).start()
    client.close()
    thread.join(30.0)

    with lockkit.connect(url) as other:
        assert other.inspect("a").claims == ()
    assert len(ended) == 1


def test_who_asks_a_driver_that_is_closed_is_refused_before_anything_is_sent(url, monkeypatch):
    client = lockkit.connect(url)
    driver = client.driver()
    lock = client.lock("a")
    monkeypatch.setattr(driver.backend, "acquire", None)
    driver.beats.closing = True
    with pytest.raises(AcquireCancelled, match="is closed"):
        lock.acquire()
    client.close()


class Strikes(Bomb):
    """Calls something that may raise, at one place of a driver's function, or at each of its starts."""

    def __init__(self, function: str, call, at: int = 0) -> None:
        super().__init__(1 << 30)
        self._function, self._call, self._at = function, call, at
        self._frame: FrameType | None = None

    def _place(self, frame: FrameType) -> None:
        code = frame.f_code
        if code.co_name != self._function or not code.co_filename.endswith(
            ("drivers/threads.py", "drivers/releases.py")
        ):
            return
        begins, self._frame = frame is not self._frame, frame
        self.seen += 1 if self._at or begins else 0
        if self.seen == self._at or (begins and not self._at):
            self.where = code.co_name
            if self._at:
                self.__exit__()
            self._call()


def test_a_waiter_that_is_late_to_take_its_claim_back_is_waited_for(url, monkeypatch):
    with lockkit.connect(url) as other, other.lock("a").acquire():
        client = lockkit.connect(url)
        driver = client.driver()
        take_back, waiting, closed = driver.take_back, threading.Event(), threading.Event()

        def late(attempt):
            closed.wait(0.3)
            take_back(attempt)

        def wait():
            with pytest.raises(AcquireCancelled):
                client.lock("a").acquire(on_wait=lambda _: waiting.set())

        monkeypatch.setattr(driver, "take_back", late)
        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.wait(30.0)
        client.close()
        closed.set()
        assert len(other.inspect("a").claims) == 1
        thread.join()


@pytest.mark.parametrize("closes", [True, False])
def test_a_close_or_the_background_takes_back_what_two_signals_kept_an_acquire_from_taking_back(url, closes):
    client = lockkit.connect(url)
    lock = client.lock("a")
    lock.acquire().release()

    def strike():
        raise CtrlC

    # Both calls of take_back, the one of the driver and the one of the lock, end at their very beginning.
    strikes = Strikes("take_back", strike)
    sent = client.driver().backend.acquire

    def granted(*args):
        sent(*args)
        raise CtrlC

    client.driver().backend.acquire = granted
    with pytest.raises(CtrlC), strikes:
        lock.acquire(timeout=1)
    assert strikes.seen == 2
    if closes:
        client.close()
    with lockkit.connect(url) as other:
        end = time.monotonic() + (0.0 if closes else 10.0)
        while other.inspect("a").claims:
            assert time.monotonic() < end
            time.sleep(0.01)
    client.close()


def strike_while_closing(closing, driver):
    closing.start()
    while driver.ending._closing is None or not driver.ending._closing._begun:
        time.sleep(0.001)
    time.sleep(0.02)  # until it has seen that a thread releases; that thread does no more after this
    raise CtrlC


def test_a_close_goes_on_with_a_release_that_a_signal_cuts_short_after_it_has_begun():
    class Cleans:
        def __init__(self):
            self.cleaned = []

        @lockkit.hookimpl
        def lockkit_cleanup(self, context):
            self.cleaned.append(context.name)

    for at in range(1, 100):
        plugin = Cleans()
        client = lockkit.connect("memory://closing", plugins=[plugin])
        lease = client.lock("a").acquire()
        closing = threading.Thread(target=client.close)

        strike = Strikes("release", partial(strike_while_closing, closing, client.driver()), at)
        try:
            with strike:
                lease.release()
        except CtrlC:
            pass
        if not strike.where:
            client.close()
            break
        closing.join(30.0)
        assert plugin.cleaned == ["a"], at
        assert lease.report.outcome == "RELEASED", at
    assert at > 1


class Odd:
    """A plugin whose store raises what no store may raise."""

    def __init__(self, *methods):
        self._methods = methods

    @lockkit.hookimpl
    def lockkit_backends(self):
        return [BackendSpec("odd", ("odd",), self.open, "is odd", CAPABILITIES)]

    @lockkit.hookimpl
    def lockkit_event(self, event):
        pass

    def open(self, url, options):
        backend = open_store("memory://odd", options)

        def raises(*args, **keywords):
            raise ValueError("odd")

        for method in self._methods:
            setattr(backend, method, raises)
        return backend


@pytest.mark.parametrize("methods", [("close",), ("release", "emergency_release", "abandon")])
def test_a_store_that_raises_an_odd_error_at_the_end_leaves_no_thread_for_good(methods, caplog, monkeypatch):
    monkeypatch.setattr(orphans, "_SLACK", 0.1)
    before = set(threading.enumerate())
    client = lockkit.connect("odd://here", plugins=[Odd(*methods)])
    lease = client.lock("a", ttl=0.5).acquire()
    client.close()
    assert not lease.valid()
    end = time.monotonic() + 20.0
    while left := set(threading.enumerate()) - before:
        assert time.monotonic() < end, left
        time.sleep(0.01)
    until(lambda: "odd" in caplog.text, "the error is logged")
