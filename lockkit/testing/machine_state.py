"""The state of the state machine: its clients, what they hold, and what may change in a step.

The model is what the store itself showed after the last step. Each rule says which claims may come, go or
be granted; all other claims must stay as they are. A failure starts with its guarantee.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from lockkit.protocol.hold import Hold
from lockkit.shared.copies import LeaseCopy
from lockkit.store.queue import RW_CAPACITY
from lockkit.sync.client import Client
from lockkit.sync.lease import Lease
from lockkit.testing.harness import Harness
from lockkit.testing.seen import Seen, show, surely
from lockkit.testing.shapes import Part
from lockkit.testing.stepping import Pending, Stepper

__all__ = ["ACTORS", "PARTS", "Held", "State", "names"]

ACTORS = 3
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
names = st.sampled_from([*PARTS])


@dataclass(slots=True)
class Held:
    """A hold and its owner, acquired by the public interface (``lease``) or by hand (``pending``)."""

    actor: int
    hold: Hold
    lease: Lease | None = None
    pending: Pending | None = None
    losses: list[str] = field(default_factory=list)
    was_invalid: bool = False

    @property
    def id(self) -> str:
        return self.hold.claim_id


class State(RuleBasedStateMachine):
    """Clients, waiters and holders on three names."""

    harness_class: type[Harness]
    scratch: Path

    def __init__(self) -> None:
        super().__init__()
        self.harness = self.harness_class(Path(tempfile.mkdtemp(dir=self.scratch)))
        # A harness looks them up anew each time, and a choice of rules asks often.
        self.can = self.harness.capabilities
        self.clients: list[Client] = []
        self.steppers: list[Stepper] = []
        self.pending: list[tuple[int, Pending]] = []
        self.holds: list[Held] = []
        self.copies: list[LeaseCopy] = []
        self.seen = Seen(self.harness, PARTS, self.invalid)
        self.bound: dict[str, float] = {}
        self.longest: dict[str, float] = {}
        self.hot = ""
        self.drained = False

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

    # -- the changes that a step may make

    @contextmanager
    def step(
        self,
        guarantee: str,
        may_go: Collection[str] = (),
        pending: Pending | None = None,
        may_shorten: Collection[str] = (),
    ) -> Iterator[set[str]]:
        """Run one step and compare. Claims that the body puts into the set may be new or newly granted."""
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
        """Note that a request for this hold was just sent, so that its time counts from now."""
        terms = held.claim.terms
        least = longer * terms.ttl + terms.lock_delay + terms.min_hold + self.harness.grain
        self.longest[held.claim_id] = max(self.longest.get(held.claim_id, 0.0), least)
        self.bound[held.claim_id] = max(self.bound.get(held.claim_id, 0.0), self.harness.clock.now() + least)
