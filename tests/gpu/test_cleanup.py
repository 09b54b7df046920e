"""The cleanup of a card at its release and the next holder's receipt: simulated cards, real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from types import ModuleType, SimpleNamespace

import pytest

import lockkit
import lockkit.aio
import lockkit.gpu
import lockkit.gpu.aio
from lockkit.errors import AcquireTimeout
from lockkit.gpu.devices import BasicProvider, Device, Snapshot
from lockkit.gpu.frameworks import hanging
from lockkit.gpu.host_pools import simulated
from lockkit.gpu.quarantine import quarantined
from lockkit.gpu.receipts import last
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.notes.members import pool_name
from lockkit.testing.processes import until
from lockkit.values.identity import look_at
from lockkit.values.sizes import GIB
from support.programs import programs

HOST = os.uname().nodename
SIMULATED = simulated(HOST)
CARDS = [card.uuid for card in SimulatedProvider(4).snapshot().devices]
GRIM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
)


class Alerts:
    """A plugin that keeps the alerts about cards."""

    def __init__(self):
        self.seen = []

    @lockkit.hookimpl
    def lockkit_alert(self, alert):
        if alert.kind.startswith(("gpu_", "cleanup_")):
            self.seen.append(alert)

    def kinds(self, client):
        client.driver().dispatcher.flush(10)
        return [(alert.kind, alert.priority) for alert in self.seen]


@pytest.fixture
def alerts():
    return Alerts()


@pytest.fixture
def url():
    return f"memory://{os.urandom(8).hex()}"


@pytest.fixture
def client(tmp_path, monkeypatch, alerts, url):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with lockkit.connect(url, plugins=[alerts], cleanup_budget=4, gpu_watch=False) as client:
        yield client


@pytest.fixture
def looks(monkeypatch):
    """A list that grows with each look at the cards."""
    found = []
    snapshot = SimulatedProvider.snapshot
    monkeypatch.setattr(
        SimulatedProvider, "snapshot", lambda provider: (found.append(1), snapshot(provider))[1]
    )
    return found


@pytest.fixture
def start():
    """A function that starts a process, which ends with the test."""
    with programs() as start:

        def begin(code="import time; print(1, flush=True); time.sleep(60)"):
            process = start(sys.executable, "-c", code)
            process.stdout.readline()
            return process

        yield begin


def pool(client, simulate=2, **how):
    return lockkit.gpu.pool(client, simulate=simulate, **how)


def computes(pid, memory="3GiB"):
    return {"pid": pid, "user": "bob", "program": "train.py", "memory": memory, "while_alive": True}


def left(client, uuid=CARDS[0]):
    """How the last holder left a card."""
    return last(client, SIMULATED, uuid, ())


def hook(leases):
    [report] = leases.report.reports
    return report.layers[0].hooks[-1]


def test_a_card_that_is_as_it_was_is_left_clean_and_the_next_holder_gets_the_receipt(client, alerts):
    with pool(client).acquire(timeout=30) as leases:
        assert leases.receipts == {}
    assert (hook(leases).plugin, hook(leases).outcome, hook(leases).error) == ("gpu-cleanup", "DONE", None)
    with pool(client).acquire(timeout=30) as again:
        receipt = again.receipts[CARDS[0]]
        assert (receipt.outcome, receipt.leftover, receipt.claim_id) == ("clean", 0, leases[0].claim_id)
        assert receipt.fence == leases[0].fence
        assert receipt.by == f"{client.owner.user}@{client.owner.host}"
    assert alerts.kinds(client) == []


def test_a_holder_that_was_killed_leaves_an_unknown_state_whatever_the_older_receipt_says(client):
    pool(client).acquire(timeout=30).release()
    assert left(client).outcome == "clean"
    killed = pool(client).acquire(timeout=30)
    name = pool_name(f"gpu-sim/{HOST}", CARDS[0])
    client.evict(name, killed[0].claim_id, reason="as if it were killed", now=True)
    killed.simulate_loss()  # so that its own release leaves nothing
    with pool(client).acquire(timeout=30) as leases:
        receipt = leases.receipts[CARDS[0]]
        assert (receipt.outcome, receipt.claim_id) == ("unknown", killed[0].claim_id)
    killed.release()
    with pool(client).acquire(timeout=30) as leases:
        assert leases.receipts[CARDS[0]].outcome == "clean"


def test_a_request_that_timed_out_leaves_no_doubt_about_the_card_that_it_had_got(client, say):
    pool(client).acquire(ids=["0"], timeout=30).release()
    say(card1={"faults": ["it hums"]})
    with pytest.raises(AcquireTimeout):
        pool(client).acquire(2, timeout=0.5)
    until(lambda: left(client).outcome == "clean")
    assert "taken" not in client.record(pool_name(f"gpu-sim/{HOST}", CARDS[0])).value


def test_a_child_process_that_still_has_the_card_is_ended(client, say, start):
    with pool(client).acquire(timeout=30):
        child = start()
        say(card0={"processes": [computes(child.pid)]})
    assert child.wait(30) == -signal.SIGTERM
    assert left(client).outcome == "clean"


def test_a_child_process_that_ignores_term_is_killed(client, say, start):
    with pool(client).acquire(timeout=30):
        child = start(GRIM)
        say(card0={"processes": [computes(child.pid)]})
    assert child.wait(30) == -signal.SIGKILL
    assert left(client).outcome == "clean"


def test_other_processes_are_left_alone_and_named(client, say, start, alerts):
    """A grandchild that nobody has seen before its parent ended, and a child that does not use the card."""
    script = (
        f"import subprocess, sys; "
        f"p = subprocess.Popen([sys.executable, '-c', {GRIM!r}], stdout=subprocess.DEVNULL); "
        "print(p.pid, flush=True)"
    )
    with pool(client).acquire(timeout=30):
        parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        orphan = int(parent.stdout.readline())
        parent.communicate()
        idle = start()
        say(card0={"processes": [computes(orphan)]})
    try:
        assert idle.poll() is None
        os.kill(orphan, 0)
        receipt = left(client)
        assert (receipt.outcome, receipt.leftover) == ("dirty", 3 * GIB)
        assert receipt.left_by == (f"bob pid {orphan} (train.py), 3 GiB",)
        assert alerts.kinds(client) == [("gpu_dirty", "P2")]
        assert f"pid {orphan} (train.py)" in alerts.seen[0].message
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_a_process_that_was_there_before_the_grant_is_left_alone(client, say, start):
    """A model server that a worker has started for all its tasks."""
    server = start()
    with pool(client).acquire(timeout=30):
        say(card0={"processes": [computes(server.pid)]})
    assert server.poll() is None
    assert left(client).left_by == (f"bob pid {server.pid} (train.py), 3 GiB",)


def test_memory_that_drains_is_waited_for(client, say):
    leases = pool(client).acquire(timeout=30)
    say(card0={"used": "5GiB"})
    looks = []
    snapshot = SimulatedProvider.snapshot

    def looked(provider):
        looks.append(1)
        if len(looks) == 4:
            say()
        return snapshot(provider)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimulatedProvider, "snapshot", looked)
        leases.release()
    assert left(client).outcome == "clean"
    assert len(looks) >= 4


def test_memory_that_stays_is_told_alerted_and_the_card_is_released(client, say, alerts):
    leases = pool(client).acquire(timeout=30)
    say(card0={"used": "5GiB"})
    leases.release()
    assert leases.report.released
    assert str(left(client)).endswith("with 5 GiB in use")
    assert alerts.kinds(client) == [("gpu_dirty", "P2")]


def test_a_driver_that_takes_its_time_is_not_asked_so_late_that_nothing_is_known(client, say, monkeypatch):
    leases = pool(client).acquire(timeout=30)
    say(card0={"used": "5GiB"})
    snapshot = SimulatedProvider.snapshot
    monkeypatch.setattr(SimulatedProvider, "snapshot", lambda asked: (time.sleep(0.35), snapshot(asked))[1])
    leases.release()
    assert str(left(client)).endswith("with 5 GiB in use")


def test_the_next_check_takes_another_card_or_waits_or_accepts_what_was_left(client, say):
    leases = pool(client).acquire(timeout=30)
    say(card0={"used": "5GiB"})
    leases.release()
    with pool(client).acquire(timeout=30) as other:
        assert other.members == (CARDS[1],)
        with pytest.raises(AcquireTimeout, match=r"dirty: left dirty by .* with 5 GiB in use"):
            pool(client).acquire(timeout=0)
        with pytest.raises(AcquireTimeout, match=r"only 18.5 GiB of it is free"):
            pool(client).acquire(accept_dirty=True, min_free="20GiB", timeout=0)
        with pool(client).acquire(accept_dirty=True, timeout=30) as dirty:
            assert dirty.members == (CARDS[0],)
            assert dirty.receipts[CARDS[0]].outcome == "dirty"
    assert (left(client).outcome, left(client).leftover) == (
        "dirty",
        5 * GIB,
    )  # what was there before still is
    with pool(client).acquire(accept_dirty=True, timeout=5, ids=[CARDS[0]]) as again:
        assert again.receipts[CARDS[0]].outcome == "dirty"


def test_what_a_stranger_left_is_not_accepted(client, say):
    say(card0={"used": "5GiB"})
    with pytest.raises(AcquireTimeout, match=r"busy \(unmanaged\)"):
        pool(client, 1).acquire(accept_dirty=True, timeout=0)


def test_this_process_itself_on_the_card_is_not_waited_for(client, say, looks):
    leases = pool(client).acquire(timeout=30)
    say(card0={"processes": [computes(os.getpid())]})
    looks.clear()
    leases.release()
    assert left(client).left_by == (f"bob pid {os.getpid()} (train.py), 3 GiB",)
    assert len(looks) == 1


def test_a_process_whose_pid_cannot_be_told_may_be_this_one_and_is_not_waited_for(client, say, looks):
    leases = pool(client).acquire(timeout=30)
    say(card0={"processes": [{"memory": "3GiB"}]})
    looks.clear()
    leases.release()
    assert left(client).left_by == ("unknown pid, 3 GiB",)
    assert len(looks) == 1


@pytest.mark.parametrize("memory, kinds", [("400MiB", []), ("30GiB", [("gpu_dirty", "P2")])])
def test_a_worker_that_goes_on_with_its_context_is_no_alert_and_one_with_its_model_is(
    client, say, alerts, memory, kinds
):
    leases = pool(client).acquire(timeout=30)
    say(card0={"processes": [computes(os.getpid(), memory)], "memory": "80GiB"})
    leases.release()
    assert left(client).outcome == "dirty"
    assert alerts.kinds(client) == kinds


def test_one_of_two_shares_in_a_process_ends_nothing_of_the_other(client, say, start):
    cards = pool(client, 1)
    first = cards.acquire(memory="8GiB", timeout=30)
    second = cards.acquire(memory="8GiB", timeout=30)
    child = start()
    say(card0={"processes": [computes(child.pid)]})
    first.release()
    assert child.poll() is None
    assert last(client, SIMULATED, CARDS[0], {second[0].claim_id}).outcome == "unknown"  # whose is it?
    second.release()
    assert child.wait(30) == -signal.SIGTERM


def test_a_share_is_not_clean_if_a_process_has_come_that_works_under_no_claim(client, say):
    code = "import os, time; os.fork() and os._exit(0); print(os.getpid(), flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    ) as gone:
        detached = int(gone.stdout.readline())
    try:
        share = pool(client, 1).acquire(memory="8GiB", timeout=30)
        say(card0={"processes": [computes(detached)]})
        share.release()
        assert left(client).outcome == "unknown"
        later = pool(client, 1).acquire(memory="8GiB", timeout=5, allow_busy=True)
        later.release()  # it was there before
        assert left(client).outcome == "unknown"
        say()
        pool(client, 1).acquire(memory="8GiB", timeout=30).release()
        assert left(client).outcome == "clean"
    finally:
        os.kill(detached, signal.SIGKILL)


def test_a_process_of_another_sharer_is_never_ended_though_this_one_started_it(client, say, start, tmp_path):
    store = f"sqlite:{tmp_path}/locks.db"
    code = (
        "import lockkit, lockkit.gpu, time; "
        f"leases = lockkit.gpu.pool(lockkit.connect({store!r}), simulate=1).acquire(memory='8GiB'); "
        "print(1, flush=True); time.sleep(60)"
    )
    with lockkit.connect(store, cleanup_budget=2) as mine:
        share = pool(mine, 1).acquire(memory="8GiB", timeout=30)
        child = start(code)
        say(card0={"processes": [computes(child.pid)]})
        share.release()
        assert child.poll() is None


def test_a_job_that_was_adopted_under_a_claim_of_its_own_is_left_alone(client, say, start, tmp_path):
    store = f"sqlite:{tmp_path}/locks.db"
    with lockkit.connect(store, cleanup_budget=2) as mine:
        share = pool(mine, 1).acquire(memory="8GiB", timeout=30)
        job = start()
        say(card0={"processes": [computes(job.pid)]})
        adopt = ["gpu", "adopt", str(job.pid), "--gpu-mem=4GiB", "--gpu-sim=1", "--private", f"--url={store}"]
        start(f"import sys; from lockkit.cli import script; sys.argv[1:] = {adopt}; script.main()")
        assert len(mine.inspect(share[0].name).holders) == 2
        share.release()
        assert job.poll() is None


def test_a_process_whose_parent_worked_under_another_claim_and_has_ended_is_left_alone(
    client, say, start, tmp_path
):
    store = f"sqlite:{tmp_path}/locks.db"
    between = (
        f"import subprocess, sys; "
        f"p = subprocess.Popen([sys.executable, '-c', {GRIM!r}], stdout=subprocess.DEVNULL); "
        "print(p.pid, flush=True); sys.stdin.read()"
    )
    code = (
        "import lockkit, lockkit.gpu, subprocess, sys; "
        f"leases = lockkit.gpu.pool(lockkit.connect({store!r}), simulate=1).acquire(memory='8GiB'); "
        f"p = subprocess.Popen([sys.executable, '-c', {between!r}], "
        "stdin=subprocess.PIPE, stdout=subprocess.PIPE); "
        "print(int(p.stdout.readline()), flush=True); sys.stdin.readline(); p.communicate(); "
        "print(flush=True); sys.stdin.read()"
    )
    with lockkit.connect(store, cleanup_budget=2) as mine:
        share = pool(mine, 1).acquire(memory="8GiB", timeout=30)
        with subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as sharer:
            orphan = int(sharer.stdout.readline())
            share.held_cards.family.look()  # as lockkit run does while its command runs
            sharer.stdin.write("\n")
            sharer.stdin.flush()
            sharer.stdout.readline()
            try:
                say(card0={"processes": [computes(orphan)]})
                share.release()
                assert not look_at(orphan).ended
                assert last(mine, SIMULATED, CARDS[0], {share[0].claim_id}).outcome == "unknown"
            finally:
                os.kill(orphan, signal.SIGKILL)


def test_a_card_that_is_faulty_at_its_release_is_quarantined_up_to_the_limit(client, say, alerts):
    leases = pool(client).acquire(2, timeout=30)
    fault = {"faults": ["the card must be reset"]}
    say(card0=fault, card1=fault)
    leases.release()
    [uuid] = quarantined(client, SIMULATED)
    mark = quarantined(client, SIMULATED)[uuid]
    assert (mark.automatic, mark.lasting) == (True, False)
    assert mark.reason == "the card must be reset"
    assert sorted(alerts.kinds(client)) == [("gpu_not_quarantined", "P0"), ("gpu_quarantined", "P1")]
    assert {left(client, one).outcome for one in CARDS[:2]} == {"unknown"}


@pytest.mark.parametrize("shown", [[], ["the card must be reset"]])
def test_faults_since_the_grant_count_as_well_and_stay_if_the_driver_shows_none(client, say, shown):
    cards = pool(client)
    cards._cards.faults = lambda uuid: ("Xid 79",) if uuid == CARDS[0] else ()
    leases = cards.acquire(timeout=30)
    say(card0={"faults": shown})
    leases.release()
    mark = quarantined(client, SIMULATED)[CARDS[0]]
    assert (mark.reason, mark.lasting) == ("; ".join([*shown, "Xid 79"]), not shown)


def test_a_cleanup_that_hangs_is_given_up_and_its_card_is_quarantined(client, monkeypatch, say, alerts):
    stop = threading.Event()
    hangs = ModuleType("torch")
    hangs.cuda = SimpleNamespace(is_initialized=lambda: stop.wait(60))
    monkeypatch.setitem(sys.modules, "torch", hangs)
    leases = pool(client).acquire(timeout=30)
    say(card0={"processes": [computes(os.getpid())]})
    try:
        leases.release()
        assert leases.report.released
        assert hook(leases).outcome == "DONE"
        assert "torch has not given back its memory within" in quarantined(client, SIMULATED)[CARDS[0]].reason
        assert left(client).outcome == "unknown"
        assert alerts.kinds(client) == [("gpu_quarantined", "P1")]
    finally:
        stop.set()


def test_a_framework_that_hangs_is_waited_for_once_for_all_cards_of_a_request(client, monkeypatch, say):
    stop, asked = threading.Event(), []
    hangs = ModuleType("torch")
    hangs.cuda = SimpleNamespace(is_initialized=lambda: (asked.append(1), stop.wait(60)))
    monkeypatch.setitem(sys.modules, "torch", hangs)
    leases = pool(client).acquire(2, timeout=30)
    mine = {"processes": [computes(os.getpid())]}
    say(card0=mine, card1=mine)
    try:
        leases.release()
        assert len(asked) == 1
        assert [report.layers[0].hooks[-1].outcome for report in leases.report.reports] == ["DONE", "DONE"]
        assert {left(client, uuid).outcome for uuid in CARDS[:2]} == {"unknown", "dirty"}
        assert len(quarantined(client, SIMULATED)) == 1  # the card at which it hangs
    finally:
        stop.set()


def test_a_framework_that_hangs_is_not_asked_at_later_releases_until_it_has_returned(
    client, monkeypatch, say
):
    go, asked = threading.Event(), []
    hangs = ModuleType("torch")
    hangs.cuda = SimpleNamespace(is_initialized=lambda: (asked.append(1), go.wait(60), False)[2])
    monkeypatch.setitem(sys.modules, "torch", hangs)
    mine = {"processes": [computes(os.getpid(), "300MiB")]}

    def release(number):
        leases = pool(client).acquire(ids=[number], timeout=30)
        say(card0=mine, card1=mine)
        leases.release()
        say()

    try:
        release("0")
        release("1")
        assert len(asked) == 1
        [error] = left(client, CARDS[1]).errors
        assert error == "torch has not returned from an earlier cleanup, and was not asked"
        assert list(quarantined(client, SIMULATED)) == [CARDS[0]]
    finally:
        go.set()
    until(lambda: not hanging())
    release("1")
    assert len(asked) == 2


def test_a_callback_that_overruns_leaves_doubt_and_an_alert_and_no_card_is_quarantined(client, alerts):
    stop = threading.Event()
    leases = pool(client).acquire(timeout=30)
    leases.on_release(lambda context: stop.wait(60))
    try:
        leases.release()
        assert quarantined(client, SIMULATED) == {}
        assert left(client).outcome == "unknown"
        assert left(client).errors == ("the cleanup of on_release has not ended",)
        assert alerts.kinds(client) == [("cleanup_overrun", "P1")]
    finally:
        stop.set()


def test_a_callback_that_overruns_hides_no_fault_of_the_card(client, say):
    stop = threading.Event()
    leases = pool(client).acquire(timeout=30)
    leases.on_release(lambda context: stop.wait(60))
    say(card0={"faults": ["the card must be reset"]})
    try:
        leases.release()
        assert quarantined(client, SIMULATED)[CARDS[0]].reason == "the card must be reset"
    finally:
        stop.set()


class Hanging(BasicProvider):
    """A provider of two cards whose driver hangs when it is told to."""

    name = "hanging"

    def __init__(self):
        self.go = threading.Event()
        self.go.set()

    def snapshot(self):
        self.go.wait(60)
        idle = [
            Device(f"GPU-{n:08}-1111-1111-1111-111111111111", n, "X", 8 * GIB, 0, 0, 0, ()) for n in (0, 1)
        ]
        return Snapshot(time.time(), tuple(idle))

    @lockkit.hookimpl
    def lockkit_devices(self):
        return [self]


def test_a_driver_that_hangs_keeps_no_card_and_is_quarantined_for_it(url, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    driver = Hanging()
    with lockkit.connect(url, plugins=[driver], disable_plugins=["gpu"]) as client:
        leases = lockkit.gpu.pool(client).acquire(timeout=30)
        driver.go.clear()
        try:
            leases.release()
            assert leases.report.released
            [(uuid, mark)] = quarantined(client, HOST).items()
            assert (uuid, mark.reason) == (leases.members[0], "its driver has not answered within 5 s")
            assert last(client, HOST, uuid, ()).outcome == "unknown"
        finally:
            driver.go.set()


def test_the_end_of_the_client_leaves_a_receipt_as_well(client, url):
    assert left(client) is None
    with lockkit.connect(url) as other:
        leases = pool(other).acquire(timeout=30)
    assert leases.report.released
    assert left(client).outcome == "clean"


def test_a_lost_hold_leaves_no_receipt(client, say):
    leases = pool(client).acquire(timeout=30)
    leases.simulate_loss()
    say(card0={"faults": ["it hums"]})  # perhaps the next holder's doing
    leases.release()
    assert left(client).outcome == "unknown"
    assert quarantined(client, SIMULATED) == {}


def test_without_the_plugin_nothing_is_cleaned_and_the_next_holder_knows_nothing(url, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    with lockkit.connect(url, disable_plugins=["gpu-cleanup"]) as client:
        pool(client).acquire(timeout=30).release()
        with pool(client).acquire(timeout=30) as leases:
            assert leases.receipts[CARDS[0]].outcome == "unknown"


def test_a_receipt_that_cannot_be_written_fails_the_hook_and_not_the_release(client, monkeypatch):
    leases = pool(client).acquire(timeout=30)
    backend = client.driver().backend

    def refuse(*what):
        raise lockkit.store.spi.Refused(lockkit.errors.BackendUnavailable("no room"))

    monkeypatch.setattr(backend, "put_record", refuse, raising=False)
    leases.release()
    assert leases.report.released
    assert (hook(leases).outcome, hook(leases).error) == ("FAILED", "BackendUnavailable: no room")


def test_plain_locks_of_a_client_with_cards_have_no_cleanup(client):
    pool(client).acquire(timeout=30).release()
    report = client.lock("a").acquire().release()
    assert [layer.layer for layer in report.layers] == ["normal"]


def test_under_asyncio_the_next_holder_gets_the_receipt_too(url, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))

    async def main():
        async with lockkit.aio.connect(url) as client:
            cards = lockkit.gpu.aio.pool(client, simulate=2)
            async with cards.acquire(timeout=30) as leases:
                assert leases.receipts == {}
            async with cards.acquire(timeout=30) as leases:
                assert leases.receipts[CARDS[0]].outcome == "clean"
            with pytest.raises(AcquireTimeout):
                async with cards.acquire(2, timeout=30):
                    await cards.acquire(1, timeout=0)
            async with cards.acquire(2, timeout=30) as leases:
                assert {one.outcome for one in leases.receipts.values()} == {"clean"}

    asyncio.run(main())
