"""GPUs, and the processes on them, as people call them. Pure: no I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from lockkit.gpu.devices import Device, DeviceProcess
from lockkit.lib.printable import printable
from lockkit.values.sizes import show

__all__ = [
    "OLD_SLICE",
    "WITHOUT",
    "alike",
    "how_many",
    "long_name",
    "process_words",
    "short_name",
    "together",
    "until_words",
    "users_of",
]

_DAY = 86_400.0
_Said = TypeVar("_Said", bound=str | None)
OLD_SLICE = "MIG-GPU-"
"""The beginning of slices' names before R470: ``MIG-GPU-<UUID>/<GPU instance>/<compute instance>``."""
WITHOUT = (
    "to try lockkit without a GPU: LOCKKIT_GPU_SIMULATE=8 in the environment, or --gpu-sim 8 of a command"
)
"""The hint for a host on which no card can be seen."""


def how_many(count: int) -> str:
    """A number of cards in words: ``1 GPU``, ``2 GPUs``."""
    return "1 GPU" if count == 1 else f"{count} GPUs"


def short_name(device: Device) -> str:
    """A card or slice in a few words: ``GPU 0``."""
    return f"slice {device.uuid} of GPU {device.index}" if device.parent else f"GPU {device.index}"


def together(devices: Sequence[Device]) -> str:
    """Cards and slices in the same state, in a few words: ``GPU 0+1``, ``GPU 0+1+slice MIG-54a033e8``."""
    whole = [str(one.index) for one in devices if one.parent is None]
    slices = [f"slice {one.uuid[:12]}" for one in devices if one.parent is not None]
    return "+".join([*([f"GPU {'+'.join(whole)}"] if whole else []), *slices])


def alike(found: Iterable[tuple[Device, _Said]]) -> dict[_Said, list[Device]]:
    """The cards of which the same is said, by what is said; in the order of the first card of each."""
    groups: dict[_Said, list[Device]] = {}
    for device, said in found:
        groups.setdefault(said, []).append(device)
    return groups


def until_words(end: float, now: float, local: Callable[[float], time.struct_time] = time.localtime) -> str:
    """The end of a hold for people: ``until 14:00``, with the day if it is more than a day away."""
    return time.strftime("until %H:%M" if end - now < _DAY else "until %d %b %H:%M", local(end))


def long_name(device: Device) -> str:
    """A card as people call it: ``GPU 0 (NVIDIA H100), GPU-54a033e8``."""
    kind = "slice of GPU" if device.parent else "GPU"
    uuid = f", {device.uuid[:12]}" if device.uuid else ""  # a card that its driver has lost may have none
    return f"{kind} {device.index} ({device.name or 'unknown model'}){uuid}"


def users_of(processes: Iterable[DeviceProcess]) -> tuple[str, ...]:
    """The users of some processes, each once; a process whose user is unknown is left out."""
    return tuple(dict.fromkeys(printable(one.user) for one in processes if one.user))


def process_words(process: DeviceProcess) -> str:
    """A process for people: ``bob pid 4711 (jupyter), 12 GiB``."""
    pid = "unknown pid" if process.pid is None else f"pid {process.pid}"
    words = f"{process.user} {pid}" if process.user else pid
    words = f"{words} ({process.program})" if process.program else words
    return printable(words if process.memory is None else f"{words}, {show(process.memory)}")
