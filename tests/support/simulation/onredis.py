"""The Redis store in the simulation: its scripts on a real server, whose clock is the virtual one.

Each client has a backend of its own, with all that this remembers; see
:mod:`~support.simulation.held_connections` for how its requests are scheduled. A request is one step: the
server runs the script, and its messages are delivered in that step, unless the schedule loses them. A
request answered with "I do not know this script" takes a second step to the server and back.

A restart empties the server, its scripts too, and breaks off what is under way: without persistence
nothing else distinguishes a server before and after.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from lockkit.facts import Capabilities, Owner
from lockkit.plugins import PluginManager
from lockkit.protocol import effects
from lockkit.protocol.effects import Annotate, Inspect, ListNames, RemoveMany, Renew
from lockkit.protocol.running import ask
from lockkit.store.spi import Backend, Claim, OpenOptions, Terms, Watch
from lockkit.testing.server_clock import ServerClock
from lockkit.values.names import claim_id
from support.servers.redis import RedisServer
from support.servers.redis_queue import Lying, queues
from support.simulation.clock import VirtualClock
from support.simulation.held_connections import Call, HeldConnections, Script
from support.simulation.network import Job, Reply, Request, lost
from support.simulation.resp import shown, values
from support.simulation.stores import DRAINS, StoredRow
from support.simulation.wakes import Published

__all__ = ["OnRedis", "Row"]

_EPOCH = 1_700_000_000
"""The server's time when the clients' CLOCK_BOOTTIME is 0: of a real size, as Lua's numbers are floats."""
_BUDGET = 20.0
"""Seconds of real time for a call; a lack of virtual time is the schedule's business."""
_LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
_OWNER = Owner(host="simulated")
_COPIES = ("delayed", "interrupted")


@functools.cache
def server() -> RedisServer:
    """The server of this process; a world has it to itself while it runs."""
    return RedisServer(clock=True, databases=1)


@functools.cache
def _plugins() -> PluginManager:
    return PluginManager()


@dataclass(frozen=True, slots=True)
class Row:
    """One claim as it lies in the store, in the simulation's seconds."""

    token: str
    state: str
    fence: int
    weight: int
    capacity: int
    ttl: float
    since: float
    deadline: float
    evicted: bool
    channel: str

    @classmethod
    def of(cls, lying: Lying) -> Row:
        """Return the row of a claim."""
        state = lying.state
        return cls(
            _short(lying.token),
            state["state"],
            lying.fence,
            state["weight"],
            state["capacity"],
            state["ttl"] / 1000,
            _seconds(state["since"]),
            float("inf") if lying.deadline is None else _seconds(lying.deadline),
            bool(state.get("evicted")),
            state["wake"],
        )


@dataclass(frozen=True, slots=True)
class _Said:
    """The server's answers to a row of commands, as they came; a story tells what the scripts said."""

    packed: bytes
    places: list[int]

    def __str__(self) -> str:
        answers = values(self.packed)
        return " ".join(shown(answers[place]) for place in self.places)


