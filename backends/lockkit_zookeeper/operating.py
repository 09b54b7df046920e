"""Operations for people: look at queues, annotate; and the records that outlive claims. Looking takes reading rights only."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import kazoo.exceptions as theirs

from lockkit.errors import PermissionDenied
from lockkit.facts import ClaimInfo, ClaimState, LockInfo, Record
from lockkit.names import claim_id, decode
from lockkit.store.comparing import annotate as by_compare
from lockkit.store.notes import merged, note_text, patched
from lockkit.store.spi import NOTE_LIMIT, Conflict, Refused
from lockkit_zookeeper.connection import Connection
from lockkit_zookeeper.layout import Queue, client_of, read_queue
from lockkit_zookeeper.node_data import VERSION, claim_info, packed, unpacked
from lockkit_zookeeper.private import Create2, Delete, GetChildren, GetData, SetData, Sync
from lockkit_zookeeper.requests import ask, ask_all, make_parents, send_all, wait_for, wait_for_last
from lockkit_zookeeper.store import ZooKeeperStore

__all__ = [
    "annotate",
    "inspect",
    "listed",
    "names",
    "put_record",
    "read_claims",
    "record",
    "state_of",
    "tidy",
]

_ROW = 500


def listed(store: ZooKeeperStore, connection: Connection, name: str, end: float) -> Queue:
    """The queue of a name as the leader has it."""
    parent = store.paths.queue(name)
    _, nodes = ask_all(connection, (Sync(parent), GetChildren(parent, None)), end, f"list {parent}")
    queue = read_queue(nodes or (), name)
    if not queue.claims:
        tidy(connection, parent, queue.spent)
    return queue


def tidy(connection: Connection, parent: str, spent: Iterable[str]) -> None:
    """Take away what resizes have left that nothing goes by any more, without waiting; who may only look cannot.

    A number is given once in the life of a parent, so nothing new can have such a name: a delete that comes so late that even
    the parent is another is of a session that has ended by then.
    """
    for node in spent:
        connection.send(Delete(f"{parent}/{node}", -1))


def read_claims(
    store: ZooKeeperStore, connection: Connection, name: str, queue: Queue, end: float
) -> list[tuple[dict[str, Any], Any] | None]:
    """Read the data and the stat of each node of a queue; None for a node that has gone meanwhile."""
    parent = store.paths.queue(name)
    reads = [GetData(f"{parent}/{claim.node}", None) for claim in queue.claims]
    found: list[Any] = []
    for start in range(0, len(reads), _ROW):
        found += ask_all(connection, reads[start : start + _ROW], end, f"read {parent}/...")
    return [each and (unpacked(each[0], f"the queue of {name!r}"), each[1]) for each in found]


def state_of(queue: Queue, place: int, data: Mapping[str, Any]) -> ClaimState:
    """How a claim stands. Whoever waited writes down that it holds; who never had to wait has written nothing."""
    if data.get("granted"):
        return "HELD"
    if place >= queue.fits:
        return "HELD" if queue.claims[place].may_hold and not data.get("waits") else "WAITING"
    return "OFFERED" if data.get("waits") else "HELD"


def inspect(store: ZooKeeperStore, name: str, budget: float) -> LockInfo:
    """See :meth:`lockkit.store.spi.Backend.inspect`."""
    end = time.monotonic() + budget
    connection = store.any(budget).connection
    queue = listed(store, connection, name, end)
    read = read_claims(store, connection, name, queue, end)
    at = store.clock.wall()
    owners = {client_of(each[1].ephemeralOwner) for each in read if each}
    notes = [GetChildren(store.paths.notes(owner), None) for owner in owners]
    named = (
        {note for some in ask_all(connection, notes, end, "read notes") for note in some or ()}
        if notes
        else set()
    )
    claims: list[ClaimInfo] = []
    for place, each in enumerate(read):
        if each is not None:
            data, stat = each
            state = state_of(queue, place, data)
            info = claim_info(name, queue.claims[place], len(claims), state, data, stat.czxid)
            claims.append(info._replace(evicted=info.claim_id in named))
    return LockInfo(name, tuple(claims), at)


def names(store: ZooKeeperStore, prefix: str, budget: float) -> list[str]:
    """See :meth:`lockkit.store.spi.Backend.names`. All are children of one node: that is the index.

    A queue that only another login may list is among them, be it empty: a stranger's must not hide all others.
    """
    end = time.monotonic() + budget
    connection, parent = store.any(budget).connection, store.paths.queues
    _, nodes = ask_all(connection, (Sync(parent), GetChildren(parent, None)), end, f"list {parent}")
    found = sorted((name, node) for node in nodes or () if (name := decode(node)).startswith(prefix))
    taken = []
    for start in range(0, len(found), _ROW):
        some = found[start : start + _ROW]
        lists = send_all(connection, [GetChildren(f"{parent}/{node}", None) for _, node in some], end)
        wait_for_last(lists, end)
        for (name, node), answer in zip(some, lists, strict=True):
            try:
                claims = wait_for(answer, connection, end, f"list {parent}/{node}")
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
                tidy(connection, store.paths.queue(name), claims)
    return taken


def annotate(
    store: ZooKeeperStore, name: str, claim: str, patch: Mapping[str, object], budget: float
) -> bool:
    """See :meth:`lockkit.store.spi.Backend.annotate`.

    Raises:
        ConfigError: The patch, or the note it would make, is over :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
    """
    end = time.monotonic() + budget
    connection, parent = store.any(budget).connection, store.paths.queue(name)

    def attempt() -> bool | None:
        queue = listed(store, connection, name, end)
        node = next((each.node for each in queue.claims if claim_id(each.token) == claim), None)
        if node is None:
            return False
        path, doing = f"{parent}/{node}", "annotate a claim"
        try:
            data, stat = ask(connection, GetData(path, None), end, doing)
            said = unpacked(data, f"the queue of {name!r}")
            changed = packed({**said, "note": patched(said.get("note") or {}, patch), "asked": True})
            ask(connection, SetData(path, changed, stat.version), end, doing)
            return True
        except theirs.NoNodeError:
            return False
        except theirs.BadVersionError:
            return None

    return by_compare(name, patch, attempt)


def record(store: ZooKeeperStore, name: str, budget: float) -> Record | None:
    """See :meth:`lockkit.store.spi.Backend.record`."""
    end = time.monotonic() + budget
    connection, path = store.any(budget).connection, store.paths.record(name)
    _, found = ask_all(connection, (Sync(path), GetData(path, None)), end, f"read {path}")
    return _record(name, *found) if found else None


def put_record(
    store: ZooKeeperStore, name: str, value: Mapping[str, object], version: int, budget: float
) -> Record:
    """See :meth:`lockkit.store.spi.Backend.put_record`. The version is the node's, plus one.

    Raises:
        Conflict: The record has another version.
        ConfigError: The value is over :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
    """
    note_text(value, NOTE_LIMIT, "record")
    end = time.monotonic() + budget
    connection, path = store.any(budget).connection, store.paths.record(name)
    written = store.clock.wall()
    data = packed({"v": VERSION, "min_reader": VERSION, "written": written, "value": merged({}, value)})
    doing = f"write {path}"
    try:
        if version == 0:
            try:
                ask(connection, Create2(path, data, store.acl, 0), end, doing)
            except theirs.NoNodeError:
                make_parents(connection, store.paths.records, store.acl, end)
                ask(connection, Create2(path, data, store.acl, 0), end, doing)
        else:
            ask(connection, SetData(path, data, version - 1), end, doing)
    except (theirs.NodeExistsError, theirs.BadVersionError, theirs.NoNodeError):
        raise Conflict(record(store, name, max(0.05, end - time.monotonic()))) from None
    return Record(name, merged({}, value), version + 1, written)


def _record(name: str, data: bytes, stat: Any) -> Record:
    said = unpacked(data, f"the record of {name!r}")
    return Record(name, said.get("value", {}), stat.version + 1, float(said.get("written", 0.0)))
