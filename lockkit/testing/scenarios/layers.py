"""S9, S10: the release pipeline: order, each layer once, user errors first, no blind delete; counters."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from lockkit.errors import ReleaseFailed
from lockkit.facts import Alert, CleanupContext, Event
from lockkit.hooks import hookimpl
from lockkit.observe import journal
from lockkit.sync.client import Client
from lockkit.testing.faults import Faults, Send, black_hole, drop_reply, refuse
from lockkit.testing.interrupts import CtrlC
from lockkit.testing.scenarios.handoffs import IN_VAIN
from lockkit.testing.shapes import MUTEX
from lockkit.testing.stage import PATIENCE, Stage, scenario

__all__ = ["Witness"]


class Witness:
    """A plugin that cleans up as it is told, and remembers what it was told."""

    def __init__(self, clean: Callable[[CleanupContext], object] = lambda _: None) -> None:
        self.clean = clean
        self.cleaned: list[CleanupContext] = []
        self.events: list[Event] = []
        self.alerts: list[Alert] = []

    @hookimpl
    def lockkit_cleanup(self, context: CleanupContext) -> None:
        self.cleaned.append(context)
        self.clean(context)

    @hookimpl
    def lockkit_event(self, event: Event) -> None:
        self.events.append(event)

    @hookimpl
    def lockkit_alert(self, alert: Alert) -> None:
        self.alerts.append(alert)

    def kinds(self) -> list[str]:
        """The kinds of the events so far."""
        return [event.kind for event in self.events]


@contextlib.contextmanager
def flushed(client: Client) -> Iterator[None]:
    """Run the body, then wait until everything that it told has been delivered."""
    yield
    client.driver().dispatcher.flush(PATIENCE)


@scenario("S9-cleanup-while-renewed")
def cleanup_while_renewed(stage: Stage) -> None:
    """Cleanup runs while the claim is renewed, even beyond a ttl; only then does the next waiter hold."""
    ttl = stage.lasting(least=1.5)
    seen: list[tuple[bool, bool]] = []
    over = threading.Event()

    def clean(context: CleanupContext) -> None:
        over.wait(1.5 * ttl)
        seen.append((lease.valid(), context.claim_id in stage.held()))

    witness = Witness(clean)
    client = stage.client(plugins=[witness])
    lease = stage.take(stage.holder(client, ttl=ttl))
    report = lease.release()
    assert seen == [(True, True)], "S9: (valid, held) at the end of cleanup"
    assert report.outcome == "RELEASED"
    assert [layer.layer for layer in report.layers] == ["cleanup", "normal"]
    assert len(witness.cleaned) == 1
    assert witness.cleaned[0].fence == lease.fence


@scenario("S9-ended-before-release-is-sent")
def ended_before(stage: Stage) -> None:
    """When the release request leaves, the lease is no longer valid, and no renewal follows."""
    client, faults = stage.faulty()
    ttl = stage.lasting(least=1.5)
    lease = stage.take(stage.holder(client, ttl=ttl))
    seen: list[bool] = []

    def look(faults: Faults, send: Send, budget: float) -> Any:  # noqa: ARG001
        seen.append(lease.valid())
        stage.steady(lambda: not lease.valid(), "S9: valid while it is being released", ttl)
        return send()

    faults.add("release", look)
    faults.log.clear()
    lease.release()
    assert seen == [False], "S9: valid although its release was sent"
    assert "renew" not in faults.log[faults.log.index("release") :], "S9: renewed after its release was sent"
    assert stage.stored() == []


@scenario("S10-hooks-raise")
def hooks_raise(stage: Stage) -> None:
    """Hooks that raise stop neither each other nor the release; the user's exception comes first."""

    def fail(error: BaseException) -> Callable[[CleanupContext], None]:
        def clean(context: CleanupContext) -> None:  # noqa: ARG001
            raise error

        return clean

    witnesses = [
        Witness(fail(error)) for error in (ValueError("no"), SystemExit(3), CtrlC(), GeneratorExit())
    ]
    last = Witness()
    client = stage.client(plugins=[*witnesses, last])
    other = stage.take(stage.shape.holders[0].lock(client, "kit/other", ttl=stage.long_ttl))
    mine = RuntimeError("the user's own")
    lock = stage.holder(client)

    def body() -> None:
        with lock.acquire():
            raise mine

    assert stage.work(body).error() is mine, "the user's exception always wins"
    assert all(len(witness.cleaned) == 1 for witness in (*witnesses, last)), "each hook runs once"
    assert {context.reason for witness in witnesses for context in witness.cleaned} == {"error"}
    assert any("cleanup" in note for note in getattr(mine, "__notes__", [])), (
        "what else went wrong is attached"
    )
    assert stage.stored() == []
    assert other.valid()
    report = other.release()
    assert report.outcome == "RELEASED"
    assert [hook.outcome for hook in report.layers[0].hooks].count("FAILED") == len(witnesses)


