"""Simulated cards, to try the GPU commands on any machine: ``[gpu] simulate = 2``, ``--gpu-sim 2``.

The UUIDs of a host's cards never change. A state file, which may change at any moment, scripts their state:

{"0": {"processes": [{"pid": 4711, "user": "bob", "program": "jupyter", "memory": "12GiB"}]},
 "1": {"used": "3GiB", "faults": ["the card must be reset"]}}
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lockkit.errors import ConfigError, DevicesUnavailable
from lockkit.gpu.devices import BasicProvider, Device, DeviceProcess, Snapshot
from lockkit.values.identity import look_at
from lockkit.values.sizes import GIB, MIB, parse

if TYPE_CHECKING:
    from lockkit.gpu.scripted import ScriptedCard, ScriptedProcess

__all__ = ["STATE_FILE", "SimulatedProvider"]

STATE_FILE = "simulated-gpus.json"
"""The name of the state file in the state folder."""

_CARDS = uuid.UUID("7c1d5f0e-0f3c-5e0b-9d53-2b8f6f6f8c11")
"""The namespace of the cards' UUIDs (RFC 9562, version 5)."""
_MEMORY, _RESERVED = 24 * GIB, 512 * MIB
_LONGEST = 64 * 1024
"""Bytes of a state file. A longer one is no state file."""


class SimulatedProvider(BasicProvider):
    """Some cards that do not exist. Each decision about them is made as for real ones.

    Args:
        count: The number of cards.
        state: The state file; without one, or before it is there, every card is idle.
        host: The name of the host, from which the UUIDs follow; None for that of this one.
    """

    name = "simulated"

    def __init__(self, count: int, state: Path | None = None, *, host: str | None = None) -> None:
        self._state = state
        host = os.uname().nodename if host is None else host
        self._uuids = [f"GPU-{uuid.uuid5(_CARDS, f'{host}/{index}')}" for index in range(count)]

    def snapshot(self) -> Snapshot:
        """Look at all cards.

        Raises:
            DevicesUnavailable: The state file is unreadable or wrong; the message names the file and place.
        """
        if not self._uuids:
            raise DevicesUnavailable(
                "no GPU is simulated", hint="write simulate = 2 under [gpu], or --gpu-sim 2"
            )
        script = self._read()
        cards = tuple(_device(one, index, script.get(index)) for index, one in enumerate(self._uuids))
        return Snapshot(time.time(), cards)

    def watch(self, uuids: Sequence[str]) -> SimulatedWatch:
        """Watch some cards for the ``events`` that are added to the state file."""
        return SimulatedWatch(self, uuids)

    def events(self, uuid: str) -> tuple[str, ...]:
        """The events of a card so far; none if the state file is wrong, which a snapshot says."""
        try:
            script = self._read()
        except DevicesUnavailable:
            return ()
        card = script.get(self._uuids.index(uuid)) if uuid in self._uuids else None
        return tuple(card.events) if card else ()

    def _read(self) -> dict[int, ScriptedCard]:
        if self._state is None:
            return {}
        try:
            text = self._state.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise DevicesUnavailable(
                f"{self._state} cannot be read: {error.strerror}", hint="remove it"
            ) from error
        from lockkit.gpu.scripted import decode  # late: imports msgspec

        try:
            if len(text) > _LONGEST:
                raise ConfigError(f"longer than {_LONGEST // 1024} KiB")
            return decode(text, len(self._uuids))
        except ConfigError as error:
            raise DevicesUnavailable(
                f"{self._state} does not describe simulated GPUs: {error.message}",
                hint=error.hint or "correct the file, or remove it: then every simulated card is idle",
            ) from error


class SimulatedWatch:
    """The events that a state file gained since the watch began."""

    def __init__(self, provider: SimulatedProvider, uuids: Sequence[str]) -> None:
        self._provider = provider
        self._before = {uuid: len(provider.events(uuid)) for uuid in uuids}

    def faults(self, uuid: str) -> tuple[str, ...]:
        """The events of a card since the watch began."""
        before = self._before.get(uuid)
        return () if before is None else self._provider.events(uuid)[before:]

    def close(self) -> None:
        """End the watch."""
        self._before.clear()


def _device(uuid: str, index: int, card: ScriptedCard | None) -> Device:
    if card is None:
        return Device(uuid, index, "Simulated GPU", _MEMORY, _RESERVED, 0, 0, ())
    memory = parse(card.memory, what="memory") if card.memory is not None else _MEMORY
    processes = tuple(_process(one) for one in card.processes if not _gone(one))
    used = sum(one.memory or 0 for one in processes)
    if card.used is not None:
        used = parse(card.used, what="used", zero=True)
    busy = card.utilisation if card.utilisation is not None else 100 if processes else 0
    return Device(uuid, index, card.name, memory, _RESERVED, used, busy, processes, faults=tuple(card.faults))


def _process(one: ScriptedProcess) -> DeviceProcess:
    return DeviceProcess(one.pid, one.user, one.program, parse(one.memory, what="memory", zero=True))


def _gone(one: ScriptedProcess) -> bool:
    """Whether a process that is there only while it lives has ended."""
    if not one.while_alive or one.pid is None:
        return False
    seen = look_at(one.pid)
    return seen is None or seen.ended
