"""Heartbeats. The keeper confirms each session in the background, so claims that hold cost no request.

For the claims that wait, each beat lists their queues, one request per name, which makes up for a lost wake.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from lockkit.errors import CapabilityError, OutcomeUnknown
from lockkit.store.spi import Beat, Claim, Refused, Renewal, Unknown
from lockkit_zookeeper.entries import Entry
from lockkit_zookeeper.failures import SILENT, not_connected
from lockkit_zookeeper.layout import Queue, read_queue
from lockkit_zookeeper.private import Exists
from lockkit_zookeeper.requests import Call
from lockkit_zookeeper.session import Session
from lockkit_zookeeper.store import ZooKeeperStore

__all__ = ["extend", "renew"]

_LATE = 0.6
"""The part of its timeout after which a session without a confirmation is reported as trouble."""


def renew(store: ZooKeeperStore, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
    """See :meth:`lockkit.store.spi.Backend.renew`.

    Raises:
        Refused, Unknown: No claim has an answer. If some have one, the others are UNKNOWN.
    """
    end = time.monotonic() + budget
    answers: list[Renewal | None] = [None] * len(beats)
    troubles: list[Refused | Unknown] = []
    waiting: dict[tuple[Session, str], list[tuple[int, Entry]]] = {}
    now = store.clock.now()
    rest: Iterable[int] = range(len(beats))
    for session in store.sessions():
        rest = _healthy(session, beats, rest, answers, now)
        if not rest:
            break
    for at in rest:
        claim, fence = beats[at]
        found = store.entry(claim.token)
        try:
            if found is None:
                answers[at] = _anothers(store, claim, fence, end)
            elif found[1].held or found[1].ended or fence is not None:
                answers[at] = _held(*found, fence, now)
            else:
                waiting.setdefault((found[0], claim.terms.name), []).append((at, found[1]))
        except (Refused, Unknown) as trouble:
            troubles.append(trouble)
    for (session, name), some in waiting.items():
        try:
            queue = _listed(session, name, end)
        except (Refused, Unknown) as trouble:
            troubles.append(trouble)
            with session.mutex:  # its owner did renew; the store gave no answer
                for _, entry in some:
                    if entry.fits_since is None and not entry.ended:
                        entry.heard(now)
            continue
        for at, entry in some:
            answers[at] = _waiting(session, entry, queue, now)
    if troubles and not any(answers):
        raise troubles[0]
    if None in answers:
        unknown = Renewal("UNKNOWN", trouble=str(troubles[0]))
        return [answer or unknown for answer in answers]
    return answers  # type: ignore[return-value]  # no None is left


def _healthy(
    session: Session, beats: Sequence[Beat], places: Iterable[int], answers: list[Renewal | None], now: float
) -> list[int]:
    """Answer for all healthy held claims of a session at once; return the places of the other claims."""
    rest = []
    with session.mutex:
        basis, span = session.basis, session.span
        if session.run_out(now) or now >= basis + _LATE * session.timeout:
            return list(places)
        held, entries = Renewal("HELD", basis), session.entries
        for at in places:
            claim, fence = beats[at]
            entry = entries.get(claim.token)
            if (
                entry is None
                or not entry.held
                or entry.ended
                or entry.evicted
                or entry.fence != fence
                or now >= entry.deadline
            ):
                rest.append(at)
                continue
            if entry.basis != basis:
                entry.renew(basis, span)
            answers[at] = held if entry.requests is None else held._replace(requests=entry.requests)
    return rest


def _held(session: Session, entry: Entry, fence: int | None, now: float) -> Renewal:
    """Answer for a claim that holds, or has ended.

    Raises:
        Unknown: The session has not been confirmed for too long.
    """
    with session.mutex:
        if not entry.ended and (session.run_out(now) or (entry.held and now >= entry.deadline)):
            session.withdraw(entry, "absent")
        if entry.ended or entry.evicted:
            return Renewal("LOST", why="evicted" if entry.evicted else "absent")
        if fence is None:
            return Renewal("OFFERED", entry.basis)  # its owner has not read the grant
        if not entry.held or entry.fence != fence:
            return Renewal("LOST", why="fence")
        if now >= session.basis + _LATE * session.timeout:
            raise Unknown(
                OutcomeUnknown(
                    f"no answer from {session.connection.where}: the session is not confirmed at present",
                    hint=SILENT,
                )
            )
        entry.renew(session.basis, session.span)
        return Renewal("HELD", session.basis, entry.requests)


def _listed(session: Session, name: str, end: float) -> Queue:
    if not session.connection.up:  # other holders must not wait for it
        raise not_connected(session.connection.where, "the connection is cut")
    nodes = Call(session.connection, end).listed(session.store.paths.queue(name), sync=False)
    return read_queue(nodes or (), name)


def _waiting(session: Session, entry: Entry, queue: Queue, now: float) -> Renewal:
    place = queue.place(entry.token)
    with session.mutex:
        if entry.path is None and not entry.ended:
            return Renewal("WAITING")  # its create is under way, and its owner will ask
        if place is None or entry.ended or entry.evicted:
            if place is None:
                session.end(entry, "absent")
            return Renewal("LOST", why="evicted" if entry.evicted else "absent")
        if place < queue.grants or queue.last_to_hold(place):  # then its owner has to ask: see `step_back`
            entry.offered(now)
            return Renewal("OFFERED")
        entry.heard(now)
        return Renewal("WAITING", requests=entry.requests)


def _anothers(store: ZooKeeperStore, claim: Claim, fence: int | None, end: float) -> Renewal:
    """Answer for another client's claim: whether it exists. Its session is not here, so there is no basis."""
    parent = store.paths.queue(claim.terms.name)
    call = Call(store.any(end).connection, end)
    queue = read_queue(call.settled(parent), claim.terms.name)
    place = queue.place(claim.token)
    if place is None:
        return Renewal("LOST", why="absent")
    if fence is None:
        return Renewal("OFFERED" if place < queue.fits else "WAITING")
    stat = call.ask(Exists(f"{parent}/{queue.claims[place].node}", None))
    if stat is None or stat.czxid != fence or queue.surely_waits(place):
        return Renewal("LOST", why="fence")
    return Renewal("HELD")


def extend(store: ZooKeeperStore, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:  # noqa: ARG001
    """See :meth:`lockkit.store.spi.Backend.extend`. A session's timeout never changes: LOST if it is lost.

    Raises:
        Refused: With CapabilityError, if it is held.
    """
    (renewal,) = renew(store, [(claim, fence)], budget)
    if renewal.state == "HELD":
        raise Refused(
            CapabilityError(
                "the ttl of a claim on ZooKeeper cannot be changed: "
                "it is the timeout of its session, which is fixed",
                name=claim.terms.name,
            ),
            retry=False,
        )
    return renewal