class OnRedis:
    """The store; one instance is one world's use of the server."""

    name = "redis"
    late_copies = True
    sees_death = False
    removes_together = 1
    stale = False

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._server = server()
        shown_clock = cast("ServerClock", self._server.clock)
        clock.lead(lambda now: shown_clock.stand(_EPOCH + now))
        self._server.cli("FLUSHALL")
        self._connections = HeldConnections(self._server.folder / "connections", self._server.socket)
        self._published = Published(self._server.socket)
        self._look = self._server.connect()
        self._clients: dict[str, Backend] = {}
        self._calls: dict[int, Call] = {}
        self._scripts: dict[int, Script] = {}
        self._rows: dict[str, list[Row]] = {}
        self._operator = self._open(self._server.socket_url())
        self._teach()

    @property
    def capabilities(self) -> Capabilities:
        return self._operator.capabilities

    def rows(self, name: str) -> Sequence[StoredRow]:
        """See :class:`ModelStore`. Read again only after an execution: the server removes keys long after."""
        if name not in self._rows:
            self._rows[name] = []
            self._look_again()
        return cast("Sequence[StoredRow]", self._rows[name])

    # -- what a client does

    def sent(self, request: Request) -> None:
        client = self._clients.get(request.client)
        if client is None:
            client = self._clients[request.client] = self._client()
        call = self._connections.begin(functools.partial(ask, client, _long_request(request.what)))
        if call.script is not None:
            self._calls[request.serial], self._scripts[request.serial] = call, call.script
        else:
            request.reply = _reply(call)

    def read(self, request: Request, reply: Reply) -> Reply | None:
        call = self._calls.get(request.serial)
        if call is None:
            return reply
        if reply.error is not None:
            return self.ended(request, "hung up")
        self._connections.answer(call, reply.answer.packed)
        if call.script is not None:
            self._scripts[request.serial] = call.script
            return None
        del self._calls[request.serial]
        return _reply(call)

    def ended(self, request: Request, how: str) -> Reply:
        call = self._calls.pop(request.serial, None)
        if call is None:
            return Reply(error=lost(how))
        if how == "refused":
            self.forget(request)
            while call.script is not None:
                self._connections.answer(call, _LOADING * call.script.count)
            return _reply(call)
        script = call.script
        assert script is not None
        self._connections.cut(call)
        if how not in _COPIES or request.serial not in self._scripts:
            self._scripts.pop(request.serial, None)
            script.lose()
        return _reply(call)

    def forget(self, request: Request) -> None:
        self._scripts.pop(request.serial).lose()

    # -- what the server does

    def job(self, request: Request) -> Job:
        yield from ()
        script = self._scripts.pop(request.serial)
        answers = script.run()
        if request.caller is None:
            script.lose()
        self._changed()
        return _Said(answers, script.places)

    def operate(self, method: str, args: tuple[Any, ...]) -> Job:
        yield from ()
        name, *rest = args
        drains = self._operator.extras.drains
        assert drains is not None
        if method == "turn_away":
            answer: Any = drains.turn_away(name, self._stored_id(name, rest[0]), _BUDGET)
        elif method in DRAINS:
            answer = getattr(drains, method)(name, _BUDGET)
        elif method == "settle":
            answer = self._operator.renew([(Claim(_long(""), Terms(name)), None)], _BUDGET)
        elif method == "evict":
            answer = self._operator.evict(name, self._stored_id(name, rest[0]), _BUDGET)
        else:
            answer = getattr(self._operator, method)(name, *rest[:-1], _BUDGET)
        self._changed()
        return answer

    def befall(self, what: str) -> None:
        if what != "forgets its scripts":
            self._server.cli("FLUSHALL")
        if what != "is flushed by a stranger":
            self._server.cli("SCRIPT", "FLUSH")
        self._changed()
        if what == "restarts empty":
            self._published.ring_all()

    # -- waking

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:  # noqa: ARG002
        """The watch is for the claim's own turn, as in the backend."""
        return self._published.watch(claim.token, wake)

    def died(self, client: str) -> None:
        """The death goes unnoticed: the ttl decides."""

    def close(self) -> None:
        for call in self._calls.values():
            script = call.script
            self._connections.cut(call)
            if script is not None:
                script.lose()
        for script in self._scripts.values():
            script.lose()
        for backend in (self._operator, *self._clients.values()):
            backend.close()
        self._connections.close()
        self._published.close()
        self._look.close()

    # -- within

    def _open(self, url: str) -> Backend:
        return _plugins().open(url, OpenOptions(owner=_OWNER, clock=self._clock))

    def _client(self) -> Backend:
        call = self._connections.begin(functools.partial(self._open, f"unix://{self._connections.at}"))
        reply = _reply(call)
        if reply.error is not None:
            raise reply.error
        return cast("Backend", reply.answer)

    def _teach(self) -> None:
        """Have the server know all scripts, whatever was run on it before."""
        claim = Claim(_long("z"), Terms("taught"))
        self._operator.acquire(claim, True, _BUDGET)
        self._operator.renew([(claim, None)], _BUDGET)
        self._operator.release(claim, _BUDGET)

    def _changed(self) -> None:
        """Something was executed: look at what it did before anybody hears of it."""
        self._published.knock()
        if self._rows:
            self._look_again()
        self._published.deliver()

    def _look_again(self) -> None:
        for name, lying in queues(self._look, list(self._rows)).items():
            self._rows[name] = [Row.of(each) for each in lying]
            for row in self._rows[name]:
                self._published.know(row.channel, row.fence, row.token)

    def _stored_id(self, name: str, wanted: str) -> str:
        """The claim id under which the server has a claim of the simulation."""
        tokens = [row.token for row in self.rows(name) if claim_id(row.token) == wanted]
        return claim_id(_long(tokens[0])) if tokens else wanted


def _reply(call: Call) -> Reply:
    return Reply(call.value, call.error)


def _seconds(millis: float) -> float:
    return (millis - _EPOCH * 1000) / 1000


def _long(token: str) -> str:
    """A token of the simulation as the store wants it: 32 hex digits."""
    return token.encode().hex().rjust(32, "0")


def _short(token: str) -> str:
    return bytes.fromhex(token).lstrip(b"\0").decode()


def _long_request(what: effects.Request) -> effects.Request:
    """The same request as Redis wants it, with time for whatever the schedule does to it."""
    match what:
        case Renew(beats):
            return Renew([(_long_claim(claim), fence) for claim, fence in beats], _BUDGET)
        case Inspect() | ListNames() | Annotate() | RemoveMany():
            return what._replace(budget=_BUDGET)
        case asked:
            return asked._replace(claim=_long_claim(asked.claim), budget=_BUDGET)


def _long_claim(claim: Claim) -> Claim:
    return claim._replace(token=_long(claim.token))
