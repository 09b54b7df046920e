"""Acquire: create and list, sent in a row, are one round trip. Release: delete the own node."""

from __future__ import annotations

import time
from random import random
from typing import Any

import kazoo.exceptions as theirs

from lockkit.errors import OutcomeUnknown
from lockkit.facts import ClaimInfo, Owner
from lockkit.names import claim_id
from lockkit.store.spi import (
    ABSENT,
    RELEASED,
    Answer,
    Busy,
    Claim,
    Granted,
    Lapsed,
    Queued,
    Refused,
    ReleaseAnswer,
    Unknown,
)
from lockkit_zookeeper.connection import Connection
from lockkit_zookeeper.entries import Entry
from lockkit_zookeeper.layout import Queue, read_queue
from lockkit_zookeeper.node_data import claim_info, unpacked
from lockkit_zookeeper.private import Create2, CreateContainer, GetChildren, GetData, Sync
from lockkit_zookeeper.requests import (
    ask_all,
    find,
    left,
    make_parents,
    remove,
    send_all,
    wait_for,
    wait_for_last,
)
from lockkit_zookeeper.session import Session
from lockkit_zookeeper.store import ZooKeeperStore

__all__ = ["acquire", "emergency_release", "release"]

_EPHEMERAL_SEQUENTIAL = 3
_ROUNDS = 8
"""How often a parent may vanish between its making and the create."""
_PAUSE, _LONGEST_PAUSE = 0.005, 0.05
"""Seconds between the looks of a try that is held up by other tries."""
_STAYS, _ROUND_TRIPS = 0.05, 3.0
"""A try that has stood in the queue for so many seconds, and for so many round trips, is not a refused one about to leave: it holds."""


