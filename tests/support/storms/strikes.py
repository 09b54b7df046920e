"""Strikes from outside: a network that loses answers and delays requests, paused processes and leaders."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from support.servers.proxy import RESET, Flow, ProxiedConnection, Proxy

if TYPE_CHECKING:
    from support.servers.group import LedGroup
    from support.servers.server import Server
    from support.servers.zookeeper_groups import ZooKeeperEnsemble

__all__ = ["LateProxy", "Strike", "deposed", "deposed_without_a_word", "held_up", "stand_still"]

Strike = Callable[[Sequence[int], random.Random], None]
"""Strikes once; is told the pids of the processes that take locks."""


class LateProxy(Proxy):
    """A proxy that cuts off clients now and then: the request under way arrives late, its answer never.

    The client sends the request again, over another connection, or gives it up.

    Attributes:
        late: How many pieces were sent on late.
        unseen: How many pieces came back after their client was cut: those requests were served.
    """

    ODDS = 1 / 30
    """The odds that a piece on its way to the server is struck."""
    SILENT = 0.05
    """The share of clients that are not told that they are cut off, and wait until their patience is over."""
    LINGERING = 2.0
    """Seconds that the connection outlives the late piece: a server may drop requests of closed ones."""

    def __init__(self, server: tuple[str, int], seed: int, ttl: float) -> None:
        self.late = self.unseen = 0
        self._chance = random.Random(seed)
        self._delays = (0.0, 0.02, ttl, 5.0 * ttl)
        super().__init__(server, patience=2.0)

    def passing(self, connection: ProxiedConnection, flow: Flow, data: bytes) -> None:
        server = flow.target
        self.unseen += not flow.to_server and connection.to_server.target is None
        if not flow.to_server or server is None or self._chance.random() > self.ODDS:
            flow.put(data)
            return
        self.late += 1
        flow.target = None  # nothing else goes that way, not even the news that the client has closed
        delay = self._chance.uniform(0.0, self._chance.choice(self._delays))
        self.loop.call_later(delay, server.write, data)
        self.loop.call_later(delay + self.LINGERING, server.close)
        if self._chance.random() > self.SILENT:
            assert flow.source is not None
            flow.source.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            flow.source.abort()


def stand_still(ttl: float) -> Strike:
    """A process is paused anywhere, in a request too, for a moment or until its claims have lapsed."""

    def strike(pids: Sequence[int], chance: random.Random) -> None:
        pid = chance.choice(pids)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(chance.choice((chance.uniform(0.0, 0.05), chance.uniform(ttl, 2.0 * ttl))))
        os.kill(pid, signal.SIGCONT)

    return strike


def held_up(leader: Callable[[], Server]) -> Strike:
    """The leader, or the only server, stands still for a moment."""

    def strike(_: Sequence[int], chance: random.Random) -> None:
        one = leader()
        one.pause()
        time.sleep(chance.uniform(0.2, 2.0))
        one.resume()

    return strike


def deposed(group: LedGroup[Server], ttl: float) -> Strike:
    """The leader is paused until there is another one, and goes on: at once, or after its claims lapsed."""

    def strike(_: Sequence[int], chance: random.Random) -> None:
        leader = group.leader()
        leader.pause()
        group.until_healthy()
        time.sleep(chance.uniform(0.0, chance.choice((1.0, 1.5 * ttl))))
        leader.resume()

    return strike


def deposed_without_a_word(ensemble: ZooKeeperEnsemble, ttl: float) -> Strike:
    """The others restart without the leader, which goes on until sessions that only it knows have ended."""

    def strike(_: Sequence[int], chance: random.Random) -> None:
        ensemble.depose(ensemble.leader())
        time.sleep(chance.uniform(1.0, 2.0) * ttl)
        ensemble.heal()

    return strike
