"""A store as after two hours of a team's work, for pictures of the dashboard and tests of how it looks.

All content comes from the code of the store and the journal. Only the times are made up: those from which
Redis counts each claim.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import lockkit
import lockkit.gpu
from lockkit.config import config as configuration
from lockkit.facts import Event, Kind, Owner
from lockkit.gpu.simulated import STATE_FILE
from lockkit.lib.clock import SYSTEM
from lockkit.lib.noted import RESERVED
from lockkit.observe.event_journal import EventJournal
from lockkit.store.queue import RW_CAPACITY
from lockkit.store.spi import Backend, Claim, Granted, Queued
from lockkit.testing.claims import claim, open_store
from lockkit_redis.keys import Keys
from support.servers.redis import RedisServer

__all__ = ["CARDS", "HOST", "PATIENT", "demo_store", "journal_of_the_past", "kept_alive", "work_on_cards"]

CARDS = 4
"""The number of simulated GPUs."""
HOST = "node1"
PATIENT = 30.0
"""Seconds for each call: a bound on the slowness of the machine."""
_TTL = 60.0
_BEAT = 2.0
"""Seconds between two renewals: the store forgets waiters that are not renewed in 6 s."""
_BOOT = "5f0f9d4c-7b6e-4f62-9f5e-2b8f6f6f8c11"


class _Part(NamedTuple):
    """One claim of the play: when it comes, in seconds before now, and what it is."""

    ago: float
    name: str
    user: str
    host: str
    program: str
    reason: str = ""
    done: float | None = None
    message: str = ""
    kind: Kind = "mutex"
    weight: int = 1
    capacity: int = 1
    waits: bool = False


_PLAY = (
    _Part(6135, "nightly/backup", "backup", "db1", "pg_basebackup", "full backup", 0.81, "412 of 509 GiB"),
    _Part(1574, "db/migrate", "ann", "node1", "alembic", "schema 41", 0.63, "12 of 19 tables"),
    _Part(1492, "db/migrate", "bob", "node2", "pytest", "schema tests", waits=True),
    _Part(1210, "db/migrate", "ci", "runner3", "make", "build 5120", waits=True),
    _Part(655, "db/migrate", "ci", "runner4", "make", "build 5121", waits=True),
    _Part(240, "db/migrate", "eve", "node5", "python", "hotfix", waits=True),
    _Part(3300, "licences/matlab", "ann", "node1", "matlab", "sweep 7", capacity=3, kind="semaphore"),
    _Part(2880, "licences/matlab", "bob", "node2", "matlab", "sweep 8", capacity=3, kind="semaphore"),
    _Part(700, "licences/matlab", "eve", "node5", "matlab", "", capacity=3, kind="semaphore"),
    _Part(
        410, "licences/matlab", "cho", "node4", "matlab", "figure 3", capacity=3, kind="semaphore", waits=True
    ),
    _Part(95, "index/products", "web", "web1", "indexer", "read", kind="read", capacity=RW_CAPACITY),
    _Part(88, "index/products", "web", "web2", "indexer", "read", kind="read", capacity=RW_CAPACITY),
    _Part(
        52,
        "index/products",
        "cho",
        "node4",
        "reindex",
        "rebuild",
        kind="write",
        weight=RW_CAPACITY,
        capacity=RW_CAPACITY,
        waits=True,
    ),
    _Part(310, "report/month-end", "cho", "node4", "report", "month end", 0.2, "ledger"),
    _Part(4100, "deploy/web", "ci", "runner1", "deploy", "release 7.2"),
    _Part(133, "nightly/backup", "ann", "node1", "pg_dump", "copy for tests", waits=True),
)
_PAST = (
    ("ann", "node1", "alembic", 6900, 6420, "released"),
    ("ci", "runner3", "make", 6400, 5830, "released"),
    ("ci", "runner4", "make", 5825, 5200, "released"),
    ("bob", "node2", "pytest", 5190, 4300, "lost"),
    ("eve", "node5", "python", 4220, 4100, "released"),
    ("ci", "runner3", "make", 4090, 3500, "released"),
    ("ann", "node1", "alembic", 3480, 2600, "released"),
    ("ci", "runner4", "make", 2590, 1600, "released"),
)
"""Ended holds of ``db/migrate``: who, where, with what, from and to in seconds before now, and the ends."""


def _owner(number: int, user: str, host: str, program: str) -> Owner:
    return Owner(user=user, host=host, pid=4000 + 37 * number, boot_id=_BOOT, started=1.0, program=program)


def _note(part: _Part, at: float) -> dict[str, object]:
    own: dict[str, object] = {"reason": part.reason} if part.reason else {}
    if part.done is not None:
        own["progress"] = {"done": part.done, "message": part.message, "at": at}
    return {RESERVED: own}


@contextmanager
def demo_store() -> Iterator[str]:
    """The URL of the store, full of claims that stay alive until the context ends.

    Raises:
        ServerMissing: Redis is not installed.
    """
    with RedisServer() as server:
        store = open_store(server.url())
        try:
            claims: list[tuple[Claim, int | None]] = []
            for number, part in sorted(enumerate(_PLAY), key=lambda each: -each[1].ago):
                one = claim(
                    part.name,
                    note=_note(part, SYSTEM.wall() - 12.0),
                    ttl=_TTL,
                    kind=part.kind,
                    weight=part.weight,
                    capacity=part.capacity,
                    owner=_owner(number, part.user, part.host, part.program),
                )
                answer = store.acquire(one, True, PATIENT)
                assert isinstance(answer, Granted if not part.waits else Queued), answer
                claims.append((one, answer.fence if isinstance(answer, Granted) else None))
                _make_older(server, one, part.ago)
            with kept_alive(store, claims):
                yield server.url()
        finally:
            store.close()


def _make_older(server: RedisServer, one: Claim, seconds: float) -> None:
    """Have a claim be there for some seconds."""
    key = Keys.of("default", one.terms.name).claims
    kept = json.loads(server.cli("HGET", key, one.token))
    kept["since"] -= int(seconds * 1000)
    server.cli("HSET", key, one.token, json.dumps(kept, separators=(",", ":")))


@contextmanager
def kept_alive(store: Backend, claims: Sequence[tuple[Claim, int | None]]) -> Iterator[None]:
    """Renew claims, again and again, until the context ends."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(_BEAT):
            store.renew([*claims], PATIENT)  # a copy: others may join them meanwhile

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def journal_of_the_past(url: str, state: Path) -> None:
    """Write an event journal with the holds of ``db/migrate`` that are over.

    Args:
        url: The store.
        state: The state folder of the server.
    """
    config = configuration.load(url, environ={}, state_dir=str(state), journal=True)
    now = SYSTEM.wall()
    boot = 14 * 86_400.0  # the hosts of the play have been up for two weeks, whatever this one has
    for number, (user, host, program, since, until, end) in enumerate(_PAST):
        owner = _owner(number, user, host, program)
        journal = EventJournal(config, "fleet", owner)
        same = {"name": "db/migrate", "claim_id": f"{number:012x}", "fence": number + 1}
        began = Event("acquired", at=now - since, boottime=boot - since, duration=4.0, **same)  # type: ignore[arg-type]
        ended = Event(
            end,
            at=now - until,
            boottime=boot - until,
            until=boot - until,
            reason="lapsed" if end == "lost" else "",
            **same,  # type: ignore[arg-type]
        )
        for event in (began, ended, Event("closed", "", at=now - until, boottime=boot - until)):
            journal.lockkit_event(event)


