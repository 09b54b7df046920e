"""ZooKeeper under test: real servers with short ticks, shared by a kind's harnesses; a chroot for each."""

from __future__ import annotations

import atexit
import functools
import itertools
import re
import weakref
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from lockkit.facts import ClaimState
from lockkit.store.queue import prefix
from lockkit.store.spi import Backend, OpenOptions, Renewal
from lockkit.sync.client import Client
from lockkit.testing.harness import Harness, StoredClaim
from lockkit.values.names import claim_id, encode
from support.harnesses.exclusions import EXCLUSIONS
from support.servers.zookeeper import ZooKeeperServer
from support.servers.zookeeper_groups import ZooKeeperEnsemble

__all__ = ["TICK", "ZooKeeperEnsembleHarness", "ZooKeeperHarness", "claims_of", "only_watches", "vanish"]

TICK = 0.15
"""Seconds. Everything that takes time on ZooKeeper takes some ticks."""
_CLAIM = re.compile(r"([0-9a-f]{32})-(\d+)-(\d+)-(\d+)")
_RESIZE = re.compile(r"resize-(\d+)-(?:\d+|all)-(\d+)")

_chroots = itertools.count()


@functools.cache  # one for all harnesses of a kind, not one per example; a forked child has its parent's
def _started(kind: type[ZooKeeperHarness]) -> tuple[Any, Any]:
    servers = kind.start()
    stack = ExitStack()
    look = stack.enter_context(kind.one_of(servers).connect())
    atexit.register(stack.close)
    return servers, look


def claims_of(store: Any) -> list[tuple[Any, Any]]:
    """The claims of an open store that are not definitely gone, each with its session."""
    return [(session, entry) for session in store.sessions() for entry in [*session.entries.values()]]


def only_watches(monkeypatch: Any) -> None:
    """Have heartbeats of waiting claims notice nothing: only a watch can let one in, however late.

    But a wait with ``on_wait`` asks the store at each poll cap.
    """

    def heard(session: Any, entry: Any, _: object, now: float) -> Renewal:
        with session.mutex:
            entry.heard(now)
        return Renewal("WAITING")

    monkeypatch.setattr("lockkit_zookeeper.renewing._waiting", heard)


def vanish(store: Any) -> None:
    """Let go of everything without a word, as a process does that is killed."""
    store._closed = True  # noqa: SLF001
    for session in store.sessions():
        session.close(goodbye=False).join(1.0)


