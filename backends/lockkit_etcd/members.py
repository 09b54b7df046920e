"""The members of a cluster: which of them is asked, and how long one may take while there are others to ask."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from lockkit.store.budgets import left
from lockkit.store.spi import Refused, Unknown
from lockkit_etcd.failures import Elsewhere, inherited
from lockkit_etcd.transport import Status

__all__ = ["Member", "Members"]

_SHARE = 0.6
"""The part of the remaining budget that one member may use while there are others to ask."""


class Member(Protocol):
    """One member, as a transport reaches it."""

    def close(self) -> None:
        """Close the connections to it."""


M = TypeVar("M", bound=Member)
T = TypeVar("T")


class Members(Generic[M]):
    """The members that a transport may ask. They belong to the process that made them.

    Args:
        where: The endpoints as a user wrote them, without secrets.
        members: In the order of the URL.
        first: The index of the member to ask first.
        pid: The process that the connections belong to; by default this one.
    """

    def __init__(self, where: str, members: Sequence[M], first: int = 0, pid: int = 0) -> None:
        self._where = where
        self._members = members
        self._first = first % len(members)
        self.pid = pid or os.getpid()

    def ask(self, call: Callable[[M, float], T], budget: float, *, again: bool) -> T:
        """Ask the members in turn until one has answered.

        Args:
            call: Asks one member, until ``time.monotonic()`` is at the second argument.
            budget: Seconds for all of it.
            again: The request may be sent twice. Otherwise a member that got it and is silent ends the search.

        Raises:
            Refused, Unknown: No member has answered, or this process may not ask; the error is that of the last member asked.
        """
        self.check()
        end = time.monotonic() + budget
        many, first = len(self._members), self._first
        for turn in range(many):
            at = (first + turn) % many
            now = time.monotonic()
            until = end if turn == many - 1 else now + max(end - now, 0.0) * _SHARE
            try:
                return call(self._members[at], until)
            except (Elsewhere, Unknown) as trouble:
                if self._first == at:
                    self._first = (at + 1) % many
                more = turn < many - 1 and time.monotonic() < end
                if not (more and (again or isinstance(trouble, Elsewhere))):
                    raise
        raise AssertionError("unreachable")

    def status(self, call: Callable[[M, float], Status], budget: float) -> Sequence[Status | Exception]:
        """Ask every member for its status, in the order of the URL; the trouble with one stands in its place."""
        end = time.monotonic() + budget
        found: list[Status | Exception] = []
        for many, member in zip(range(len(self._members), 0, -1), self._members, strict=True):
            try:
                self.check()
                found.append(call(member, time.monotonic() + left(end) / many))
            except (Refused, Unknown) as trouble:
                found.append(trouble)
        return found

    def second(self) -> int:
        """The index of the member that would be asked second."""
        return self._first + 1

    def inherited(self) -> bool:
        """Whether this process is a forked child, and the connections are its parent's."""
        return self.pid != os.getpid()

    def check(self) -> None:
        """See that this process may ask.

        Raises:
            Refused: This process is a forked child.
        """
        if self.inherited():
            raise inherited(self._where)

    def close(self) -> None:
        """Close the connections to all of them."""
        for member in self._members:
            member.close()