@contextmanager
def work_on_cards(url: str, state: Path) -> Iterator[None]:
    """Simulated GPUs until the context ends: one held, one shared, one used without a lock, one faulty.

    Args:
        url: The store.
        state: The state folder of the server, which must have the setting ``gpu.host`` of :data:`HOST`.
    """
    me = {"pid": os.getpid(), "user": "ann", "program": "python"}
    script = {
        "0": {"processes": [{**me, "memory": "20GiB"}], "utilisation": 97},
        "1": {"processes": [{**me, "memory": "6GiB"}], "utilisation": 41},
        "2": {"processes": [{"pid": 4711, "user": "bob", "program": "jupyter", "memory": "12GiB"}]},
        "3": {"faults": ["the card must be reset"]},
    }
    state.mkdir(mode=0o700, exist_ok=True)
    with lockkit.connect(url, state_dir=str(state), gpu_host=HOST) as client:
        cards = lockkit.gpu.pool(client, simulate=CARDS, ttl=_TTL)
        with (
            cards.acquire(timeout=PATIENT, reason="train 12"),
            cards.acquire(memory="8GiB", timeout=PATIENT, reason="notebook /data/" + "x" * 180),
        ):
            (state / STATE_FILE).write_text(json.dumps(script))
            try:
                yield
            finally:
                (state / STATE_FILE).unlink()  # or the release would wait for the memory
