"""A signal handler or hook that closes the client it interrupted: neither waits for the other."""

from __future__ import annotations

import threading

import pytest

import lockkit
from lockkit.errors import AcquireCancelled
from support.handlers import Handler

LONG = 20.0
"""Seconds to wait for what is to happen within one or two."""


def in_time(call):
    """Return the result of a call, on a thread of its own."""
    given = []
    thread = threading.Thread(target=lambda: given.append([call()]), daemon=True)
    thread.start()
    thread.join(LONG)
    assert given, "it hangs"
    return given[0][0]


class Cleans:
    def __init__(self):
        self.cleaned = []

    @lockkit.hookimpl
    def lockkit_cleanup(self, context):
        self.cleaned.append(context.name)


@pytest.mark.parametrize(
    "function, file, at",
    [("release", "drivers/releases.py", n) for n in (1, 2, 3)]
    + [("releasing", "releasing.py", n) for n in (1, 2, 3)]
    + [("report", "cleanup.py", 1), ("release", "lockkit_memory/backend.py", 1)],
)
def test_a_handler_that_closes_in_the_middle_of_a_release_returns_and_the_release_goes_on(
    tmp_path, function, file, at
):
    plugin = Cleans()
    client = lockkit.connect("memory://closes", plugins=[plugin], state_dir=str(tmp_path))
    lease = client.lock("a").acquire()
    handler = Handler(at, client.close, function, file)

    def release():
        with handler:
            return lease.release().outcome

    try:
        assert in_time(release) == "RELEASED"
    finally:
        in_time(client.close)
    assert handler.where
    assert plugin.cleaned == ["a"]
    with pytest.raises(AcquireCancelled):
        client.lock("a").acquire()


def test_a_handler_that_closes_while_its_thread_waits_returns_and_the_wait_ends(tmp_path):
    url = f"sqlite:{tmp_path}/locks.db"
    with lockkit.connect(url) as other, other.lock("a").acquire():
        client = lockkit.connect(url)
        handler = Handler(1, client.close, "wait", "drivers/waits.py")

        def acquire():
            with handler:
                try:
                    client.lock("a").acquire()
                except AcquireCancelled:
                    return "cancelled"

        assert in_time(acquire) == "cancelled"
        assert handler.where
        in_time(client.close)
        assert len(other.inspect("a").claims) == 1


def test_close_called_where_nothing_of_lockkit_is_interrupted_waits_for_slow_hooks(tmp_path):
    go, began = threading.Event(), threading.Event()

    class Slow:
        @lockkit.hookimpl
        def lockkit_cleanup(self, context):
            began.set()
            go.wait(LONG)

    client = lockkit.connect("memory://closes", plugins=[Slow()], state_dir=str(tmp_path))
    lease = client.lock("a").acquire()
    thread = threading.Thread(target=client.close)
    thread.start()
    assert began.wait(LONG)
    thread.join(0.5)
    assert thread.is_alive()
    go.set()
    thread.join(LONG)
    assert lease.report.outcome == "RELEASED"


def test_a_handler_releases_the_lease_whose_release_it_interrupted(tmp_path):
    with lockkit.connect("memory://closes", state_dir=str(tmp_path)) as client:
        for at in range(1, 100):
            lease, told = client.lock("a").acquire(), []
            handler = Handler(
                at,
                lambda lease=lease, told=told: told.append(lease.release().outcome),
                "release",
                "drivers/releases.py",
            )

            def release(lease=lease, handler=handler):
                with handler:
                    return lease.release().outcome

            assert in_time(release) == "RELEASED"
            if not handler.where:
                break
            assert told[0] in ("RELEASED", "KEPT"), at  # KEPT: the interrupted code releases it
        assert at > 2
