"""``lease.on_release``: callbacks in the first layer of a release, on the memory store."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
import weakref

import pytest

import lockkit
import lockkit.aio
from lockkit.drivers.cleanup import Overruns, hooks_of
from lockkit.errors import ConfigError, LeaseLost, NotHeld
from lockkit.facts import CleanupContext
from lockkit.gpu.cleanup import lockkit_cleanup


class Plugin:
    """A plugin whose cleanup hook notes that it was called."""

    def __init__(self, order):
        self.order = order

    @lockkit.hookimpl
    def lockkit_cleanup(self, context):
        self.order.append(("plugin", context.name, context.overrun))


@pytest.fixture
def order():
    return []


@pytest.fixture
def client(order):
    with lockkit.connect(
        f"memory://{os.urandom(8).hex()}", plugins=[Plugin(order)], cleanup_budget=0.2
    ) as client:
        yield client


def hooks(report):
    return [(hook.plugin, hook.outcome, hook.error) for hook in report.layers[0].hooks]


def test_callbacks_run_before_plugins_while_the_lock_is_held(client, order):
    lease = client.lock("a").acquire()
    lease.on_release(lambda context: order.append((context, lease.valid(), client.inspect("a").holders)))
    lease.on_release(lambda context: order.append(context.reason))

    report = lease.release("done")

    (context, valid, holders), reason, plugin = order
    assert isinstance(context, CleanupContext)
    assert (context.name, context.claim_id, context.lost, valid) == ("a", lease.claim_id, False, True)
    assert holders
    assert (reason, plugin) == ("done", ("plugin", "a", ()))
    assert [name for name, _, _ in hooks(report)] == ["on_release", "on_release 2", "Plugin"]
    assert report.outcome == "RELEASED"


def test_a_callback_that_raises_is_reported_and_stops_nothing(client, order, caplog):
    with client.lock("a").acquire() as lease:
        lease.on_release(lambda context: 1 / 0)
        lease.on_release(lambda context: order.append(context.name))

    assert order == ["a", ("plugin", "a", ())]
    assert hooks(lease.report)[:2] == [
        ("on_release", "FAILED", "ZeroDivisionError: division by zero"),
        ("on_release 2", "DONE", None),
    ]
    assert lease.report.outcome == "RELEASED"
    assert "the cleanup hook 'on_release' failed" in caplog.text


def test_callbacks_that_hang_are_left_and_never_disabled(client, order):
    stop = threading.Event()

    def hang(context):
        stop.wait(60)

    try:
        for _ in range(4):  # a plugin is disabled after its second overrun
            lease = client.lock("a").acquire()
            lease.on_release(hang)
            report = lease.release()
            assert hooks(report)[0] == ("on_release", "RUNNING", "still running")
            assert report.outcome == "RELEASED"
        assert order == [("plugin", "a", ("on_release",))] * 4
    finally:
        stop.set()


def test_a_lease_that_is_released_by_the_end_of_its_client_calls_back(order):
    with lockkit.connect(f"memory://{os.urandom(8).hex()}") as client:
        lease = client.lock("a").acquire()
        lease.on_release(lambda context: order.append(context.reason))
    assert order == ["exit"]
    assert lease.report.released


def test_a_lost_hold_calls_back_and_says_so(client, order):
    lease = client.lock("a").acquire()
    lease.on_release(lambda context: order.append(context.lost))
    lease.simulate_loss()
    lease.release()
    assert order[0] is True


def test_callbacks_of_all_levels_of_a_reentrant_hold_run_at_the_end(client, order):
    lock = client.lock("a", reentrant=True)
    outer = lock.acquire()
    inner = lock.acquire()
    outer.on_release(lambda context: order.append("outer"))
    inner.on_release(lambda context: order.append("inner"))
    inner.release()
    del inner
    gc.collect()
    assert order == []
    outer.release()
    assert order == ["inner", "outer", ("plugin", "a", ())]


def test_a_lease_that_only_its_callback_refers_to_is_collected(client):
    class Job:
        def __init__(self):
            self.lease = client.lock("a").acquire()
            self.lease.on_release(self.stop)

        def stop(self, context):
            raise AssertionError(context)

    gone = weakref.ref(Job())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    assert gone() is None


@pytest.mark.parametrize("callback", [None, 4, "f"])
def test_what_is_no_function_is_refused(client, callback):
    with client.lock("a").acquire() as lease, pytest.raises(ConfigError, match="on_release takes a function"):
        lease.on_release(callback)
    with (
        client.all_of([client.lock("a"), client.lock("b")]).acquire() as leases,
        pytest.raises(ConfigError, match="on_release takes a function"),
    ):
        leases.on_release(callback)


def test_a_coroutine_function_is_refused(client):
    async def later(context):
        raise AssertionError(context)

    with client.lock("a").acquire() as lease, pytest.raises(ConfigError, match="must be a plain function"):
        lease.on_release(later)


def test_a_lease_that_is_over_takes_no_callback(client):
    lease = client.lock("a").acquire()
    lease.release()
    with pytest.raises(NotHeld):
        lease.on_release(print)
    lost = client.lock("a").acquire()
    lost.simulate_loss()
    with pytest.raises(LeaseLost):
        lost.on_release(print)
    lost.release()


def test_a_callback_of_several_locks_runs_once_before_any_of_them_is_released(client, order):
    def note(context):
        order.append((context.name, [bool(client.inspect(name).holders) for name in "abc"]))

    leases = client.all_of([client.lock(name) for name in "abc"]).acquire()
    leases.on_release(note)
    leases.release()
    assert [one for one in order if one[0] != "plugin"] == [("c", [True] * 3)]


def test_under_asyncio_a_callback_of_several_locks_holds_up_all_of_them():
    seen = []

    async def main():
        client = lockkit.aio.connect(f"memory://{os.urandom(8).hex()}")
        others = threading.Event()

        def note(context):
            others.wait(0.3)  # time for the others, if they did not wait
            seen.append([bool(client._client.inspect(name).holders) for name in "abc"])

        async with client:
            async with client.lock("z").acquire() as lease:
                lease.on_release(lambda context: seen.append(context.name))
            async with client.all_of([client.lock(name) for name in "abc"]).acquire() as leases:
                leases.on_release(note)
            assert all(report.released for report in leases.report.reports)

    asyncio.run(main())
    assert seen == ["z", [True] * 3]


class Behind:
    """The GPU behind a lock."""

    devices = ("GPU-1",)


def test_plain_locks_do_not_pay_for_hooks_that_are_for_devices(order):
    from lockkit.plugins.calling import only_for_devices

    class Gpus:
        @lockkit.hookimpl
        @only_for_devices
        def lockkit_cleanup(self, context):
            order.append(context.devices)

    with lockkit.connect(f"memory://{os.urandom(8).hex()}", plugins=[Gpus()]) as client:
        plain = client.lock("a").acquire().release()
        lease = client.lock("b").acquire()
        lease.stands_for(Behind())
        lease.release()
    assert [layer.layer for layer in plain.layers] == ["normal"]
    assert order == [("GPU-1",)]


@pytest.mark.parametrize("kind, disabled", [("callback", False), ("devices", False), ("plugin", True)])
def test_only_a_plugin_that_ends_by_nothing_else_is_switched_off(kind, disabled):
    """A store's two slow releases say nothing about the next one, and a callback is called once."""
    with lockkit.connect(f"memory://{os.urandom(8).hex()}") as client:
        lease = client.lock("a").acquire()
        hold = lease._hold
        if kind == "callback":
            lease.on_release(print)
        hold.behind = Behind()
        plugins = {"callback": (), "devices": [("gpus", lockkit_cleanup)], "plugin": [("other", print)]}
        (hook,) = hooks_of(hold, plugins[kind])
        overruns = Overruns()
        overruns.note(hook)
        overruns.note(hook)
        assert overruns.disabled(hook) is disabled
        lease.release()
