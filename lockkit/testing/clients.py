"""A client for tests of programs that lock: on a memory store of its own, with a clock that the test moves.

The pytest fixtures ``lockkit_client`` and ``async_lockkit_client`` give one to a test.
"""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path
from typing import Unpack

from lockkit.aio import AsyncClient
from lockkit.config.config import Config, load
from lockkit.plugins import PluginManager
from lockkit.shared.options import Options
from lockkit.sync.client import Client
from lockkit.sync.lease import Lease
from lockkit.testing.clocks import ShiftedClock
from lockkit.values import durations

__all__ = ["AsyncMemoryClient", "MemoryClient", "VirtualClock"]

_number = itertools.count(1).__next__
_LEAST = 0.01
"""Seconds of the shortest step of a clock."""


class VirtualClock(ShiftedClock):
    """A clock that runs like the machine's own, and that a test moves. Its clients' heartbeats keep up.

    Attributes:
        clients: The clients that use the clock.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Client] = []

    def advance(self, seconds: float) -> None:
        """Move the clock forward, through all renewals, ends of ``ttl`` and ``max_hold``, and losses.

        A renewed lease is still valid afterwards. Each waiting thread looks at the clock again.

        Raises:
            ConfigError: The seconds are not a number, or negative, infinite or longer than ten years.
        """
        left = durations.seconds(seconds, what="seconds", zero=True)
        while True:
            self._keep_up()
            if left <= 0.0:
                return
            step = min(left, max(self._due() - self.now(), _LEAST))
            super().advance(step)
            left -= step

    def _due(self) -> float:
        """When the next heartbeat, or the next look at deadlines, is due."""
        beats = [client.driver().beats for client in self._open()]
        ends = [hold.expires for each in beats for hold in each.holds() if not (hold.lost_why or hold.ended)]
        return min([*(each.next() for each in beats), *ends], default=math.inf)

    def _keep_up(self) -> None:
        for client in self._open():
            client.driver().catch_up()

    def _open(self) -> list[Client]:
        return [client for client in self.clients if client.is_open]


class MemoryClient(Client):
    """A client on a memory store that no other test has, with no config file and no plugin of this machine.

    Attributes:
        clock: The clock of the client; :meth:`VirtualClock.advance` moves it.
        elsewhere: A second client on the same store, for what "another process" does in a test.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.clock = VirtualClock()
        config = _config(Path(folder))
        super().__init__(config, _plugins(config), clock=self.clock)
        self.elsewhere = Client(config, _plugins(config), clock=self.clock, task="elsewhere")
        self.clock.clients += [self, self.elsewhere]
        self._kept: list[Lease] = []

    def hold_elsewhere(self, name: str, **options: Unpack[Options]) -> Lease:
        """Have another client hold a mutex until the returned lease is released or this client closes.

        Raises:
            AcquireTimeout: The lock is busy.
        """
        lease = self.elsewhere.lock(name, **options).acquire(timeout=0)
        self._kept.append(lease)  # so that a test need not
        return lease

    def close(self) -> None:
        """Close both clients."""
        try:
            self.elsewhere.close()
        finally:
            super().close()


class AsyncMemoryClient(AsyncClient):
    """The twin of :class:`MemoryClient` for programs with asyncio.

    Attributes:
        clock: The clock of the client; :meth:`VirtualClock.advance` moves it.
        elsewhere: A second client on the same store: "another process" in a test. No ``await`` needed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._memory = MemoryClient(folder)
        super().__init__(self._memory)
        self.clock = self._memory.clock
        self.elsewhere = self._memory.elsewhere

    def hold_elsewhere(self, name: str, **options: Unpack[Options]) -> Lease:
        """See :meth:`MemoryClient.hold_elsewhere`. The returned lease is released without ``await``."""
        return self._memory.hold_elsewhere(name, **options)

    async def close(self) -> None:
        """Close both clients."""
        await super().close()
        self.shut()

    def shut(self) -> None:
        """Close both clients, outside of an event loop."""
        self._memory.close()


def _config(folder: Path) -> Config:
    return load(
        f"memory://test-client-{_number()}",
        environ={},
        cwd=folder,
        home=folder,
        etc=folder / "no-config.toml",
        state_dir=str(folder),
        disable_plugins="all",
    )


def _plugins(config: Config) -> PluginManager:
    return PluginManager(disabled=config.disable_plugins)
