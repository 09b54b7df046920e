"""The requests of one call: each is awaited within the call's budget, and one table maps kazoo's errors."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import kazoo.exceptions as theirs
from kazoo.security import ACL

from lockkit.store.budgets import left
from lockkit.store.spi import Refused
from lockkit_zookeeper.answers import Answer
from lockkit_zookeeper.connection import Connection
from lockkit_zookeeper.failures import explained, unanswered
from lockkit_zookeeper.private import (
    CheckVersion,
    Create,
    CreateContainer,
    Delete,
    Exists,
    GetChildren,
    GetData,
    SetData,
    Sync,
    Transaction,
    agreement,
)

__all__ = ["Call"]

_PERSISTENT = 0
_EXPECTED = (theirs.NoNodeError, theirs.NodeExistsError, theirs.BadVersionError, theirs.NotEmptyError)
_OVERTAKEN = (theirs.NoNodeError, theirs.BadVersionError, theirs.NodeExistsError)
_AT_ONCE = 500
"""Requests that are sent before the first answer is waited for."""
_VERBS = {
    CheckVersion: "look at",
    Delete: "delete",
    Exists: "look at",
    GetChildren: "list",
    GetData: "read",
    SetData: "write",
    Sync: "sync",
}
_TOKEN = re.compile(r"/[0-9a-f]{32}-[^/]*$")


def _told(request: Any) -> str:
    """Describe a request for an error: a verb and the path, without the token in a claim's node name."""
    if isinstance(request, Transaction):
        return f"{_told(request.operations[-1])}, in one step with others"
    return f"{_VERBS.get(type(request), 'create')} {_TOKEN.sub('/...', request.path)}"


class Call:
    """One call to the store.

    Args:
        connection: The connection for its requests.
        end: The end of its budget, on ``time.monotonic()``.
    """

    __slots__ = ("connection", "end")

    def __init__(self, connection: Connection, end: float) -> None:
        self.connection = connection
        self.end = end

    @property
    def left(self) -> float:
        """Seconds until the end; a moment at least."""
        return left(self.end)

    def send(self, *requests: Any) -> list[Answer]:
        """Send requests in a row, as soon as there is a connection.

        Raises:
            Refused: There is none in time, so nothing was sent.
        """
        if not self.connection.up:
            self.connection.wait(self.left)
        return [self.connection.send(request) for request in requests]

    def result(self, request: Any, answer: Answer) -> Any:
        """Wait for the answer to a request that was sent.

        Raises:
            Refused, Unknown: An error, or no answer in time.
            NoNodeError, NodeExistsError, BadVersionError, NotEmptyError: Errors that a caller may handle.
        """
        where = self.connection.where
        if not answer.wait(self.left):
            raise unanswered(TimeoutError(), where)
        error = answer.exception
        if error is None:
            return answer.value
        if isinstance(error, _EXPECTED):
            # A copy: by its traceback the answer's own would refer to frames that refer to the answer. Such a
            # cycle keeps the caller's lease until a garbage collection.
            raise type(error)(*error.args)
        raise explained(error, where, _told(request)) from error

    def pause(self, answers: Sequence[Answer]) -> None:
        """Sleep until a row of requests is answered, once for all, because answers come in order."""
        answers[-1].wait(self.end - time.monotonic())

    def ask(self, request: Any) -> Any:
        """Send a request and wait for its answer; see :meth:`result`."""
        (answer,) = self.send(request)
        return self.result(request, answer)

    def row(self, requests: Sequence[Any]) -> Iterator[tuple[Any, Answer]]:
        """Send requests in a row; yield each with its answer, which has come unless the time is up."""
        for start in range(0, len(requests), _AT_ONCE):
            some = requests[start : start + _AT_ONCE]
            answers = self.send(*some)
            self.pause(answers)
            yield from zip(some, answers, strict=True)

    def ask_all(self, *requests: Any) -> list[Any]:
        """Send requests in a row; return their answers in order, None for a node that does not exist.

        Raises:
            Refused, Unknown: For any other error.
        """
        found = []
        for request, answer in self.row(requests):
            try:
                found.append(self.result(request, answer))
            except theirs.NoNodeError:
                found.append(None)
        return found

    def listed(self, parent: str, *, sync: bool = True) -> list[str] | None:
        """List the children of a node; None if the node does not exist.

        Args:
            parent: The path of the node.
            sync: Have the server catch up with the leader first.
        """
        before = (Sync(parent),) if sync else ()
        nodes: list[str] | None = self.ask_all(*before, GetChildren(parent, None))[-1]
        return nodes

    def settled(self, parent: str) -> list[str]:
        """List a node's children, if any, once all earlier requests of this session are done or refused.

        The servers of one connection execute its requests in order, and refuse those still under way on an
        earlier connection. A ``sync`` would not prove that: a deposed leader that has not noticed answers it,
        and knows nothing of a request that its successor has executed.
        """
        nodes: list[str] | None = self.ask_all(agreement(parent), GetChildren(parent, None))[-1]
        return nodes or []

    def remove(self, path: str, version: int = -1) -> bool:
        """Delete a node; return whether it was there.

        Raises:
            BadVersionError: The node's data has another version.
        """
        try:
            self.ask(Delete(path, version))
        except theirs.NoNodeError:
            return False
        return True

    def commit(self, operations: Sequence[Any]) -> bool:
        """Do all operations in one transaction; False, with nothing done, if a node is not as it was.

        Raises:
            Refused, Unknown: For any other reason.
        """
        transaction = Transaction(operations)
        failures = [each for each in self.ask(transaction) if isinstance(each, Exception)]
        if any(isinstance(each, _OVERTAKEN) for each in failures):
            return False
        for each in failures:
            if not isinstance(each, (theirs.RolledBackError, theirs.RuntimeInconsistency)):
                raise explained(each, self.connection.where, _told(transaction))
        return not failures

    def make_parents(self, parent: str, acl: Sequence[ACL]) -> None:
        """Create a container for claims, notes or the like, and every missing node above it."""
        container = CreateContainer(parent, acl)
        try:
            self._make(container)
            return
        except theirs.NoNodeError:
            pass
        steps = parent.split("/")[1:-1]
        for depth in range(1, len(steps) + 1):
            path = "/" + "/".join(steps[:depth])
            try:
                self._make(Create(path, b"", acl, _PERSISTENT))
            except Refused:
                if depth == len(steps) or self.ask(Exists(path, None)) is None:
                    raise  # otherwise the node exists, and this login may not create it
        self._make(container)

    def _make(self, request: Any) -> None:
        try:
            self.ask(request)
        except theirs.NodeExistsError:
            pass
