"""Plays about cards that every store must pass: a resize that a claim for a whole card overtakes, and holders that die in a layer of their release."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

import lockkit
import lockkit.gpu
from lockkit.devices import Device
from lockkit.errors import CapacityMismatch
from lockkit.gpu import requests
from lockkit.gpu.capacities import capacities
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.members import pool_name
from lockkit.records import Records
from lockkit.testing.processes import until
from lockkit.testing.stage import Work

__all__ = ["CARD", "QUEUE", "play_resize_and_whole_card"]

HOST = os.uname().nodename
CARD = SimulatedProvider(1).snapshot().devices[0].uuid
QUEUE = pool_name(f"gpu-sim/{HOST}", CARD)
SECONDS = 60.0
"""A bound on the slowness of the machine."""


def play_resize_and_whole_card(url: str, monkeypatch: pytest.MonkeyPatch, *, beside: bool) -> None:
    """Have a claim for a whole card come after the last look of a resize and before its write, by a request that has read the old capacity.

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
