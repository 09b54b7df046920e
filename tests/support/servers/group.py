"""Servers that are started together and go together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from lockkit.testing.processes import PATIENCE, ServerFailed
from support.servers.server import Server, port_taken

__all__ = ["Group", "LedGroup"]

M = TypeVar("M", bound=Server)


class Group:
    """Ends what was entered into it; a context manager."""

    def __init__(self) -> None:
        self._servers = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all of them and remove their folders."""
        self._servers.close()


class LedGroup(Group, Generic[M]):
    """Three members, or another odd number, on loopback ports, which elect a leader.

    Attributes:
        members: In the order of their numbers. One that was killed is started again by its own ``start()``.
    """

    members: list[M]

    @property
    def running(self) -> list[M]:
        """The members that are neither dead nor paused."""
        return [each for each in self.members if each.alive and not each.paused]

    def leader(self) -> M:
        """The leader.

        Raises:
            ServerFailed: There is none at the moment.
        """
        raise NotImplementedError

    def kill_leader(self) -> M:
        """Kill the leader, and wait until the others are healthy with another one. Returns the new leader."""
        self.leader().kill()
        return self.until_healthy()

    def until_healthy(self, seconds: float = PATIENCE) -> M:
        """Wait until every running member serves, and all see the same leader. Returns the leader.

        Raises:
            ServerFailed: One of them has ended, or they do not agree in time.
        """
        raise NotImplementedError

    def _start_somewhere(self, begin: Callable[[], None]) -> None:
        """Start on free ports, again if one was taken meanwhile. If that fails, all members are ended."""
        self.members = []
        try:
            for _ in range(10):
                try:
                    begin()
                    return
                except ServerFailed:
                    if not any(port_taken(each.log) for each in self.members):
                        raise
                    self.close()
            raise ServerFailed("no free ports in ten attempts")
        except BaseException:
            self.close()
            raise