@scenario("S10-hook-hangs", (MUTEX,))
def hook_hangs(stage: Stage) -> None:
    """A hook that hangs costs only its budget, is reported as RUNNING, and is disabled the second time."""
    go = threading.Event()
    stage.on_close(go.set)
    hanging, well = Witness(lambda _: go.wait(60.0)), Witness()
    client = stage.client(plugins=[hanging, well], cleanup_budget=0.6)
    for turn in range(3):
        lease = stage.take(stage.holder(client))
        with flushed(client), stage.within(2.0, "a release with a hanging hook"):
            report = lease.release()
        assert report.outcome == "RELEASED"
        outcomes = sorted(hook.outcome for hook in report.layers[0].hooks)
        assert outcomes == ["DONE", "RUNNING" if turn < 2 else "SKIPPED"]
        assert stage.stored() == []
    assert len(hanging.cleaned) == 2
    assert len(well.cleaned) == 3
    assert [alert.kind for alert in well.alerts] == ["cleanup_overrun"] * 2


@scenario("S10-emergency")
def emergency(stage: Stage) -> None:
    """If the normal layer fails, the emergency layer runs once: one count, one alert, no other effect."""
    witness = Witness()
    client, faults = stage.faulty(plugins=[witness], request_timeout=stage.harness.request_timeout)
    other = stage.take(stage.shape.holders[0].lock(client, "kit/other", ttl=stage.long_ttl))
    lease = stage.take(stage.holder(client))
    faults.always(refuse, "release", "abandon")
    with flushed(client):
        report = lease.release()
    faults.heal()
    assert report.outcome == "RELEASED"
    assert [layer.layer for layer in report.layers] == ["cleanup", "normal", "emergency"]
    assert faults.log.count("emergency_release") == 1
    stats = client.stats()
    assert (stats["normal_release_failures"], stats["emergency_releases"]) == (1, 1)
    assert stats["release_script_errors"] == 0  # the store is out of reach, but no request is wrong
    assert stats["ownership_violations"] == 0
    assert [alert.kind for alert in witness.alerts] == ["emergency_release"]
    assert stage.stored() == []
    assert other.valid()
    assert len(stage.stored("kit/other")) == 1


@scenario("S10-all-layers-fail")
def all_layers_fail(stage: Stage) -> None:
    """No layer gets an answer: ABANDONED, one critical record, one P0 alert, and by default no exception."""
    witness = Witness()
    client, faults = stage.faulty(plugins=[witness], request_timeout=stage.harness.request_timeout)
    lease = stage.take(stage.holder(client))
    faults.always(black_hole, "release", "abandon", "emergency_release")
    with flushed(client):
        report = lease.release("task_failure")
        assert lease.release() == report, "idempotent"
    assert report.outcome == "ABANDONED"
    assert report.reason == "task_failure"
    error = stage.work(lambda: lease.release(raise_failed=True)).error()
    assert isinstance(error, ReleaseFailed)
    assert error.report == report
    assert len(witness.cleaned) == 1
    assert [(alert.kind, alert.priority) for alert in witness.alerts] == [
        ("emergency_release", "P1"),
        ("critical_failure", "P0"),
    ]
    assert all(alert.name == stage.name and alert.claim_id == lease.claim_id for alert in witness.alerts)
    (record,) = journal.read(stage.harness.scratch)
    assert record["name"] == stage.name
    assert record["claim"] == lease.claim_id
    assert lease.token not in str(record), "a token is never written down"
    faults.heal()
    stage.until(lambda: stage.stored() == [], "L4: the abandoned claim stays", stage.soon)
    stage.until(lambda: "removed" in witness.kinds(), "its removal is told")


