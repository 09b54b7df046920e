"""A program that looks at NVIDIA's cards: each input row is a command, each output row its answer."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lockkit.errors import DevicesUnavailable
from lockkit.gpu import snapshots
from lockkit.gpu.devices import DeviceWatch
from lockkit.gpu.nvml import NvmlProvider

provider = NvmlProvider(Path(os.environ.get("PROC", "/proc")))
watches: list[DeviceWatch] = []


def snapshot() -> object:
    """The devices of one snapshot."""
    devices = [one._asdict() for one in provider.snapshot().devices]
    for device in devices:
        found = device["processes"]
        device["processes"] = None if found is None else [one._asdict() for one in found]
    return devices


def look(patience: float) -> object:
    """The UUIDs of one look that is given up after a while."""
    found = snapshots.look([provider], snapshots.Looking(patience))
    return [one.uuid for one in found.devices]


def faulty(patience: float) -> object:
    """The faults of each card in a look with this patience, and whether the driver reaches the card."""
    found = snapshots.look([provider], snapshots.Looking(patience))
    return {one.uuid or one.index: [one.unreachable, *one.faults] for one in found.devices}


def threads() -> object:
    """The number of threads."""
    return threading.active_count()


def remarks() -> object:
    """The remarks of one snapshot."""
    return provider.snapshot().remarks


def watch(*uuids: str) -> object:
    """Begin to watch some cards."""
    watches.append(provider.watch(uuids))
    return type(watches[-1]).__name__


def faults(uuid: str) -> object:
    """The faults that the last watch has collected."""
    return watches[-1].faults(uuid)


def unwatch() -> None:
    """End the last watch."""
    watches[-1].close()


def close() -> None:
    """Let go of the driver."""
    provider.close()


def fork(*words: Any) -> object:
    """Perform a command in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, json.dumps(answer(words)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


COMMANDS: dict[str, Callable[..., object]] = {
    each.__name__: each
    for each in (snapshot, look, faulty, threads, remarks, watch, faults, unwatch, close, fork)
}


def answer(words: Any) -> object:
    """Perform one command."""
    try:
        return COMMANDS[words[0]](*words[1:])
    except DevicesUnavailable as error:
        return {"unavailable": str(error)}


for row in sys.stdin if __name__ == "__main__" else ():
    print(json.dumps(answer(json.loads(row))), flush=True)
