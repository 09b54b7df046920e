"""Operations for people: look at queues (needs only the right to read), annotate claims; and the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import kazoo.exceptions as theirs

from lockkit.errors import PermissionDenied
from lockkit.facts import ClaimInfo, ClaimState, LockInfo, Record
from lockkit.store.comparing import annotate as by_compare
from lockkit.store.layouts import record_in
from lockkit.store.notes import merged, note_of, note_text, patched
from lockkit.store.spi import NOTE_LIMIT, Conflict, Refused
from lockkit.store.untrusted import object_in
from lockkit.values.names import decode
from lockkit_zookeeper.connection import Connection
from lockkit_zookeeper.layout import Queue, client_of, read_queue
from lockkit_zookeeper.node_data import VERSION, claim_info, packed, unpacked
from lockkit_zookeeper.private import Create2, Delete, Exists, GetChildren, GetData, SetData, Sync
from lockkit_zookeeper.requests import Call
from lockkit_zookeeper.store import ZooKeeperStore

__all__ = [
    "annotate",
    "inspect",
    "listed",
    "names",
    "namespaces",
    "put_record",
    "read_claims",
    "record",
    "state_of",
    "tidy",
]


def listed(store: ZooKeeperStore, call: Call, name: str, *, settled: bool = True) -> Queue:
    """The queue of a name as the leader has it.

    Args:
        store: The store.
        call: The call.
        name: The name.
        settled: Whether to prove with a write that the leader still leads. Otherwise a deposed leader may
            have answered: then a claim may exist that is not listed.
    """
    parent = store.paths.queue(name)
    queue = read_queue((call.settled(parent) if settled else call.listed(parent)) or (), name)
    if not queue.claims:
        tidy(call.connection, parent, queue.spent)
    return queue


def tidy(connection: Connection, parent: str, spent: Iterable[str]) -> None:
    """Delete markers of resizes that apply to no claim any more, if the login may, without waiting.

    A parent gives each number once, so no new node has the name of an old one. A delete that comes so late
    that the parent is another one belongs to a session that has ended by then.
    """
    for node in spent:
        connection.send(Delete(f"{parent}/{node}", -1))


def read_claims(
    store: ZooKeeperStore, call: Call, name: str, queue: Queue
) -> list[tuple[dict[str, Any], Any] | None]:
    """Read the data and the stat of each node of a queue; None for a node that has gone meanwhile."""
    parent = store.paths.queue(name)
    found = call.ask_all(*(GetData(f"{parent}/{claim.node}", None) for claim in queue.claims))
    return [each and (object_in(each[0]) or {}, each[1]) for each in found]


def state_of(queue: Queue, place: int, data: Mapping[str, Any]) -> ClaimState:
    """A claim's state. A client that waited notes in the node that it holds; others have noted nothing."""
    if data.get("granted"):
        return "HELD"
    if place >= queue.fits:
        return "HELD" if queue.claims[place].may_hold and not data.get("waits") else "WAITING"
    return "OFFERED" if data.get("waits") else "HELD"


def inspect(store: ZooKeeperStore, name: str, budget: float) -> LockInfo:
    """See :meth:`lockkit.store.spi.Backend.inspect`."""
    call = store.call(budget)
    queue = listed(store, call, name, settled=False)  # no write for each look
    read = read_claims(store, call, name, queue)
    at = store.clock.wall()
    owners = {client_of(each[1].ephemeralOwner) for each in read if each}
    notes = call.ask_all(*(GetChildren(store.paths.notes(owner), None) for owner in owners))
    named = {note for some in notes for note in some or ()}
    claims: list[ClaimInfo] = []
    for place, each in enumerate(read):
        if each is not None:
            data, stat = each
            state = state_of(queue, place, data)
            info = claim_info(name, queue.claims[place], len(claims), state, data, stat.czxid)
            claims.append(info._replace(evicted=info.claim_id in named))
    return LockInfo(name, tuple(claims), at)


