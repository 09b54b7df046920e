"""Release: delete the claim's own node. A claim of another client is found by its token."""

from __future__ import annotations

import time

import kazoo.exceptions as theirs

from lockkit.errors import OutcomeUnknown
from lockkit.store.spi import ABSENT, RELEASED, Claim, End, Refused, ReleaseAnswer, Unknown
from lockkit_zookeeper.acquiring import find
from lockkit_zookeeper.connection import Connection
from lockkit_zookeeper.failures import SILENT
from lockkit_zookeeper.requests import Call
from lockkit_zookeeper.store import ZooKeeperStore

__all__ = ["emergency_release", "release"]


def release(store: ZooKeeperStore, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:  # noqa: ARG001
    """See :meth:`lockkit.store.spi.Backend.release`, and ``abandon``. Nothing lingers, whatever ``how`` says.

    Raises:
        Refused: The node of another client is still there.
        Unknown: The node may be there, or may yet come; one of this client is removed in the background.
    """
    found = store.entry(claim.token)
    if found is None:
        store.bury(claim.token)
        return _search(store, store.call(budget), claim)
    session, entry = found
    session.end(entry, "late")
    if session.lost:
        session.gone(entry)
        return ABSENT
    call = Call(session.connection, time.monotonic() + budget)
    try:
        if entry.path is None and not (entry.sent and find(session, entry, call)):
            session.gone(entry)
            return ABSENT
        assert entry.path is not None
        try:
            there = call.remove(entry.path, entry.version)
        except theirs.BadVersionError:
            # Somebody wrote to it: perhaps a resize, whose marker goes with the last claim.
            entry.resized = True
            there = call.remove(entry.path)
    except (Refused, Unknown) as trouble:
        session.maintenance.remove(entry)  # the claim has ended, so nothing else removes it
        # Not Refused: the next request may find this done, and report that somebody else removed the claim.
        raise Unknown(trouble.error, retry=trouble.retry, busy=trouble.busy) from trouble
    session.gone(entry)
    if there and entry.alone:
        store.left_empty(entry.path.rpartition("/")[0])
    return RELEASED if there else ABSENT


def emergency_release(
    store: ZooKeeperStore,
    claim: Claim,
    budget: float,
    *,
    how: End = "released",  # noqa: ARG001
) -> ReleaseAnswer:
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
    fresh = Connection(store.address, store.capabilities.min_ttl, store.clock, until=end + 1.0)
    try:
        fresh.start()
        answer = _search(store, Call(fresh, end), claim)
    finally:
        fresh.close(goodbye=True)
    if found is not None:
        session, entry = found
        if answer == ABSENT and entry.path is None and entry.sent and not session.lost:
            raise Unknown(
                OutcomeUnknown(f"{fresh.where}: a request for this claim may still be under way", hint=SILENT)
            )
        session.gone(entry)
    return answer


def _search(store: ZooKeeperStore, call: Call, claim: Claim) -> ReleaseAnswer:
    """Remove the claim of another session, by its token, as a settled listing shows it."""
    parent = store.paths.queue(claim.terms.name)
    nodes = [node for node in call.settled(parent) if node.startswith(f"{claim.token}-")]
    there = [call.remove(f"{parent}/{node}") for node in nodes]
    return RELEASED if any(there) else ABSENT
