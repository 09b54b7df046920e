"""Requests that are waited for, each within a budget, with kazoo's errors told apart by the one table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import kazoo.exceptions as theirs
from kazoo.security import ACL, OPEN_ACL_UNSAFE, Id, Permissions

from lockkit.store.spi import Refused
from lockkit_zookeeper.address import Address
from lockkit_zookeeper.answers import Answer
from lockkit_zookeeper.connection import Connection
from lockkit_zookeeper.entries import Entry
from lockkit_zookeeper.failures import explained, unanswered
from lockkit_zookeeper.private import Create, CreateContainer, Delete, Exists, GetChildren, Sync
from lockkit_zookeeper.session import Session

__all__ = [
    "access",
    "ask",
    "ask_all",
    "find",
    "left",
    "make_parents",
    "remove",
    "send_all",
    "wait_for",
    "wait_for_last",
]

_LEAST = 0.005
_PERSISTENT = 0
_EXPECTED = (theirs.NoNodeError, theirs.NodeExistsError, theirs.BadVersionError, theirs.NotEmptyError)


def left(end: float) -> float:
    """Seconds up to an end on the monotonic clock; a little at least."""
    return max(_LEAST, end - time.monotonic())


def wait_for(answer: Answer, connection: Connection, end: float, doing: str) -> Any:
    """Wait for an answer.

    Raises:
        Refused, Unknown: An error, or no answer in time.
        NoNodeError, NodeExistsError, BadVersionError: Errors that a caller may handle.
    """
    if not answer.wait(left(end)):
        raise unanswered(TimeoutError(), connection.where)
    error = answer.exception
    if error is None:
        return answer.value
    if isinstance(error, _EXPECTED):
        raise error
    raise explained(error, connection.where, doing) from error


def wait_for_last(answers: Sequence[Any], end: float) -> None:
    """Sleep once until all requests of a row are answered, instead of once for each: answers come in order."""
    answers[-1].wait(timeout=left(end))


def ask(connection: Connection, request: Any, end: float, doing: str) -> Any:
    """Send a request and wait for its answer; see :func:`wait_for`."""
    (answer,) = send_all(connection, (request,), end)
    return wait_for(answer, connection, end, doing)


def ask_all(connection: Connection, requests: Sequence[Any], end: float, doing: str) -> list[Any]:
    """Send requests in a row; their answers in order, None for a node that is not there.

    Raises:
        Refused, Unknown: For any other error.
    """
    found = []
    answers = send_all(connection, requests, end)
    wait_for_last(answers, end)
    for answer in answers:
        try:
            found.append(wait_for(answer, connection, end, doing))
        except theirs.NoNodeError:
            found.append(None)
    return found


def send_all(connection: Connection, requests: Sequence[Any], end: float) -> list[Any]:
    """Send requests in a row, as soon as there is a connection.

    Raises:
        Refused: There is none in time, so nothing was sent.
    """
    if not connection.up:
        connection.wait(left(end))
    return [connection.send(request) for request in requests]


def find(session: Session, entry: Entry, budget: float) -> str | None:
    """Find out what became of a create that was not answered; the claim's path, or None if it is definitely not there.

    What was sent before on this session has been done by the time of the ``sync``, or never will be: on one connection the
    server keeps the order, and what is still under way on an earlier one it refuses.
    """
    end = time.monotonic() + budget
    if session.lost:
        return None
    connection = session.connection
    parent = session.paths.queue(entry.claim.terms.name)
    doing = f"list {parent}"
    _, nodes = ask_all(connection, (Sync(parent), GetChildren(parent, None)), end, doing)
    for node in nodes or ():
        if node.startswith(f"{entry.token}-"):
            path = f"{parent}/{node}"
            stat = ask(connection, Exists(path, None), end, f"look at {path}")
            if stat is None:
                return None
            if stat.ephemeralOwner != connection.session:  # never adopted: that session may end at any time
                remove(connection, path, end)
                return None
            entry.path, entry.fence = path, stat.czxid
            return path
    return None


def remove(connection: Connection, path: str, end: float, version: int = -1) -> bool:
    """Delete a node; whether it was there.

    Raises:
        BadVersionError: The node's data has another version.
    """
    try:
        ask(connection, Delete(path, version), end, f"delete {path.rpartition('/')[0]}/...")
    except theirs.NoNodeError:
        return False
    return True


def access(address: Address) -> list[ACL]:
    """The ACL of the nodes that are made here."""
    if address.user is None:
        return list(OPEN_ACL_UNSAFE)
    acl = [ACL(Permissions.ALL, Id("auth", ""))]
    if address.observer is not None:
        acl.append(ACL(Permissions.READ, Id("digest", address.observer)))
    return acl


def make_parents(connection: Connection, parent: str, acl: Sequence[ACL], end: float) -> None:
    """Make a container for claims, notes or the like, and whatever is missing above it."""
    try:
        _make(connection, CreateContainer(parent, acl), parent, end)
        return
    except theirs.NoNodeError:
        pass
    steps = parent.split("/")[1:-1]
    for depth in range(1, len(steps) + 1):
        path = "/" + "/".join(steps[:depth])
        try:
            _make(connection, Create(path, b"", acl, _PERSISTENT), path, end)
        except Refused:
            if depth < len(steps) and ask(connection, Exists(path, None), end, f"look at {path}") is not None:
                continue  # the parent exists, and this user may not create it
            raise
    _make(connection, CreateContainer(parent, acl), parent, end)


def _make(connection: Connection, request: Any, path: str, end: float) -> None:
    try:
        ask(connection, request, end, f"create {path}")
    except theirs.NodeExistsError:
        pass
