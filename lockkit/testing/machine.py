"""The state machine: several clients do what they like, and the store must never be seen to break a promise.

The model is what the store itself showed after the last step, and who may change what in the next one. Each rule says
which claims may come, go or be granted by it; everything else must stay as it is. A failure begins with its guarantee.
"""

from __future__ import annotations

import logging
import pickle
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lockkit.client import Client
from lockkit.copies import LeaseCopy
from lockkit.errors import CapacityMismatch, LeaseLost, NotHeld
from lockkit.hold import Hold
from lockkit.lease import Lease, handle_of
from lockkit.store.queue import RW_CAPACITY
from lockkit.testing.harness import Harness
from lockkit.testing.seen import Seen, lapsed, show, surely
from lockkit.testing.shapes import Part
from lockkit.testing.stepping import Pending, Stepper

__all__ = ["Machine", "run"]

ACTORS = 3
MOST = 7
"""Claims on one name; more show nothing new."""
PARTS: dict[str, tuple[Part, ...]] = {
    "mutex": (Part("mutex", 1, 1),),
    "permits": (
        Part("semaphore", 1, 2),
        Part("semaphore", 2, 2),
        Part("semaphore", 1, 3),
        Part("semaphore", 3, 3),
    ),
    "index": (Part("read", 1, RW_CAPACITY), Part("write", RW_CAPACITY, RW_CAPACITY)),
}
DEFAULT_EXAMPLES = 100
_ATTEMPTS = 5
"""How often a run that does not replay is begun anew, where time is real."""
picks = st.integers(0, 11)
actors = st.integers(0, ACTORS - 1)
names = st.sampled_from([*PARTS])


@dataclass(slots=True)
class Held:
    """A grant and who has it: by the public face (``lease``) or driven by hand (``pending``)."""

    actor: int
    hold: Hold
    lease: Lease | None = None
    pending: Pending | None = None
    losses: list[str] = field(default_factory=list)
    was_invalid: bool = False

    @property
    def id(self) -> str:
        return self.hold.claim_id