def acquire(store: ZooKeeperStore, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
    """See :meth:`lockkit.store.spi.Backend.acquire`."""
    end = time.monotonic() + budget
    found = store.entry(claim.token)
    if found is None:
        why = store.buried(claim.token)
        if why is not None or not create:
            return Lapsed(why or "absent")
        session = store.at(claim.terms.ttl, budget)
        entry = session.join(claim)
        if not claim.wait:
            return _tried(store, session, entry, None, end)
        queue = _created(store, session, entry, end)
    else:
        session, entry = found
        if entry.ended:
            return entry.lapsed()
        if entry.path is None and (not entry.sent or find(session, entry, left(end)) is None):
            if not claim.wait:
                return _tried(store, session, entry, None, end)
            queue = _created(store, session, entry, end)
        else:
            # With a `sync`: otherwise a lagging member would confirm a claim that is gone, or delay one that could hold.
            queue, _ = _looked(store, session, claim, end)
            if not claim.wait and not entry.held:
                return _tried(store, session, entry, queue, end)
    if entry.ended:
        return entry.lapsed()
    return _judged(store, session, entry, queue, claim, end)


def _looked(store: ZooKeeperStore, session: Session, claim: Claim, end: float) -> tuple[Queue, bool]:
    """The queue as the leader has it, and whether there is a parent for it."""
    parent = store.known(claim.terms).parent
    _, nodes = ask_all(session.connection, (Sync(parent), GetChildren(parent, None)), end, f"list {parent}")
    return read_queue(nodes or (), claim.terms.name), nodes is not None


def _tried(store: ZooKeeperStore, session: Session, entry: Entry, queue: Queue | None, end: float) -> Answer:
    """Acquire without waiting, and leave nothing if that is refused.

    ZooKeeper has no create on a condition. If each try made its node and then looked, the nodes of refused tries would stand in
    the queue for a moment and the next tries would be refused for them, and with enough of them nobody would ever get a free lock. So a try looks
    first, and makes its node only if there is room. Of the tries that do so at the same time the first is granted; the others
    delete their nodes and look again. So whenever an empty queue gets its first node, some try is granted.

    For the same reason another try in the way is no reason to be refused, unless that try stays: then it holds the lock. ``queue`` is the
    queue with the claim's own node in it, if that is there already.
    """
    claim, terms = entry.claim, entry.claim.terms
    began = time.monotonic()
    until = began + (end - began) / 2  # the rest is for removing a node that is being created then
    seen: dict[str, float] = {}
    pause = _PAUSE
    there = True
    if queue is None and not store.should_be_empty(store.known(terms).parent):
        queue, there = _looked_first(store, session, entry, end)
    stays = max(_STAYS, _ROUND_TRIPS * (time.monotonic() - began))
    while True:
        if entry.ended:
            return _over(session, entry)
        if entry.path is not None:
            assert queue is not None
            place = queue.place(claim.token)
            if place is None or place < queue.grants or entry.evicted:
                return _judged(store, session, entry, queue, claim, end)
            _withdraw(session, entry, end)
            queue = queue.without(claim.token)
        vacancy = "now"
        if queue is not None:
            vacancy = queue.vacancy(terms.weight, terms.capacity, _staying(queue, seen, stays))
        if vacancy == "now":
            queue, there = _created(store, session, entry, end, there=there), True
            continue
        assert queue is not None
        if vacancy == "none" or time.monotonic() >= until:
            return _refused(store, session, entry, queue, end)
        time.sleep(min(pause * (0.5 + random()), max(0.0, until - time.monotonic())))
        pause = min(2 * pause, _LONGEST_PAUSE)
        queue, there = _looked_first(store, session, entry, end)


def _staying(queue: Queue, seen: dict[str, float], stays: float) -> list[str]:
    """The tokens of the tries that have been seen for so long that they must hold."""
    at = time.monotonic()
    return [
        each.token for each in queue.claims if each.tries and at >= seen.setdefault(each.token, at) + stays
    ]


def _looked_first(store: ZooKeeperStore, session: Session, entry: Entry, end: float) -> tuple[Queue, bool]:
    """The queue, for a claim that has no node in it.

    Raises:
        Refused: There is no answer; so nothing was done.
    """
    try:
        return _looked(store, session, entry.claim, end)
    except (Refused, Unknown) as trouble:
        session.end(entry, "absent")
        session.forget(entry)  # no trace is left: the same token may be sent again
        if isinstance(trouble, Refused):
            raise
        raise Refused(trouble.error) from trouble


def _withdraw(session: Session, entry: Entry, end: float) -> None:
    """Take back the node of a try that does not fit.

    Raises:
        Refused, Unknown: The node may still be there. It is removed in the background.
    """
    assert entry.path is not None
    try:
        remove(session.connection, entry.path, end)
    except (Refused, Unknown):
        session.end(entry, "late")
        session.maintenance.remove(entry)
        raise
    entry.withdrawn()


def _over(session: Session, entry: Entry) -> Lapsed:
    """Answer Lapsed for a claim that was ended while its create was under way, and have the node removed if it was made."""
    if entry.sent:
        session.maintenance.remove(entry)
    else:
        session.gone(entry)
    return entry.lapsed()


def _created(
    store: ZooKeeperStore, session: Session, entry: Entry, end: float, *, there: bool = True
) -> Queue:
    """Make the claim's node; the queue as it was just after. ``there`` is false if the parent is known not to be there.

    Raises:
        Refused: The node is definitely not there.
        Unknown: The node may be there, or may yet come.
    """
    claim, connection = entry.claim, session.connection
    packed_terms = store.known(claim.terms)
    make = Create2(
        packed_terms.path(claim),
        packed_terms.first(claim, store.clock.wall()),
        store.acl,
        _EPHEMERAL_SEQUENTIAL,
    )
    doing = f"create {packed_terms.parent}/..."
    try:
        container = (CreateContainer(packed_terms.parent, store.acl),)
        first: tuple[Any, ...] = () if there else container
        for _ in range(_ROUNDS):
            entry.sent = True
            *_, created, listed = answers = send_all(
                connection, (*first, make, GetChildren(packed_terms.parent, None)), end
            )
            wait_for_last(answers, end)
            try:
                path, stat = wait_for(created, connection, end, doing)
            except theirs.NoNodeError:
                entry.sent = False
                if first:  # its parent is not there either
                    make_parents(connection, packed_terms.parent, store.acl, end)
                first = container
                continue
            entry.path, entry.fence = path, stat.czxid
            session.maintenance.lasting(entry)
            break
        else:
            entry.sent = False
            raise Refused(OutcomeUnknown(f"{connection.where}: {packed_terms.parent} keeps vanishing"))
    except Refused:
        session.end(entry, "absent")
        session.forget(entry)  # no trace is left: the same token may be sent again
        raise
    try:
        nodes = wait_for(listed, connection, end, f"list {packed_terms.parent}")
    except theirs.NoNodeError:
        nodes = ()
    except Refused as refusal:  # its node exists all the same
        remove(connection, path, end)
        session.gone(entry)
        raise Refused(refusal.error, retry=False) from refusal
    try:
        return read_queue(nodes, claim.terms.name)
    except Refused:  # this version must not judge the queue: leave nothing of this claim in it
        session.end(entry, "absent")
        session.maintenance.remove(entry)
        raise


def _judged(
    store: ZooKeeperStore, session: Session, entry: Entry, queue: Queue, claim: Claim, end: float
) -> Answer:
    """The answer for a claim that a listing of its queue implies."""
    now = store.clock.now()
    parent = store.known(claim.terms).parent
    place = queue.place(claim.token)
    if queue.spent:
        session.maintenance.tidy(parent)
    if place is None:
        too_heavy = queue.claims and queue.claims[0].capacity < claim.terms.weight
        session.end(entry, "resized" if too_heavy else "absent")
        session.gone(entry)
        return entry.lapsed()
    if entry.evicted or (entry.held and now >= entry.deadline):
        session.end(entry, entry.over)
        session.maintenance.remove(entry)
        return entry.lapsed()
    if entry.held or place < queue.grants:
        waited = not entry.held
        entry.alone = len(queue.claims) == 1 and not queue.markers
        if not session.grant(entry):
            session.end(entry, entry.over)
            session.maintenance.remove(entry)
            return entry.lapsed()
        if waited:
            session.maintenance.granted(entry, store.clock.wall())
        return Granted(entry.fence, entry.basis)
    with session.mutex:
        entry.heard(now)
    holder = _head(store, session.connection, claim.terms.name, queue, end)
    return Queued(place, None, tuple(queue.blockers(place)), queue.claims[0].capacity, holder)


def _refused(store: ZooKeeperStore, session: Session, entry: Entry, queue: Queue, end: float) -> Busy:
    """Refuse a try that has no room; nothing of the try is in the queue."""
    session.end(entry, "late")
    session.gone(entry)
    return Busy(
        queue.claims[0].capacity, _head(store, session.connection, entry.claim.terms.name, queue, end)
    )


def _head(store: ZooKeeperStore, connection: Connection, name: str, queue: Queue, end: float) -> ClaimInfo:
    """The first claim of the queue, from memory if possible."""
    head = f"{store.paths.queue(name)}/{queue.claims[0].node}"
    known = store.heads.get(head)
    if known is not None:
        return known
    try:
        (answer,) = send_all(connection, (GetData(head, None),), end)
        info = _info(name, queue, wait_for(answer, connection, end, f"read {head}"))
    except (
        Refused,
        Unknown,
        theirs.NoNodeError,
    ):  # the node may be gone or unreadable; its data is for people only
        return _unread(name, queue)
    store.remember(head, info)
    return info


def _info(name: str, queue: Queue, answer: tuple[bytes, object]) -> ClaimInfo:
    data, stat = answer
    fence = getattr(stat, "czxid", 0)
    return claim_info(name, queue.claims[0], 0, "HELD", unpacked(data, "a claim"), fence)


def _unread(name: str, queue: Queue) -> ClaimInfo:
    first = queue.claims[0]
    return ClaimInfo(
        name, claim_id(first.token), "HELD", Owner(), 0, 0, weight=first.weight, capacity=first.capacity
    )


def release(store: ZooKeeperStore, claim: Claim, budget: float) -> ReleaseAnswer:
    """Remove a claim's node, this client's or another's, by its token.

    Raises:
        Refused: The node is still there.
        Unknown: The node may be there, or may yet come.
    """
    end = time.monotonic() + budget
    found = store.entry(claim.token)
    if found is None:
        store.bury(claim.token)
        return _search(store, store.any(budget).connection, claim, end)
    session, entry = found
    session.end(entry, "late")
    if session.lost:
        session.gone(entry)
        return ABSENT
    try:
        if entry.path is None and (not entry.sent or find(session, entry, budget) is None):
            session.gone(entry)
            return ABSENT
        assert entry.path is not None
        try:
            there = remove(session.connection, entry.path, end, entry.version)
        except theirs.BadVersionError:
            # Somebody wrote to it: perhaps a resize, whose marker goes with the last claim.
            entry.resized = True
            there = remove(session.connection, entry.path, end)
    except (Refused, Unknown):
        session.maintenance.remove(entry)  # the claim has ended, so nothing else removes it
        raise
    session.gone(entry)
    if there and entry.alone:
        store.left_empty(entry.path.rpartition("/")[0])
    return RELEASED if there else ABSENT


def emergency_release(store: ZooKeeperStore, claim: Claim, budget: float) -> ReleaseAnswer:
    """Do the same as :func:`release`, over a connection of its own.

    Raises:
        Unknown: Nothing was found, but the session's own connection may still bring it.
    """
    end = time.monotonic() + budget
    found = store.entry(claim.token)
    if found is not None:
        found[0].end(found[1], "late")
    else:
        store.bury(claim.token)
    nothing = lambda *_: None  # noqa: E731
    fresh = Connection(store.address, store.can.min_ttl, store.clock, nothing, nothing, nothing)
    try:
        fresh.start()
        fresh.wait(left(end))
        answer = _search(store, fresh, claim, end)
    finally:
        fresh.close(goodbye=True)
    if found is not None:
        session, entry = found
        if answer == ABSENT and entry.path is None and entry.sent and not session.lost:
            raise Unknown(OutcomeUnknown(f"{fresh.where}: a request for this claim may still be under way"))
        session.gone(entry)
    return answer


def _search(store: ZooKeeperStore, connection: Connection, claim: Claim, end: float) -> ReleaseAnswer:
    """Remove what a listing shows of a token, after a ``sync``: another session made it."""
    parent = store.paths.queue(claim.terms.name)
    _, nodes = ask_all(connection, (Sync(parent), GetChildren(parent, None)), end, f"list {parent}")
    there = [
        remove(connection, f"{parent}/{node}", end)
        for node in nodes or ()
        if node.startswith(f"{claim.token}-")
    ]
    return RELEASED if any(there) else ABSENT
