"""The rules of the state machine: several clients make random calls, and no step may break a guarantee.

Each rule says which claims it may change; :mod:`lockkit.testing.machine_state` compares.

No precondition of a rule looks at the store: its content depends on how far the clients' background
threads have removed claims, and a choice of rules that depends on it cannot be replayed.
"""

from __future__ import annotations

import pickle
import time

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from lockkit.errors import CapacityMismatch, Drained, LeaseLost, NotHeld
from lockkit.shared.copies import LeaseCopy, handle_of
from lockkit.testing.machine_state import ACTORS, PARTS, Held, State
from lockkit.testing.seen import lapsed
from lockkit.testing.shapes import Part
from lockkit.testing.stepping import Pending, Stepper

__all__ = ["Machine"]

MOST = 7
"""The largest number of claims on one name; more would show nothing new."""
picks = st.integers(0, 11)
actors = st.integers(0, ACTORS - 1)


class Machine(State):
    """The rules. In each of them ``pick`` chooses one of the claims, and ``actor`` one of the clients."""

    # -- acquire

    def choose(self, what: int, elsewhere: bool) -> tuple[str, Part]:  # noqa: FBT001
        """A name (most often the one that all clients use), and a kind of claim on it."""
        name = [*PARTS][what % len(PARTS)] if elsewhere else self.hot
        known = PARTS[name]
        return name, known[what % len(known)]

    def fits(self, name: str) -> bool:
        return len(self.seen.queues[name]) < MOST

    @rule(
        actor=actors,
        what=picks,
        elsewhere=st.booleans(),
        how=st.sampled_from(["plain", "short", "quiet", "bound"]),
    )
    def try_acquire(self, actor: int, what: int, elsewhere: bool, how: str) -> None:  # noqa: FBT001
        name, part = self.choose(what, elsewhere)
        if not self.fits(name):
            return
        can, ttl = self.can, self.harness.ttl
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
            except Drained:
                assert self.drained, "S2-drain: refused although the namespace is not drained"
                lease = None
            if lease is not None:
                assert not self.drained, "S2-drain: granted although the namespace is drained"
                granted.add(lease.claim_id)
                holds = self.clients[actor].driver().registry.holds.get(name, ())
                (hold,) = [hold for hold in holds if hold.claim_id == lease.claim_id]
                self.holds.append(Held(actor, hold, lease=lease, losses=losses))
                self.spoke(hold)

    @rule(actor=actors, what=picks, elsewhere=st.booleans(), quiet=st.booleans())
    def queue(self, actor: int, what: int, elsewhere: bool, quiet: bool) -> None:  # noqa: FBT001
        name, part = self.choose(what, elsewhere)
        if not self.fits(name):
            return
        delay = self.harness.ttl / 10 if quiet and self.can.lock_delay else 0.0
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
            assert not self.drained, "S2-drain: granted although the namespace is drained"
            granted.add(pending.claim_id)
            self.holds.append(Held(actor, pending.hold, pending=pending))
            self.spoke(pending.hold)
        elif not pending.over:
            granted.add(pending.claim_id)
            self.pending.append((actor, pending))
        elif not (self.drained and isinstance(pending.error, Drained)):
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
        extend = extend and not self.can.fixed_ttl
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
        """A client notices which holds it has lost, and removes their claims."""
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

    @rule(pick=picks, at_once=st.booleans())
    def evict(self, pick: int, at_once: bool) -> None:  # noqa: FBT001
        rows = [(name, row) for name, queue in self.seen.queues.items() for row in queue.values()]
        if not rows:
            return
        name, row = rows[pick % len(rows)]
        silent = row.deadline is None and not any(
            held.id == row.claim_id and self.valid(held) for held in self.holds
        )
        may_go = {row.claim_id} if at_once or row.state != "HELD" or silent else set()
        with self.step("S1-evict", may_go=may_go, may_shorten={row.claim_id}):
            self.clients[pick % ACTORS].evict(name, row.claim_id, reason="kit", now=at_once)
        if row.deadline is None and row.claim_id in self.bound:
            # Now it has a deadline: a silent holder gets half a ttl more, to end its command.
            self.bound[row.claim_id] = self.harness.clock.now() + self.longest[row.claim_id]
        if at_once:
            self.forsake(row.claim_id)

    def forsake(self, id_: str) -> None:
        """Release a hold whose claim ``evict --now`` or a copy of the lease ended without its knowledge."""
        for held in [held for held in self.holds if held.id == id_]:
            self.holds.remove(held)
            lingers = id_ in self.seen.queues[held.hold.name]
            report = held.lease.release() if held.lease else self.steppers[held.actor].release(held.hold)
            assert lingers or report.outcome == "LOST", f"S1-ownership: its release said {report.outcome}"

    @rule(capacity=st.integers(1, 3))
    def resize(self, capacity: int) -> None:
        name = "permits"
        if not self.seen.queues[name]:
            return
        heavy = {
            row.claim_id
            for row in self.seen.queues[name].values()
            if row.state != "HELD" and row.weight > capacity
        }
        self.seen.resized.add(name)
        with self.step("S2-resize", may_go=heavy):
            self.clients[0].resize(name, capacity)

    @precondition(lambda self: not self.drained and self.can.drains)
    @rule(pick=picks)
    def drain(self, pick: int) -> None:
        if pick:  # rarely: a drained namespace shows little else
            return
        waits = {
            row.claim_id for rows in self.seen.queues.values() for row in rows.values() if row.state != "HELD"
        }
        with self.step("S2-drain", may_go=waits):
            self.clients[0].drain("kit")
        self.drained = True

    @precondition(lambda self: self.drained)
    @rule()
    def undrain(self) -> None:
        with self.step("S2-drain"):
            assert self.clients[0].undrain() is not None, "S2-drain: the mark is gone"
        self.drained = False

    @rule(share=st.sampled_from([0.02, 0.06, 0.11, 0.34, 0.51, 1.01]))
    def pass_time(self, share: float) -> None:
        self.harness.advance(share * self.harness.ttl)
        for client in self.clients:
            client.driver().heartbeat.look()
            client.driver().orphans.look()
        end = time.monotonic() + 30.0
        while self.unnoticed():
            assert time.monotonic() < end, "S11-no-zombie: the background leaves standing what has run out"
            time.sleep(0.0005)
        with self.step("S5-no-resurrection"):
            pass

    def unnoticed(self) -> bool:
        """Whether a client has yet to notice an expired hold or remove its claim. Replays wait for it."""
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
        with self.step("L1-crash"):  # look: a store may end what a dead client waits for before its deadline
            self.harness.crash(self.clients[actor])
        self.pending = [(owner, pending) for owner, pending in self.pending if owner != actor]
        for held in [held for held in self.holds if held.actor == actor]:
            held.hold.end()
            self.holds.remove(held)
        client = self.harness.client()
        self.clients[actor], old = client, self.clients[actor]
        self.clients.append(old)
        self.steppers[actor] = Stepper(client.driver().backend, self.harness.clock)
