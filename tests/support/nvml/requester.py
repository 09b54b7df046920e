"""A program that asks for cards of a host: each input row is a command, each output row its answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import lockkit
import lockkit.gpu
from lockkit.errors import LockkitError
from lockkit.gpu import watching
from lockkit.gpu.quarantine import quarantined
from lockkit.gpu.receipts import last
from lockkit.notes.members import pool_name
from lockkit.testing.stage import Work

client = lockkit.connect()
cards = lockkit.gpu.pool(client)
held: list[lockkit.gpu.GpuLeases] = []
works: list[Work[object]] = []
children: list[subprocess.Popen[bytes]] = []


def acquire(**how: Any) -> object:
    """Take some cards; the UUIDs and CUDA's variable, or the error."""
    try:
        leases = cards.acquire(**how)
    except LockkitError as error:
        return {"error": type(error).__name__, "told": error.message, "hint": error.hint}
    held.append(leases)
    return {
        "members": leases.members,
        "visible": leases.environment()["CUDA_VISIBLE_DEVICES"],
        "devices": [one.uuid for one in leases.devices],
    }


def begin(**how: Any) -> None:
    """Take some cards on a thread."""
    works.append(Work(lambda: acquire(**how)))


def result() -> object:
    """The answer to the last ``begin``."""
    return works.pop().result()


def release() -> None:
    """Release the cards that were taken last."""
    held.pop().release()


def weights(uuid: str) -> object:
    """The MiB that each holder of a card has."""
    return [one.weight for one in client.inspect(pool_name(cards.name, uuid)).holders]


def waiters(uuid: str) -> object:
    """The number of claims that wait for a card."""
    return len(client.inspect(pool_name(cards.name, uuid)).waiters)


def child() -> int:
    """The pid of a process that this one has started, and that ignores TERM."""
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(1, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    children.append(process)
    return process.pid


def pid() -> int:
    """The pid of this process."""
    return os.getpid()


def receipt(uuid: str) -> object:
    """How the last holder left a card, and what still uses it; what went wrong."""
    found = last(client, cards.name.partition("/")[2], uuid, ())
    return found and [found.outcome, found.leftover, found.left_by, found.errors]


def faults(uuid: str) -> object:
    """The faults of a card since its grant."""
    return watching.faults(uuid)


def quarantine() -> object:
    """The reason of each quarantined card."""
    marks = quarantined(client, cards.name.partition("/")[2])
    return {uuid: mark.reason for uuid, mark in marks.items()}


def left() -> object:
    """The names that anything is left in the queue of."""
    return [name for name in client.names() if client.inspect(name).claims]


COMMANDS: dict[str, Callable[..., object]] = {
    each.__name__: each
    for each in (
        acquire,
        begin,
        result,
        release,
        weights,
        waiters,
        child,
        pid,
        receipt,
        faults,
        quarantine,
        left,
    )
}

for row in sys.stdin:
    name, *words = json.loads(row)
    keywords = words.pop() if words and isinstance(words[-1], dict) else {}
    sys.stdout.write(json.dumps(COMMANDS[name](*words, **keywords)) + "\n")
    sys.stdout.flush()
