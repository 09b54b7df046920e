"""The second transport: gRPC, by way of the library python-etcd3. Which member is asked, and how often."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from lockkit.clock import Clock
from lockkit.errors import BackendUnavailable
from lockkit.store.spi import Refused, Unknown
from lockkit_etcd import grpc_forks, grpc_package
from lockkit_etcd.address import Address
from lockkit_etcd.budget import left
from lockkit_etcd.failures import Elsewhere, Forbidden, inherited
from lockkit_etcd.grpc_endpoint import Endpoint, trusted
from lockkit_etcd.grpc_messages import Messages
from lockkit_etcd.grpc_package import Package
from lockkit_etcd.grpc_watch import Watching
from lockkit_etcd.transport import (
    Found,
    Get,
    Granted,
    Header,
    Kept,
    News,
    Remaining,
    Status,
    Stream,
    Txn,
    TxnAnswer,
)

__all__ = ["PythonEtcd3", "connect"]

_SHARE = 0.6
"""Of what is left of a budget, what one member may use while there are others to ask."""
_BODY = 500
"""Leases that one stream keeps alive."""
_AT_ONCE = 4

T = TypeVar("T")


def connect(address: Address, clock: Clock) -> PythonEtcd3:
    """The transport. Connects when it is first asked.

    Raises:
        ImportError: python-etcd3 is not installed.
        ConfigError: It is and cannot be used, or a certificate or key cannot; the error says why.
        Refused: This process was forked from one that used gRPC in a way that leaves none for it.
    """
    package = grpc_package.load()
    if trouble := grpc_forks.trouble():
        hint = "connect in the children only, spawn instead of forking, or write etcd://"
        raise Refused(BackendUnavailable(f"{address.shown}: {trouble}", hint=hint), retry=False)
    return PythonEtcd3(package, address, clock, trusted(address))


class PythonEtcd3:
    """The transport by way of python-etcd3. See :class:`lockkit_etcd.transport.Transport`."""

    def __init__(
        self, package: Package, address: Address, clock: Clock, ca_file: str | None, first: int = 0
    ) -> None:
        self.where = address.shown
        self._package = package
        self._address = address
        self._clock = clock
        self._messages = Messages(package.rpc)
        self._ca_file = ca_file
        self._endpoints = [Endpoint(package, address, ca_file, at) for at in range(len(address.hosts))]
        self._first = first
        self._pid = os.getpid()
        self._watching = Watching(self._ready, self._messages)

    @property
    def name(self) -> str:
        return f"gRPC ({grpc_package.in_use()[1]})"

    # -- calls

    def txn(self, request: Txn, budget: float) -> TxnAnswer:
        again = not request.when and all(type(op) is Get for op in request.then)
        try:
            answer = self._call("txn", self._messages.txn(request), budget, again=again)
        except Forbidden as refusal:
            raise refusal.asked(self.where, (*request.then, *request.otherwise)) from refusal
        return self._messages.txn_answer(answer)

    def range(self, request: Get, budget: float) -> tuple[Header, Found]:
        try:
            answer = self._call("range", self._messages.range(request), budget, again=True)
        except Forbidden as refusal:
            raise refusal.asked(self.where, (request,)) from refusal
        return self._messages.header(answer), self._messages.found(answer)

    def grant(self, lease: int, ttl: int, budget: float) -> Granted:
        return self._messages.granted(self._call("grant", self._messages.grant(lease, ttl), budget))

    def revoke(self, lease: int, budget: float) -> None:
        self._call("revoke", self._messages.revoke(lease), budget)

    def remaining(self, lease: int, budget: float) -> Remaining:
        request = self._messages.remaining(lease)
        return self._messages.lasting(self._call("remaining", request, budget, again=True))

    def keepalive(self, leases: Sequence[int], budget: float) -> Mapping[int, Kept]:
        end = time.monotonic() + budget
        kept: dict[int, Kept] = {}
        bodies = [leases[at : at + _BODY] for at in range(0, len(leases), _BODY)]
        troubles: list[Refused | Unknown] = []

        def work() -> None:
            while bodies:
                try:
                    some = bodies.pop()
                except IndexError:
                    return
                try:
                    kept.update(self._keep_alive(some, left(end)))
                except (Refused, Unknown) as trouble:
                    troubles.append(trouble)

        others = [
            threading.Thread(target=work, name="lockkit-etcd-keepalive", daemon=True)
            for _ in range(min(len(bodies), _AT_ONCE) - 1)
        ]
        for thread in others:
            thread.start()
        work()
        for thread in others:
            thread.join(left(end))
        if troubles and not kept:
            raise troubles[0]
        return dict(kept)

    def status(self, budget: float) -> Sequence[Status | Exception]:
        end = time.monotonic() + budget
        found: list[Status | Exception] = []
        for many, endpoint in zip(range(len(self._endpoints), 0, -1), self._endpoints, strict=True):
            try:
                self._mine()
                answer = endpoint.ask("status", self._messages.status(), time.monotonic() + left(end) / many)
                found.append(self._messages.status_of(endpoint.where, answer))
            except (Refused, Unknown) as trouble:
                found.append(trouble)
        return found

    def watch(
        self, key: bytes, end: bytes, start: int, heard: Callable[[News], None], also: Sequence[bytes] = ()
    ) -> Stream:
        if self._pid != os.getpid():
            return _Nothing()
        return self._watching.watch(key, end, start, heard, also)

    def fresh(self) -> PythonEtcd3:
        first = (self._first + 1) % len(self._endpoints)
        other = PythonEtcd3(self._package, self._address, self._clock, self._ca_file, first)
        other._pid = self._pid  # a forked child gets none that is good for anything
        return other

    def avoid(self) -> None:
        """Ask another member first from here on."""
        self._first = (self._first + 1) % len(self._endpoints)

    def close(self) -> None:
        if self._pid != os.getpid():  # it is the parent's
            return
        self._watching.close()
        for endpoint in self._endpoints:
            endpoint.close()

    # -- asking

    def _call(self, name: str, request: Any, budget: float, *, again: bool = False) -> Any:
        end = time.monotonic() + budget
        return self._somewhere(lambda endpoint, until: endpoint.ask(name, request, until), end, again=again)

    def _keep_alive(self, leases: Sequence[int], budget: float) -> dict[int, Kept]:
        requests = self._messages.keepalives(leases)

        def talk(endpoint: Endpoint, until: float) -> dict[int, Kept]:
            endpoint.ready(until)
            sent = self._clock.now()
            answers, trouble = endpoint.talk("keepalive", requests, until)
            if trouble is not None and not answers:
                raise trouble
            return {
                each.ID: Kept(each.TTL, each.header.member_id, each.header.raft_term, sent)
                for each in answers
            }

        return self._somewhere(talk, time.monotonic() + budget, again=True)

    def _ready(self, end: float) -> Endpoint:
        def ready(endpoint: Endpoint, until: float) -> Endpoint:
            endpoint.ready(until)
            return endpoint

        return self._somewhere(ready, end, again=True)

    def _somewhere(self, ask: Callable[[Endpoint, float], T], end: float, *, again: bool) -> T:
        """Ask the members in turn until one has answered; one that has been asked and is silent ends it, unless ``again``.

        Raises:
            Refused, Unknown: None has.
        """
        self._mine()
        many, first = len(self._endpoints), self._first
        for turn in range(many):
            at = (first + turn) % many
            now = time.monotonic()
            until = end if turn == many - 1 else now + max(end - now, 0.0) * _SHARE
            try:
                return ask(self._endpoints[at], until)
            except (Elsewhere, Unknown) as trouble:
                if self._first == at:
                    self._first = (at + 1) % many
                more = turn < many - 1 and time.monotonic() < end
                if not (more and (again or isinstance(trouble, Elsewhere))):
                    raise
        raise AssertionError("unreachable")

    def _mine(self) -> None:
        if self._pid != os.getpid():
            raise inherited(self.where)


class _Nothing:
    """The watch of a forked child: there is none."""

    def close(self) -> None:
        """There is nothing to end."""