class Machine(RuleBasedStateMachine):
    """Clients, waiters and holders on three names; see the module."""

    harness_class: type[Harness]
    scratch: Path

    def __init__(self) -> None:
        super().__init__()
        self.harness = self.harness_class(Path(tempfile.mkdtemp(dir=self.scratch)))
        self.clients: list[Client] = []
        self.steppers: list[Stepper] = []
        self.pending: list[tuple[int, Pending]] = []
        self.holds: list[Held] = []
        self.copies: list[LeaseCopy] = []
        self.seen = Seen(self.harness, PARTS, self.invalid)
        self.bound: dict[str, float] = {}
        self.hot = ""

    @initialize(hot=names)
    def begin(self, hot: str) -> None:
        self.hot = hot
        self.harness.freeze()
        for _ in range(ACTORS):
            self.enter()

    def enter(self) -> None:
        client = self.harness.client()
        self.clients.append(client)
        self.steppers.append(Stepper(client.driver().backend, self.harness.clock))

    def teardown(self) -> None:
        try:
            for held in self.holds:
                if held.lease is not None:
                    held.lease.release()
                else:
                    self.steppers[held.actor].release(held.hold)
            for _, pending in self.pending:
                pending.cancel()
            for stepper in self.steppers:
                stepper.remove_orphans(due_only=False)
            for held in self.holds:
                assert len(held.losses) <= 1, "S6-told-once: a loss was told twice"
        finally:
            for client in self.clients:
                client.close()
            self.harness.close()

    # -- what may be changed

    @contextmanager
    def step(
        self,
        guarantee: str,
        may_go: Collection[str] = (),
        pending: Pending | None = None,
        may_shorten: Collection[str] = (),
    ) -> Iterator[set[str]]:
        """Run one step and compare; what the body puts into the set may have come or been granted."""
        may_go = {*may_go, *self.invalid()}
        if pending is not None:
            may_go.add(pending.claim_id)
        granted: set[str] = set()
        yield granted
        self.seen.compare(guarantee, may_go, granted, set(may_shorten))

    def valid(self, held: Held) -> bool:
        return held.hold.valid(self.harness.clock.now())

    def invalid(self) -> set[str]:
        return {held.id for held in self.holds if not self.valid(held)}

    @invariant()
    def validity(self) -> None:
        for held in self.holds:
            if self.valid(held):
                bound = held.hold.claim.terms.process_bound
                assert bound or not held.was_invalid, f"S6-sticky: {held.id} is valid again"
                row = self.seen.queues[held.hold.name].get(held.id)
                assert row is not None, f"S3-validity: {held.id} is valid and not in the store"
                assert row.state == "HELD", f"S3-validity: {held.id} is valid and {row.state}"
                assert row.fence == held.hold.fence, f"S4-fence: {held.id} believes in another fence"
            else:
                held.was_invalid = True
        for name, rows in self.seen.queues.items():
            for id_, row in rows.items():
                limit = self.bound.get(id_)
                if limit is not None and row.state == "HELD" and row.deadline is not None:
                    assert surely(row) <= limit + 1e-3, (
                        f"S11-no-zombie: {show(row)} on {name!r} outlives its ttl"
                    )

    def spoke(self, held: Hold, longer: float = 1.0) -> None:
        """A request for this hold was sent just now: it may last from here."""
        terms = held.claim.terms
        least = longer * terms.ttl + terms.lock_delay + terms.min_hold + self.harness.grain
        self.bound[held.claim_id] = max(self.bound.get(held.claim_id, 0.0), self.harness.clock.now() + least)

    # -- acquire

    def choose(self, what: int, elsewhere: bool) -> tuple[str, Part]:  # noqa: FBT001
        """A name, mostly the one on which everybody meets, and a part to play on it."""
        name = [*PARTS][what % len(PARTS)] if elsewhere else self.hot
        known = PARTS[name]
        return name, known[what % len(known)]

    def room(self, name: str) -> bool:
        return len(self.seen.queues[name]) < MOST

    @rule(
        actor=actors,
        what=picks,
        elsewhere=st.booleans(),
        how=st.sampled_from(["plain", "short", "quiet", "bound"]),
    )
    def try_acquire(self, actor: int, what: int, elsewhere: bool, how: str) -> None:  # noqa: FBT001
        name, part = self.choose(what, elsewhere)
        if not self.room(name):
            return
        can, ttl = self.harness.capabilities, self.harness.ttl
        options = {
            "ttl": max(ttl / 2 if how == "short" else ttl, can.min_ttl),
            "auto_renew": False,
            "lock_delay": ttl / 10 if how == "quiet" and can.lock_delay else 0.0,
            "min_hold": ttl / 20 if how == "quiet" and can.min_hold else 0.0,
            "process_bound": how == "bound" and can.process_bound,
        }
        losses: list[str] = []
        lock = part.lock(self.clients[actor], name, on_lost=lambda: losses.append(name), **options)
        with self.step("S2-single-grant") as granted:
            try:
                lease = lock.try_acquire()
            except CapacityMismatch:
                lease = None
            if lease is not None:
                granted.add(lease.claim_id)
                holds = self.clients[actor].driver().registry.holds.get(name, ())
                (hold,) = [hold for hold in holds if hold.claim_id == lease.claim_id]
                self.holds.append(Held(actor, hold, lease=lease, losses=losses))
                self.spoke(hold)

    @rule(actor=actors, what=picks, elsewhere=st.booleans(), quiet=st.booleans())
    def queue(self, actor: int, what: int, elsewhere: bool, quiet: bool) -> None:  # noqa: FBT001
        name, part = self.choose(what, elsewhere)
        if not self.room(name):
            return
        delay = self.harness.ttl / 10 if quiet and self.harness.capabilities.lock_delay else 0.0
        terms = part.terms(name, self.clients[actor].owner, ttl=self.harness.ttl, lock_delay=delay)
        with self.step("S2-single-grant") as granted:
            pending = self.steppers[actor].acquire(terms)
            self.note(actor, pending, granted)

    @precondition(lambda self: self.pending)
    @rule(pick=picks)
    def ask_again(self, pick: int) -> None:
        actor, pending = self.pending.pop(pick % len(self.pending))
        with self.step("S1-ownership", pending=pending) as granted:
            pending.step()
            self.note(actor, pending, granted)

    def note(self, actor: int, pending: Pending, granted: set[str]) -> None:
        if pending.hold is not None:
            granted.add(pending.claim_id)
            self.holds.append(Held(actor, pending.hold, pending=pending))
            self.spoke(pending.hold)
        elif not pending.over:
            granted.add(pending.claim_id)
            self.pending.append((actor, pending))
        else:
            assert isinstance(pending.error, CapacityMismatch), f"L4: acquire ended in {pending.error!r}"

    @precondition(lambda self: self.pending)
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        actor, pending = self.pending.pop(pick % len(self.pending))
        with self.step("L4-cancel", pending=pending):
            pending.cancel()
            self.steppers[actor].remove_orphans()
        assert pending.claim_id not in self.seen.queues[pending.claim.terms.name], (
            "L4-cancel: the claim is still queued"
        )

    # -- hold

    @precondition(lambda self: self.pending or self.holds)
    @rule(actor=actors)
    def beat(self, actor: int) -> None:
        members = [pending for owner, pending in self.pending if owner == actor]
        holding = [held for held in self.holds if held.actor == actor and held.pending is not None]
        members += [held.pending for held in holding if held.pending is not None and not held.hold.ended]
        with self.step("S1-ownership"):
            self.steppers[actor].beat(members)
            for held in holding:
                self.spoke(held.hold)

    @precondition(lambda self: any(held.lease for held in self.holds))
    @rule(pick=picks, extend=st.booleans())
    def confirm(self, pick: int, extend: bool) -> None:  # noqa: FBT001
        leases = [held for held in self.holds if held.lease]
        held = leases[pick % len(leases)]
        lease = held.lease
        assert lease is not None
        extend = extend and not self.harness.capabilities.fixed_ttl
        with self.step("S1-ownership"):
            try:
                if extend:
                    lease.extend(lease.ttl * 1.5)
                else:
                    lease.confirm()
            except (LeaseLost, NotHeld):
                assert not lease.valid(), "S6-sticky: it was told that it is lost, and is valid"
            # Where time is real, the store may have had the request a moment after it was sent.
            self.spoke(held.hold, 1.5 if extend else 1.0)

    @precondition(lambda self: self.holds)
    @rule(pick=picks)
    def notice(self, pick: int) -> None:
        """A client notices what it has lost, and removes it until definite."""
        actor = self.holds[pick % len(self.holds)].actor
        stepper = self.steppers[actor]
        mine = [held for held in self.holds if held.actor == actor and held.pending is not None]
        with self.step("S11-no-zombie"):
            gone = [held for held in mine if stepper.notice(held.hold)]
            stepper.remove_orphans()
        for held in gone:
            row = self.seen.queues[held.hold.name].get(held.id)
            assert row is None or row.state == "LINGERING", (
                f"S11-no-zombie: {held.id} was lost and still stands"
            )

    # -- release

    @precondition(lambda self: self.holds)
    @rule(pick=picks, twice=st.booleans())
    def release(self, pick: int, twice: bool) -> None:  # noqa: FBT001
        held = self.holds.pop(pick % len(self.holds))
        was_valid = self.valid(held)
        row = self.seen.queues[held.hold.name].get(held.id)
        with self.step("S7-harmless-release", may_go={held.id}):
            report = held.lease.release() if held.lease else self.steppers[held.actor].release(held.hold)
        assert report.outcome in ("RELEASED", "LOST")
        if was_valid and row is not None:
            assert report.outcome == "RELEASED", f"S1-ownership: a valid hold was reported {report.outcome}"
        left = self.seen.queues[held.hold.name].get(held.id)
        assert left is None or left.state == "LINGERING", f"L4-no-leak: {held.id} is released and still there"
        self.copies.append(LeaseCopy(handle_of(held.hold, self.clients[held.actor].namespace)))
        if twice and held.lease:
            with self.step("S7-stale-release"):
                assert held.lease.release() == report

    @precondition(lambda self: self.holds)
    @rule(pick=picks)
    def copy(self, pick: int) -> None:
        held = self.holds[pick % len(self.holds)]
        if held.lease is not None:
            self.copies.append(pickle.loads(pickle.dumps(held.lease)))  # noqa: S301

    @precondition(lambda self: self.copies)
    @rule(pick=picks, actor=actors)
    def release_copy(self, pick: int, actor: int) -> None:
        copy = self.copies[pick % len(self.copies)]
        bound = self.clients[actor].adopt(copy)
        assert not bound.valid(), "S7-copies: a copy calls itself valid"
        alive = self.seen.queues[copy.name].get(copy.claim_id)
        with self.step("S7-stale-release", may_go={copy.claim_id}):
            report = bound.release()
        if alive is None:
            assert report.outcome == "LOST", f"S7-stale-release: {report.outcome} although it was gone"
        self.forsake(copy.claim_id)

    # -- operators, time, death

    @precondition(lambda self: any(self.seen.queues.values()))
    @rule(pick=picks, at_once=st.booleans())
    def evict(self, pick: int, at_once: bool) -> None:  # noqa: FBT001
        rows = [(name, row) for name, queue in self.seen.queues.items() for row in queue.values()]
        name, row = rows[pick % len(rows)]
        silent = row.deadline is None and not any(
            held.id == row.claim_id and self.valid(held) for held in self.holds
        )
        may_go = {row.claim_id} if at_once or row.state != "HELD" or silent else set()
        with self.step("S1-evict", may_go=may_go, may_shorten={row.claim_id}):
            self.clients[pick % ACTORS].evict(name, row.claim_id, reason="kit", now=at_once)
        if at_once:
            self.forsake(row.claim_id)

    def forsake(self, id_: str) -> None:
        """``evict --now``, or somebody who was given its secret, ended it: its holder cannot know, and releases."""
        for held in [held for held in self.holds if held.id == id_]:
            self.holds.remove(held)
            lingers = id_ in self.seen.queues[held.hold.name]
            report = held.lease.release() if held.lease else self.steppers[held.actor].release(held.hold)
            assert lingers or report.outcome == "LOST", f"S1-ownership: its release said {report.outcome}"

    @precondition(lambda self: self.seen.queues["permits"])
    @rule(capacity=st.integers(1, 3))
    def resize(self, capacity: int) -> None:
        name = "permits"
        heavy = {
            row.claim_id
            for row in self.seen.queues[name].values()
            if row.state != "HELD" and row.weight > capacity
        }
        self.seen.resized.add(name)
        with self.step("S2-resize", may_go=heavy):
            self.clients[0].resize(name, capacity)

    @precondition(lambda self: any(self.seen.queues.values()))
    @rule(share=st.sampled_from([0.02, 0.06, 0.11, 0.34, 0.51, 1.01]))
    def pass_time(self, share: float) -> None:
        self.harness.advance(share * self.harness.ttl)
        for client in self.clients:
            client.driver().heartbeat.look()
            client.driver().orphans.look()
        end = time.monotonic() + 5.0
        while self.unnoticed():
            assert time.monotonic() < end, "S11-no-zombie: the background leaves standing what has run out"
            time.sleep(0.0005)
        with self.step("S5-no-resurrection"):
            pass

    def unnoticed(self) -> bool:
        """Whether a client has yet to notice that a hold ran out, or to remove it: wait for it, so that runs replay."""
        now = self.harness.clock.now()
        gone = [
            held.hold for held in self.holds if held.lease and (held.hold.lost_why or held.hold.overdue(now))
        ]
        if any(not hold.lost_why for hold in gone):
            return True
        over = {hold.claim_id: hold.name for hold in gone if hold.expires <= now}
        rows = [row for name in set(over.values()) for row in self.harness.stored(name)]
        return any(row.claim_id in over and row.state == "HELD" and not lapsed(row, now) for row in rows)

    @precondition(lambda self: self.pending or self.holds)
    @rule(actor=actors)
    def crash(self, actor: int) -> None:
        self.harness.crash(self.clients[actor])
        self.pending = [(owner, pending) for owner, pending in self.pending if owner != actor]
        for held in [held for held in self.holds if held.actor == actor]:
            held.hold.end()
            self.holds.remove(held)
        client = self.harness.client()
        self.clients[actor], old = client, self.clients[actor]
        self.clients.append(old)
        self.steppers[actor] = Stepper(client.driver().backend, self.harness.clock)


