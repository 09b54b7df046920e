"""Acquire: create and list, sent in a row, are one round trip.

A claim is granted, or waits, only if the mark of a drain was absent after the claim's own node was made. So a
claim that exists during a drain was there before the mark, and whoever looks after that sees it. Without an
armed watch of the mark, the same row of requests reads the mark, and watches it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import kazoo.exceptions as theirs

from lockkit.errors import OutcomeUnknown
from lockkit.facts import ClaimInfo
from lockkit.lib.clock import jitter
from lockkit.store.drains import refused
from lockkit.store.queue import agreed
from lockkit.store.spi import Answer, Busy, Claim, Granted, Lapsed, Queued, Refused, Unknown
from lockkit_zookeeper.drain_watch import DrainWatch
from lockkit_zookeeper.entries import Entry
from lockkit_zookeeper.layout import Queue, read_queue
from lockkit_zookeeper.node_data import claim_info, unpacked
from lockkit_zookeeper.private import Create2, CreateContainer, Exists, GetChildren, GetData, Sync
from lockkit_zookeeper.requests import Call
from lockkit_zookeeper.resizing import step_back
from lockkit_zookeeper.session import Session
from lockkit_zookeeper.store import HOLDER_READ_INTERVAL, ZooKeeperStore

__all__ = ["acquire", "find"]

_EPHEMERAL_SEQUENTIAL = 3
_ROUNDS = 8
"""How often the parent may be deleted between its creation and the claim's, before the call is refused."""
_PAUSE, _LONGEST_PAUSE = 0.005, 0.05
"""Seconds after which a try that other tries delay lists the queue again."""
_STAYS, _ROUND_TRIPS = 0.05, 3.0
"""A try in the queue for so many seconds and round trips is not a refused one about to leave: it holds."""