def names(store: ZooKeeperStore, prefix: str, budget: float, *, deep: bool = False) -> list[str]:  # noqa: ARG001
    """See :meth:`lockkit.store.spi.Backend.names`. All are children of one node: ``deep`` changes nothing.

    A queue that only another login may list is included, even if empty: it must not hide the others.
    """
    call, parent = store.call(budget), store.paths.queues
    nodes = call.listed(parent) or ()
    found = sorted((name, node) for node in nodes if (name := decode(node)).startswith(prefix))
    lists = call.row([GetChildren(f"{parent}/{node}", None) for _, node in found])
    taken = []
    for (name, _), (request, answer) in zip(found, lists, strict=True):
        try:
            claims = call.result(request, answer)
        except theirs.NoNodeError:
            continue
        except Refused as refusal:
            if not isinstance(refusal.error, PermissionDenied):
                raise
            taken.append(name)
            continue
        if any(not claim.startswith("resize-") for claim in claims):
            taken.append(name)
        else:
            tidy(call.connection, request.path, claims)
    return taken


def namespaces(store: ZooKeeperStore, budget: float) -> list[str]:
    """See :class:`lockkit.store.spi.Extras`. Includes those whose queues only another login may list."""
    call, root = store.call(budget), store.paths.everywhere
    found = []
    for namespace in call.listed(root) or ():
        queues = f"{root}/{namespace}/q"
        try:
            nodes = call.listed(queues, sync=False) or ()
            mark = Exists(store.paths.mark_of(namespace), None)
            marked, *stats = call.ask_all(mark, *(Exists(f"{queues}/{node}", None) for node in nodes))
        except Refused as refusal:
            if not isinstance(refusal.error, PermissionDenied):
                raise
            found.append(namespace)
            continue
        if marked is not None or any(stat is not None and stat.numChildren for stat in stats):
            found.append(namespace)
    return found


def annotate(
    store: ZooKeeperStore, name: str, claim_id: str, patch: Mapping[str, object], budget: float
) -> bool:
    """See :meth:`lockkit.store.spi.Backend.annotate`.

    Raises:
        ConfigError: The patch or the resulting note exceeds :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
    """
    call, parent = store.call(budget), store.paths.queue(name)
    own = None
    # A waiter annotates its own claim, whose path is known.
    for session, path in store.called(name, claim_id):
        if session.connection.up:
            call, own = Call(session.connection, call.end), path

    def attempt() -> bool | None:
        nonlocal own
        path, own, known = own, None, own is not None
        if path is None:
            place = listed(store, call, name).called(claim_id)
            if place is None:
                return False
            path = f"{parent}/{place.node}"
        try:
            data, stat = call.ask(GetData(path, None))
            said = unpacked(data, f"the queue of {name!r}")
            changed = packed({**said, "note": patched(note_of(said.get("note")), patch), "asked": True})
            call.ask(SetData(path, changed, stat.version))
            return True
        except theirs.NoNodeError:
            return None if known else False
        except theirs.BadVersionError:
            return None

    return by_compare(name, patch, attempt)


def record(store: ZooKeeperStore, name: str, budget: float) -> Record | None:
    """See :meth:`lockkit.store.spi.Backend.record`."""
    return _record(store, name, store.call(budget))


def put_record(
    store: ZooKeeperStore, name: str, value: Mapping[str, object], version: int, budget: float
) -> Record:
    """See :meth:`lockkit.store.spi.Backend.put_record`. The version is the node's, plus one.

    Raises:
        Conflict: The record has another version.
        ConfigError: The value is over :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
    """
    note_text(value, NOTE_LIMIT, "record")
    call, path = store.call(budget), store.paths.record(name)
    written = store.clock.wall()
    data = packed({"v": VERSION, "min_reader": VERSION, "written": written, "value": merged({}, value)})
    try:
        if version == 0:
            try:
                call.ask(Create2(path, data, store.acl, 0))
            except theirs.NoNodeError:
                call.make_parents(store.paths.records, store.acl)
                call.ask(Create2(path, data, store.acl, 0))
        else:
            call.ask(SetData(path, data, version - 1))
    except (theirs.NodeExistsError, theirs.BadVersionError, theirs.NoNodeError):
        raise Conflict(_record(store, name, call)) from None
    return Record(name, merged({}, value), version + 1, written)


def _record(store: ZooKeeperStore, name: str, call: Call) -> Record | None:
    path = store.paths.record(name)
    _, found = call.ask_all(Sync(path), GetData(path, None))
    if found is None:
        return None
    data, stat = found
    return record_in(name, dict(object_in(data) or {}, version=stat.version + 1), VERSION)
