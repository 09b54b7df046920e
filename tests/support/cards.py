"""Plays about cards for every store: a whole-card claim overtakes a resize; holders die in a release."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import lockkit
import lockkit.gpu
from lockkit.errors import CapacityMismatch
from lockkit.gpu import requests
from lockkit.gpu.capacities import capacities
from lockkit.gpu.devices import Device
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.notes.members import pool_name
from lockkit.notes.records import Records
from lockkit.testing.processes import until
from lockkit.testing.stage import Work

__all__ = ["CARD", "LAYERS", "QUEUE", "CardPlays", "play_layer", "play_resize_and_whole_card"]

HOST = os.uname().nodename
CARD = SimulatedProvider(1).snapshot().devices[0].uuid
QUEUE = pool_name(f"gpu-sim/{HOST}", CARD)
SECONDS = 60.0
"""A bound on the slowness of the machine."""
LAYERS = [
    ("cleanup", "killed", "unknown"),  # it had left no receipt yet; that of its own hold before says clean
    ("normal, not sent", "killed", "clean"),
    ("normal, done", "killed", "clean"),
    ("emergency", "killed", "clean"),
    ("cleanup", "raises", "clean"),
    ("normal, not sent", "raises", "clean"),
    ("normal, done", "raises", "clean"),
    ("emergency", "raises", "clean"),
]
"""Each layer of a release, how it goes wrong, and the outcome that the next holder is told."""
_HOLDER = """
import sys, time
import lockkit, lockkit.gpu
from lockkit.errors import BackendUnavailable
from lockkit.store.spi import Unknown

url, layer, how, ttl = sys.argv[1:]

def stop(*_, **__):
    if how == "raises":
        raise RuntimeError("on purpose")
    print("now", flush=True)
    time.sleep(60)

def lose(*_, **__):
    raise Unknown(BackendUnavailable("no answer"))

client = lockkit.connect(url, request_timeout=0.5)
cards = lockkit.gpu.pool(client, simulate=1, ttl=float(ttl))
cards.acquire(timeout=60).release()
leases = cards.acquire(timeout=60)
backend = client.driver().backend
print(leases[0].claim_id, leases[0].fence, flush=True)
if layer == "cleanup":
    leases.on_release(stop)
elif layer == "normal, not sent":
    backend.release = stop
elif layer == "normal, done":
    done = backend.release
    backend.release = lambda *what, **how: (done(*what, **how), stop())
else:
    backend.release = lose
    backend.emergency_release = stop
try:
    leases.release()
except RuntimeError:
    pass
print("over", flush=True)
sys.stdin.read()
"""


def play_resize_and_whole_card(url: str, monkeypatch: pytest.MonkeyPatch, *, beside: bool) -> None:
    """Have a claim for a whole card, with the old capacity, come between a resize's last look and its write.

    Args:
        url: The store.
        monkeypatch: Undone by its owner.
        beside: Whether somebody holds a share of the card.
    """
    read, written, came = threading.Event(), threading.Event(), threading.Event()

    def slow(records: Records, pool: str, devices: Sequence[Device]) -> Mapping[str, int]:
        found = capacities(records, pool, devices)
        read.set()
        assert written.wait(SECONDS)
        return found

    with lockkit.connect(url) as one, lockkit.connect(url) as other, lockkit.connect(url) as operator:
        cards = lockkit.gpu.pool(one, simulate=1)
        share = cards.acquire(memory="8GiB", timeout=SECONDS)
        if not beside:
            share.release()
        before = int(str(one.record(QUEUE).value["capacity"]))  # type: ignore[union-attr]
        monkeypatch.setattr(requests, "capacities", slow)
        whole = Work(lambda: lockkit.gpu.pool(other, simulate=1).acquire(timeout=SECONDS))
        assert read.wait(SECONDS)
        monkeypatch.setattr(requests, "capacities", capacities)

        backend = operator.driver().backend
        inspect, looks = backend.inspect, []

        def look(*what: Any) -> Any:
            seen = inspect(*what)
            looks.append(seen)
            if len(looks) == 2:  # the record is written by now
                written.set()
                until(lambda: len(one.inspect(QUEUE).claims) == 1 + beside or whole.done)
                came.set()
            return seen

        monkeypatch.setattr(backend, "inspect", look)
        operator.resize(QUEUE, before + 10_000)
        assert came.is_set()

        assert isinstance(whole.error(SECONDS), CapacityMismatch)
        if beside:
            assert [claim.claim_id for claim in one.inspect(QUEUE).claims] == [share[0].claim_id]
            share.release()
        with cards.acquire(timeout=SECONDS) as leases:
            assert leases[0].terms.weight == before + 10_000
        assert not one.inspect(QUEUE).claims


def play_layer(url: str, layer: str, how: str, outcome: str, ttl: float) -> None:
    """Kill a process that holds a card in a layer of its release, or have it raise; another takes the card.

    Args:
        url: The store.
        layer: The layer.
        how: ``killed``, or ``raises``.
        outcome: How the next holder is told that the card was left.
        ttl: Seconds for which the store keeps the claim of the process.
    """
    line = [sys.executable, "-c", _HOLDER, url, layer, how, str(ttl)]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True) as holder,
        lockkit.connect(url) as client,
    ):
        assert holder.stdout is not None
        try:
            claim_id, fence = holder.stdout.readline().split()
            if how == "killed":
                assert holder.stdout.readline() == "now\n"
                queue = client.inspect(QUEUE)
                there = [] if layer == "normal, done" else [claim_id]
                assert [one.claim_id for one in queue.claims] == there
                holder.kill()
            else:
                assert holder.stdout.readline() == "over\n"
            began = time.monotonic()
            with lockkit.gpu.pool(client, simulate=1).acquire(timeout=SECONDS) as leases:
                assert time.monotonic() - began < SECONDS / 2  # the ttl; the rest is for a slow machine
                assert leases[0].fence > int(fence)
                receipt = leases.receipts[CARD]
                assert (receipt.outcome, receipt.claim_id) == (outcome, claim_id)
            assert not client.inspect(QUEUE).claims
        finally:
            holder.kill()


class CardPlays:
    """The plays on a store that a server has: a subclass in a test file names the server."""

    SERVER: Callable[[], AbstractContextManager[Any]]
    OPTIONS = ""
    """The options of the URL, in which the attributes of the server may be named."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Any]:
        """A server for the plays of one file."""
        with cls.SERVER() as server:
            yield server

    @pytest.fixture
    def url(self, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        """The URL of the store, for programs too; each play has a namespace, as the server outlives it."""
        monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
        monkeypatch.setenv("LOCKKIT_NAMESPACE", tmp_path.name)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return str(server.url()) + self.OPTIONS.format(server=server)

    @pytest.mark.parametrize("layer, how, outcome", LAYERS)
    def test_a_holder_that_goes_wrong_in_a_layer_of_its_release_blocks_for_its_ttl_at_most(
        self, url: str, layer: str, how: str, outcome: str
    ) -> None:
        play_layer(url, layer, how, outcome, 1.5)

    @pytest.mark.parametrize("beside", [True, False], ids=["sharers", "nobody"])
    def test_a_whole_card_that_a_resize_did_not_see_is_given_back(
        self, url: str, monkeypatch: pytest.MonkeyPatch, *, beside: bool
    ) -> None:
        play_resize_and_whole_card(url, monkeypatch, beside=beside)
