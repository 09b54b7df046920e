"""A proxy that parses the traffic of ZooKeeper's clients: it counts their requests, and breaks at one."""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections import Counter

from support.servers.proxy import Flow, ProxiedConnection, Proxy
from support.servers.zookeeper_session import HEADER, LENGTH

__all__ = ["ZooKeeperProxy"]

KINDS = {
    1: "create", 2: "delete", 3: "exists", 4: "getData", 5: "setData", 6: "getACL", 7: "setACL",
    8: "getChildren",
    9: "sync", 11: "ping", 12: "getChildren2", 13: "check", 14: "multi", 15: "create2", 19: "createContainer",
    100: "auth", 101: "setWatches", 102: "sasl", 105: "setWatches2", -11: "closeSession",
}  # fmt: skip
LONGEST = 1 << 24
"""Bytes of a message. A four-letter word, read as a length, is longer."""


@dataclasses.dataclass(slots=True)
class _Trap:
    kinds: frozenset[str]
    delivered: bool
    sprung: threading.Event


@dataclasses.dataclass(slots=True)
class _Talk:
    """The state of one connection.

    Attributes:
        unread: The beginning of a message, towards the server and back.
        greeted: The ends that have said their first message, which has no kind.
        last: The request whose answer nobody will see, and what for.
        over: Nothing passes any more.
    """

    unread: dict[bool, bytes] = dataclasses.field(default_factory=lambda: {True: b"", False: b""})
    greeted: set[bool] = dataclasses.field(default_factory=set)
    last: tuple[int, _Trap] | None = None
    over: bool = False


class ZooKeeperProxy(Proxy):
    """For clients that speak no TLS.

    Put it before a server::

        with ZooKeeperProxy((server.host, server.port)) as proxy:
            connect(f"zookeeper://{proxy.address}/chroot")
            broken = proxy.break_at("create", "create2", delivered=True)
            ...                                 # the next create is done, and its answer never arrives
            broken.wait()

    Attributes:
        asked: How many requests of each kind have come, by ZooKeeper's own names (``ZooDefs.OpCode``).
    """

    def __init__(self, server: tuple[str, int], *, delay: float = 0.0, patience: float = 0.0) -> None:
        self.asked: Counter[str] = Counter()
        self._traps: list[_Trap] = []
        self._talks: weakref.WeakKeyDictionary[ProxiedConnection, _Talk] = weakref.WeakKeyDictionary()
        super().__init__(server, delay=delay, patience=patience)

    def break_at(self, *kinds: str, delivered: bool) -> threading.Event:
        """Reset the connection at the next request of these kinds; the one after that passes.

        Args:
            kinds: See ``asked``.
            delivered: Whether the answer is lost, instead of the request.

        Returns:
            Set when the connection has been reset.
        """
        trap = _Trap(frozenset(kinds), delivered, threading.Event())
        self._do(lambda: self._traps.append(trap))
        return trap.sprung

    def passing(self, connection: ProxiedConnection, flow: Flow, data: bytes) -> None:
        talk = self._talks.setdefault(connection, _Talk())
        data = talk.unread[flow.to_server] + data
        while not talk.over and len(data) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data)
            end = LENGTH.size + length if 0 <= length < LONGEST else len(data)
            if len(data) < end:
                break
            message, data = data[:end], data[end:]
            if flow.to_server not in talk.greeted:
                talk.greeted.add(flow.to_server)
                flow.put(message)
            elif flow.to_server:
                self._ask(talk, connection, message)
            else:
                self._answer(talk, connection, message)
        talk.unread[flow.to_server] = data

    def _ask(self, talk: _Talk, connection: ProxiedConnection, message: bytes) -> None:
        xid, kind = HEADER.unpack_from(message, LENGTH.size)
        name = KINDS.get(kind, str(kind))
        self.asked[name] += 1
        trap = next((each for each in self._traps if name in each.kinds), None)
        if trap is not None:
            self._traps.remove(trap)
            if not trap.delivered:
                self._break(trap, talk, connection)
                return
            talk.last = xid, trap
        connection.to_server.put(message)

    def _answer(self, talk: _Talk, connection: ProxiedConnection, message: bytes) -> None:
        (xid,) = LENGTH.unpack_from(message, LENGTH.size)
        if talk.last is not None and xid == talk.last[0]:
            self._break(talk.last[1], talk, connection)
        else:
            connection.to_client.put(message)

    def _break(self, trap: _Trap, talk: _Talk, connection: ProxiedConnection) -> None:
        talk.over = True
        connection.reset()
        trap.sprung.set()