class _InRealTime(Machine):
    """Where time passes by itself a run does not replay, as Hypothesis expects of it: remember what went wrong."""

    wrong: list[AssertionError]

    def teardown(self) -> None:
        error = sys.exc_info()[1]  # what the run ends with
        if isinstance(error, AssertionError):
            self.wrong.append(error)
        super().teardown()


def run(harness: type[Harness], scratch: Path) -> None:
    """Run the machine for a harness; as many examples as the harness says, or as the Hypothesis profile says."""
    base = Machine if harness.virtual else _InRealTime
    wrong: list[AssertionError] = []
    machine = type("Machine", (base,), {"harness_class": harness, "scratch": scratch, "wrong": wrong})
    profile = settings()
    examples, steps = harness.examples
    if profile.max_examples != DEFAULT_EXAMPLES:
        examples, steps = profile.max_examples, profile.stateful_step_count
    log = logging.getLogger("lockkit")
    level = log.level
    log.setLevel(logging.CRITICAL)  # thousands of evictions are no news here
    chosen = settings(
        profile,
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        report_multiple_bugs=False,  # each would be shrunk for minutes; mend the first, then run again
    )
    try:
        for left in reversed(range(_ATTEMPTS)):
            try:
                run_state_machine_as_test(machine, settings=chosen)
                return
            except Flaky as error:
                if wrong:
                    raise wrong[0] from error
                if harness.virtual or not left or isinstance(error, ExceptionGroup):  # a group of failures
                    raise
    finally:
        log.setLevel(level)