@scenario("S10-journal-full", (MUTEX,))
def journal_full(stage: Stage) -> None:
    """A release survives a journal record that cannot be written because the disk is full."""
    client, faults = stage.faulty(request_timeout=stage.harness.request_timeout)
    lease = stage.take(stage.holder(client))
    (stage.harness.scratch / journal.FILE).mkdir()  # nobody can append to that
    faults.always(black_hole, "release", "abandon", "emergency_release")
    assert lease.release().outcome == "ABANDONED"
    faults.heal()
    stage.until(lambda: stage.stored() == [], "L4: the abandoned claim stays", stage.soon)


@scenario("S10-no-blind-delete")
def no_blind_delete(stage: Stage) -> None:
    """A lapsed holder releases through a store in trouble: no layer touches its successor."""
    client, faults = stage.faulty(request_timeout=stage.harness.request_timeout)
    lease = stage.take(stage.holder(client, ttl=stage.harness.ttl, auto_renew=False))
    stage.harness.outlast(stage.harness.ttl)
    successors = stage.fill()
    before = stage.stored()
    faults.always(drop_reply, "release", "abandon")
    report = lease.release()
    faults.heal()
    assert report.outcome in ("LOST", "RELEASED", "ABANDONED")
    assert "emergency_release" in faults.log
    stage.until(lambda: len(client.driver().orphans) == 0, "the background has done its work")
    assert stage.unchanged(before), "S1: the successor was touched"
    for successor in successors:
        successor.confirm()


@scenario("S10-interrupted-layers", (MUTEX,))
def interrupted_layers(stage: Stage) -> None:
    """Ctrl-C in a release call, once or twice: each layer runs once, the claim goes, then it is raised."""
    for times in (1, 2):
        witness = Witness()
        client, faults = stage.faulty(plugins=[witness])
        lease = stage.take(stage.holder(client))

        def ctrl_c(faults: Faults, send: Send, budget: float) -> Any:  # noqa: ARG001
            raise CtrlC

        faults.add("release", ctrl_c, times=times)
        faults.add("abandon", ctrl_c, times=times)
        assert isinstance(stage.work(lease.release).error(), CtrlC), "Ctrl-C was swallowed"
        assert lease.report is not None
        assert lease.report.outcome == "RELEASED"
        assert len(witness.cleaned) == 1
        assert stage.stored() == []
        assert lease.release() == lease.report


@scenario("S7-five-releases")
def five_releases(stage: Stage) -> None:
    """Five threads release one lease: one release is sent, and all get its report."""
    witness = Witness()
    client, faults = stage.faulty(plugins=[witness])
    lease = stage.take(stage.holder(client))
    start = threading.Barrier(5)

    def release() -> object:
        start.wait(PATIENCE)
        return lease.release()

    faults.log.clear()
    reports = [work.result() for work in [stage.work(release) for _ in range(5)]]
    assert all(report == reports[0] for report in reports)
    assert faults.log.count("release") == 1
    assert len(witness.cleaned) == 1
    with flushed(client):
        pass
    assert witness.kinds().count("released") == 1
    assert client.stats()["released"] == 1


@scenario("S1-anothers-lock")
def anothers_lock(stage: Stage) -> None:
    """Ending another's hold without naming its claim is refused and counted; the holder is unaffected."""
    leases = stage.fill()
    witness = Witness()
    other = stage.client(plugins=[witness])
    forged = other.adopt({**leases[0].handle(), "token": "f" * 32})
    before = stage.stored()
    with flushed(other):
        assert forged.release().outcome == "LOST"
    assert other.stats()["ownership_violations"] == 1
    assert "released" not in witness.kinds()
    assert stage.unchanged(before)
    assert other.evict(stage.name, forged.claim_id, reason="kit").outcome == "ABSENT"
    assert stage.unchanged(before)
    for lease in leases:
        lease.confirm()


@scenario("S1-counters-add-up")
def counters(stage: Stage) -> None:
    """All counters exist and begin at 0; the ends of attempts add up to the attempts."""
    client = stage.client()
    assert set(client.stats().values()) == {0}
    assert {
        "normal_release_failures",
        "emergency_releases",
        "release_script_errors",
        "ownership_violations",
    } <= set(client.stats())
    stage.fill()
    lock = stage.newcomer(client)
    assert lock.try_acquire() is None
    stage.work(lambda: lock.acquire(IN_VAIN)).error()
    waiting = stage.waiting(lock)
    client.close()
    waiting.error()
    stats = client.stats()
    ends = ("acquired", "busy", "timeouts", "cancelled", "failed")
    assert stats["attempts"] == sum(stats[end] for end in ends) == 3
    assert (stats["busy"], stats["timeouts"], stats["cancelled"]) == (1, 1, 1)
