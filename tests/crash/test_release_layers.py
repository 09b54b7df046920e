"""A holder of a card that is killed in one of the three layers of its release: what is left (S4, S7, L1), and what the next holder is told."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

import lockkit
import lockkit.gpu
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.members import pool_name

HOST = os.uname().nodename
CARD = SimulatedProvider(1).snapshot().devices[0].uuid
# Each stops where the layer is under way, says so, and waits to be killed.
HOLDER = """
import sys, time
import lockkit, lockkit.gpu
from lockkit.errors import BackendUnavailable
from lockkit.store.spi import Unknown

def stop(*_, **__):
    print("now", flush=True)
    time.sleep(60)

def lose(*_, **__):
    raise Unknown(BackendUnavailable("no answer"))

client = lockkit.connect(sys.argv[1], request_timeout=0.5)
cards = lockkit.gpu.pool(client, simulate=1, ttl=1.5)
cards.acquire(timeout=10).release()
leases = cards.acquire(timeout=10)
backend = client.driver().backend
print(leases[0].claim_id, leases[0].fence, flush=True)
layer = sys.argv[2]
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
leases.release()
"""


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    "layer, outcome",
    [
        ("cleanup", "unknown"),  # it had left no receipt yet; that of its own hold before says clean
        ("normal, not sent", "clean"),
        ("normal, done", "clean"),
        ("emergency", "clean"),
    ],
)
def test_a_holder_killed_in_a_layer_of_its_release_blocks_for_its_ttl_at_most_and_is_told_of(
    tmp_path, layer, outcome
):
    url = f"sqlite:{tmp_path}/locks.db"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, url, layer], stdout=subprocess.PIPE, text=True)
    with holder, lockkit.connect(url) as client:
        try:
            claim_id, fence = holder.stdout.readline().split()
            assert holder.stdout.readline() == "now\n"
            queue = client.inspect(pool_name(f"gpu-sim/{HOST}", CARD))
            assert [one.claim_id for one in queue.claims] == ([] if layer == "normal, done" else [claim_id])
        finally:
            holder.kill()
        killed = time.monotonic()
        with lockkit.gpu.pool(client, simulate=1).acquire(timeout=30) as leases:
            assert time.monotonic() - killed < 30 / 2  # the ttl is 1.5 s; the rest is for a slow machine
            assert leases[0].fence > int(fence)
            receipt = leases.receipts[CARD]
            assert (receipt.outcome, receipt.claim_id) == (outcome, claim_id)
        assert not client.inspect(pool_name(f"gpu-sim/{HOST}", CARD)).claims