class ZooKeeperHarness(Harness):
    """A chroot of a real server, in real time.

    ZooKeeper does not know a claim's deadline, so the backends of this process are asked: they remove one
    whose owner is silent while their session lives. A crashed client's claims stay as long as that session.
    """

    name = "zookeeper"
    exclusions = EXCLUSIONS.get("zookeeper", {})
    ttl = 16 * TICK
    short_ttl = 12 * TICK
    request_timeout = 1.0
    tells = False
    slack = 3 * TICK
    examples = (8, 15)

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._servers, self._look = _started(type(self))
        self._chroot = f"/kit-{next(_chroots)}"
        self._root = f"{self._chroot}/lockkit/default"
        self._clients: list[weakref.ref[Client]] = []
        self._backends: list[Any] = []
        self._crashed: dict[str, tuple[float, bool]] = {}

    @classmethod
    def start(cls) -> Any:
        """Start what all harnesses of this kind share."""
        return ZooKeeperServer(tick=TICK)

    @staticmethod
    def one_of(servers: Any) -> ZooKeeperServer:
        """A server to look at."""
        assert isinstance(servers, ZooKeeperServer)
        return servers

    @property
    def url(self) -> str:
        return f"{self._servers.url(self._chroot)}?tick={TICK}&max_ttl={4 * self.ttl}"

    def client(self, **settings: Any) -> Client:
        settings.setdefault("ttl", self.ttl)  # the servers grant no sessions of 30 s
        client = super().client(**settings)
        self._clients.append(weakref.ref(client))
        return client

    def open(self, options: OpenOptions | None = None) -> Backend:
        backend = super().open(options)
        self._backends.append(backend)
        return backend

    def crash(self, client: Client) -> None:
        super().crash(client)
        backend: Any = client.driver().backend
        store = getattr(backend, "inner", backend)
        for session, entry in claims_of(store):
            ends = min(entry.deadline, session.basis + session.span)
            self._crashed[entry.token] = (ends, entry.held and not entry.ended)
        vanish(store)

    def stored(self, name: str) -> list[StoredClaim]:
        parent = f"{self._root}/q/{encode(name)}"
        self._look.sync("/")
        nodes = self._children(parent)
        resizes = sorted((int(m[2]), int(m[1])) for m in map(_RESIZE.fullmatch, nodes) if m)
        rows = sorted(
            (int(m[4]), m[1], int(m[2]), int(m[3]), m[0]) for m in map(_CLAIM.fullmatch, nodes) if m
        )
        known = self._known()
        queue: list[StoredClaim] = []
        told: list[str] = []
        for number, token, weight, stated, node in rows:
            read = self._read(f"{parent}/{node}")
            if read is None:
                continue
            data, stat = read
            capacity = next((each for marker, each in reversed(resizes) if marker > number), stated)
            deadline, held = known.get(token, (None, None))
            notes = self._children(f"{self._root}/c/{stat.ephemeralOwner % (1 << 64):016x}")
            queue.append(
                StoredClaim(
                    claim_id(token),
                    stat.czxid,
                    "WAITING",
                    weight,
                    capacity,
                    deadline,
                    claim_id(token) in notes,
                )
            )
            told.append(_told(data, held=held))
        fits = prefix(queue)
        return [
            replace(row, state=_state(said, fits=place < fits))
            for place, (row, said) in enumerate(zip(queue, told, strict=True))
        ]

    def _known(self) -> Mapping[str, tuple[float, bool]]:
        """Deadlines, and who holds, as far as they are claims of this process."""
        known = dict(self._crashed)
        for store in self._stores():
            for _, entry in claims_of(store):
                known.setdefault(entry.token, (entry.deadline, entry.held and not entry.ended))
        return known

    def _stores(self) -> list[Any]:
        engines = [vars(client)["_opening"].engine for ref in self._clients if (client := ref()) is not None]
        backends = [*self._backends, *(engine.backend for engine in engines if engine is not None)]
        return [getattr(backend, "inner", backend) for backend in backends]

    def residue(self) -> dict[str, int]:
        """Nodes of every kind but parents, which the server removes by itself."""
        found: Counter[str] = Counter()
        for kind in ("q", "c", "r"):
            for child in self._children(f"{self._root}/{kind}"):
                found[kind] += 1 if kind == "r" else len(self._children(f"{self._root}/{kind}/{child}"))
        return {kind: count for kind, count in found.items() if count}

    def _children(self, path: str) -> list[str]:
        from kazoo.exceptions import NoNodeError

        try:
            children: list[str] = self._look.get_children(path)
        except NoNodeError:
            return []
        return children

    def _read(self, path: str) -> tuple[bytes, Any] | None:
        from kazoo.exceptions import NoNodeError

        try:
            read: tuple[bytes, Any] = self._look.get(path)
        except NoNodeError:
            return None
        return read


def _told(data: bytes, *, held: bool | None) -> str:
    """The state of a claim. Its node shows it a moment late, so its client is asked first."""
    if held is None:
        return "holds" if b'"granted"' in data else "waits" if b'"waits"' in data else ""
    return "holds" if held else "waits"


def _state(told: str, *, fits: bool) -> ClaimState:
    if told == "holds":
        return "HELD"
    if not fits:
        return "WAITING"
    return "OFFERED" if told == "waits" else "HELD"


class ZooKeeperEnsembleHarness(ZooKeeperHarness):
    """A chroot of an ensemble of three."""

    examples: ClassVar[tuple[int, int]] = (4, 12)

    @classmethod
    def start(cls) -> ZooKeeperEnsemble:
        return ZooKeeperEnsemble(tick=TICK)

    @staticmethod
    def one_of(servers: Any) -> ZooKeeperServer:
        leader = servers.leader()
        assert isinstance(leader, ZooKeeperServer)
        return leader