def acquire(store: ZooKeeperStore, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
    """See :meth:`lockkit.store.spi.Backend.acquire`."""
    end = time.monotonic() + budget
    found = store.entry(claim.token)
    if found is not None:
        return _Acquiring(store, *found, end).again()
    why = store.buried(claim.token)
    if why is not None or not create:
        return Lapsed(why or "absent")
    session, terms = store.for_claim(claim.terms, end)
    if terms is not claim.terms:
        claim = claim._replace(terms=terms)
    return _Acquiring(store, session, session.join(claim), end).first()


def find(session: Session, entry: Entry, call: Call) -> bool:
    """Find out whether an unanswered create was executed; return whether the claim's node is there."""
    if session.lost:
        return False
    parent = session.store.paths.queue(entry.claim.terms.name)
    for node in call.settled(parent):
        if node.startswith(f"{entry.token}-"):
            path = f"{parent}/{node}"
            stat = call.ask(Exists(path, None))
            if stat is None:
                return False
            if stat.ephemeralOwner != call.connection.session:
                # Never adopted: that session may end at any time.
                call.remove(path)
                return False
            entry.path, entry.fence = path, stat.czxid
            return True
    return False


class _Acquiring:
    """One call of acquire, for a claim that its session looks after."""

    __slots__ = ("call", "claim", "entry", "looked", "mark", "session", "store", "watch", "words")

    def __init__(self, store: ZooKeeperStore, session: Session, entry: Entry, end: float) -> None:
        self.store = store
        self.session = session
        self.entry = entry
        self.claim = entry.claim
        self.words = store.known(entry.claim.terms)
        self.call = Call(session.connection, end)
        self.mark: bytes | None = None
        self.looked = False  # whether it is known that the mark is `mark`, or absent
        self.watch: DrainWatch | None = None

    def first(self) -> Answer:
        """Answer for a claim that has no node."""
        if not self.claim.wait:
            return self.try_it(None)
        return self.judge(self.create())

    def again(self) -> Answer:
        """Answer for a claim that was sent before."""
        entry = self.entry
        if entry.ended:
            return entry.lapsed()
        if entry.path is None and not (entry.sent and find(self.session, entry, self.call)):
            return self.first()
        told, entry.told = entry.told, False
        # Without a `sync` a lagging member could confirm a claim that is gone, or delay one that could hold.
        # A member that has just reported a blocker's end needs none: its listing no longer has the blocker.
        queue, _ = self.look(sync=entry.held or not told, drains=not entry.held)
        if not self.claim.wait and not entry.held:
            return self.try_it(queue)
        return self.judge(queue)

    def look(self, *, sync: bool = True, drains: bool = True) -> tuple[Queue, bool]:
        """List the queue; return it, and whether there is a parent for it.

        Args:
            sync: Have the server catch up with the leader first.
            drains: Find out whether the namespace is drained; a claim that holds is not refused for that.
        """
        parent = self.words.parent
        before = (Sync(parent),) if sync else ()
        at_mark = self.look_at_mark() if drains else ()
        answers = self.call.ask_all(*before, GetChildren(parent, None), *at_mark)[len(before) :]
        nodes = answers[0]
        if drains:
            self.note_mark(answers[1:])
        return read_queue(nodes or (), self.claim.terms.name), nodes is not None

    # -- tries

    def try_it(self, queue: Queue | None) -> Answer:
        """Acquire without waiting, and leave nothing if that is refused.

        ZooKeeper has no create on a condition. If each try made its node and then looked, the nodes of
        refused tries would be in the queue for a moment and have the next tries refused, and with enough of
        them nobody would ever get a free lock. So a try looks first, and makes its node only if there is
        room. Of simultaneous ones the first is granted; the others delete their nodes and look again. So
        whenever an empty queue gets its first node, some try is granted.

        So another try in the way is no reason to be refused, unless that try stays: then it holds the lock.

        Args:
            queue: The queue with the claim's own node in it, if that is there already.
        """
        entry, terms = self.entry, self.claim.terms
        began = time.monotonic()
        # The rest is for removing a node that is being created then.
        until = began + (self.call.end - began) / 2
        seen: dict[str, float] = {}
        pause = _PAUSE
        there = True
        if queue is None and not self.store.should_be_empty(self.words.parent):
            queue, there = self.look_first()
        stays = max(_STAYS, _ROUND_TRIPS * (time.monotonic() - began))
        while True:
            if entry.ended:
                return self.ended_meanwhile()
            if entry.path is not None:
                assert queue is not None
                place = queue.place(entry.token)
                if place is None or place < queue.grants or entry.evicted or self.mark is not None:
                    return self.judge(queue)
                self.withdraw()
                queue = queue.without(entry.token)
            if self.mark is not None:
                raise self.remove_and_refuse(self.mark)
            vacancy = "now"
            if queue is not None:
                at = time.monotonic()
                tries = [each.token for each in queue.claims if each.tries]
                staying = [token for token in tries if at >= seen.setdefault(token, at) + stays]
                vacancy = queue.vacancy(terms.weight, terms.capacity, staying)
            if vacancy == "now":
                queue, there = self.create(there=there), True
                continue
            assert queue is not None
            if vacancy == "none" or time.monotonic() >= until:
                self.session.end(entry, "late")
                self.session.gone(entry)
                return Busy(queue.claims[0].capacity, self.head(queue))
            time.sleep(min(pause * (0.5 + jitter()), max(0.0, until - time.monotonic())))
            pause = min(2 * pause, _LONGEST_PAUSE)
            queue, there = self.look_first()

    def look_first(self) -> tuple[Queue, bool]:
        """Look at the queue for a claim that has no node in it; see :meth:`look`.

        Raises:
            Refused: There is no answer; so nothing was done.
        """
        try:
            return self.look()
        except (Refused, Unknown) as trouble:
            self.forget()
            if isinstance(trouble, Refused):
                raise
            raise Refused(trouble.error) from trouble

    def forget(self) -> None:
        """End a claim of which there is no trace, so that the same token may be sent again."""
        self.session.end(self.entry, "absent")
        self.session.forget(self.entry)

    def withdraw(self) -> None:
        """Delete the node of a try that does not fit.

        Raises:
            Refused, Unknown: The node may still be there. It is removed in the background.
        """
        assert self.entry.path is not None
        try:
            self.call.remove(self.entry.path)
        except (Refused, Unknown):
            self.session.withdraw(self.entry, "late")
            raise
        self.entry.withdrawn()

    def look_at_mark(self) -> tuple[Any, ...]:
        """The request, behind a listing, that shows whether the namespace is drained; none if a watch can."""
        session, path = self.session, self.store.paths.mark
        self.watch = watch = session.drain_watch
        if watch is not None and watch.stands:
            return ()
        if session.drained:
            self.watch = None
            return (GetData(path, None),)
        self.watch = watch = DrainWatch(session.connection)
        return (Exists(path, watch),)

    def note_mark(self, answers: Sequence[Any]) -> None:
        """Keep what any answers to :meth:`look_at_mark` say; read the mark if that is not enough.

        Raises:
            Unknown: The mark cannot be read, and the claim's node may be there.
        """
        session, watch = self.session, self.watch
        found = answers[0] if answers else None
        if watch is None:
            self.mark, self.looked = found and found[0], True
            session.drained = found is not None
            return
        if answers and found is None:
            session.drain_watch = watch
        if found is not None or not watch.stands:
            self.read_mark()
        else:
            self.mark, self.looked = None, True

    def read_mark(self) -> None:
        """Read the mark, in a round trip of its own.

        Raises:
            Unknown: The mark cannot be read, and the claim's node may be there.
        """
        try:
            (found,) = self.call.ask_all(GetData(self.store.paths.mark, None))
        except Refused as refusal:
            raise Unknown(refusal.error, retry=refusal.retry) from refusal
        self.mark, self.looked = found and found[0], True
        self.session.drained = found is not None

    def remove_and_refuse(self, mark: bytes) -> Refused:
        """End a claim that a drain keeps from holding; return the refusal. Its node goes, now or later."""
        path = self.entry.path
        try:
            if path is not None:
                self.call.remove(path)
        except (Refused, Unknown):
            self.session.withdraw(self.entry, "late")
        else:
            self.forget()
        return refused(mark, self.store.paths.namespace)

    def ended_meanwhile(self) -> Lapsed:
        """Answer for a claim that was ended during this call, and have the node removed if it was made."""
        if self.entry.sent:
            self.session.maintenance.remove(self.entry)
        else:
            self.session.gone(self.entry)
        return self.entry.lapsed()

    # -- the node

    def create(self, *, there: bool = True) -> Queue:
        """Make the claim's node; return the queue as it was just after.

        Args:
            there: False if the parent is known not to be there.

        Raises:
            Refused: The node is definitely not there.
            Unknown: The node may be there, or may yet come.
        """
        call, entry, parent = self.call, self.entry, self.words.parent
        entry.data = self.words.first(self.claim, self.store.clock.wall())
        make = Create2(self.words.path(self.claim), entry.data, self.store.acl, _EPHEMERAL_SEQUENTIAL)
        listing = GetChildren(parent, None)
        container = (CreateContainer(parent, self.store.acl),)
        before: tuple[Any, ...] = () if there else container
        at_mark = self.look_at_mark()
        try:
            for _ in range(_ROUNDS):
                entry.sent = True
                answers = call.send(*before, make, listing, *at_mark)
                call.pause(answers)
                created, listed, *looked = answers[len(before) :]
                try:
                    path, stat = call.result(make, created)
                    break
                except theirs.NoNodeError:
                    entry.sent = False
                    if before:  # its parent is not there either
                        call.make_parents(parent, self.store.acl)
                    before = container
            else:
                raise Refused(
                    OutcomeUnknown(
                        f"{call.connection.where}: {parent} was deleted each time "
                        "before a claim could be created in it",
                        hint="does a program other than lockkit delete nodes there?",
                    )
                )
        except Refused:
            self.forget()
            raise
        entry.path, entry.fence = path, stat.czxid
        self.session.maintenance.lasting(entry)
        try:
            nodes = _none_if_absent(call, listing, listed) or ()
            found = [_none_if_absent(call, *each) for each in zip(at_mark, looked, strict=True)]
        except Refused as refusal:  # its node exists all the same
            call.remove(path)
            self.session.gone(entry)
            raise Refused(refusal.error, retry=False) from refusal
        self.note_mark(found)
        try:
            return read_queue(nodes, self.claim.terms.name)
        except Refused:  # this version must not judge the queue: leave nothing of this claim in it
            self.session.withdraw(entry, "absent")
            raise

    # -- answers

    def judge(self, queue: Queue) -> Answer:
        """The answer that a listing of the queue implies."""
        session, entry, now = self.session, self.entry, self.store.clock.now()
        terms = self.claim.terms
        if entry.ended:
            return self.ended_meanwhile()
        place = queue.place(entry.token)
        if queue.spent:
            session.maintenance.tidy(self.words.parent)
        if place is None:
            too_heavy = queue.claims and queue.claims[0].capacity < terms.weight
            session.end(entry, "resized" if too_heavy else "absent")
            session.gone(entry)
            return entry.lapsed()
        if entry.evicted or (entry.held and now >= entry.deadline):
            session.withdraw(entry, entry.over)
            return entry.lapsed()
        if self.mark is not None and not entry.held:
            raise self.remove_and_refuse(self.mark)
        if entry.held or place < queue.grants:
            if not entry.held and not self.looked:
                self.read_mark()
                if self.mark is not None:
                    raise self.remove_and_refuse(self.mark)
            waited = not entry.held
            entry.alone = len(queue.claims) == 1 and not queue.markers
            if not session.grant(entry):
                session.withdraw(entry, entry.over)
                return entry.lapsed()
            if waited:
                session.maintenance.granted(entry, self.store.clock.wall())
            return Granted(entry.fence, entry.basis, terms.ttl)
        if queue.last_to_hold(place):
            # If the marker cannot be replaced now, the waiter's next request tries again.
            with contextlib.suppress(Refused, Unknown):
                step_back(self.store, self.call, terms.name, entry.token)
        with session.mutex:
            entry.heard(now)
        blockers = tuple(queue.blockers(place))
        capacity = agreed(terms.capacity, queue.claims[place].capacity, queue.claims[0].capacity)
        if self.holder_not_worth_reading(queue):
            return Queued(place, now + HOLDER_READ_INTERVAL, blockers, capacity)
        return Queued(place, None, blockers, capacity, self.head(queue))

    def holder_not_worth_reading(self, queue: Queue) -> bool:
        """Whether the lock changes hands so often that reading who is first is not worth a request."""
        first, parent = queue.claims[0], self.words.parent
        if first.capacity != self.claim.terms.capacity:  # an error names its owner
            return False
        return f"{parent}/{first.node}" not in self.store.heads and not self.store.may_read(parent)

    def head(self, queue: Queue) -> ClaimInfo | None:
        """The queue's first claim, from memory if possible; None if unreadable. For people only."""
        first, name = queue.claims[0], self.claim.terms.name
        path = f"{self.words.parent}/{first.node}"
        info = self.store.heads.get(path)
        if info is None:
            try:
                data, stat = self.call.ask(GetData(path, None))
                info = claim_info(name, first, 0, "HELD", unpacked(data, "a claim"), stat.czxid)
            except (Refused, Unknown, theirs.NoNodeError):  # the node may be gone or unreadable
                return None
            self.store.remember(path, info)
        return info


def _none_if_absent(call: Call, request: Any, answer: Any) -> Any:
    """The answer to a request; None if its node does not exist."""
    try:
        return call.result(request, answer)
    except theirs.NoNodeError:
        return None
