"""Frameworks that keep memory of a card for themselves: how each gives back what it does not use.

Only a framework that the program has already imported is asked, and only about a card on which it has memory:
a process that selects any other card would use some hundred MiB there. What the program still refers to stays
until the process ends, and so does the context of CUDA.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any
from uuid import UUID

from lockkit.gpu.unreturned import ProviderCall, has_returned

__all__ = ["KEEPS", "hanging", "imported", "keepers"]

KEEPS: Mapping[str, str] = {
    "jax": "jax gives memory back only when its process ends",
    "tensorflow": "tensorflow gives memory back only when its process ends",
}
"""Frameworks that cannot give memory back, with a sentence about each."""


def imported(uuid: str) -> dict[str, ProviderCall[ModuleType]]:
    """The imported frameworks that can give back memory of a card, except hanging ones, with the calls."""
    return {
        name: ProviderCall(module, partial(_free, _ASKED[name], module, uuid))
        for name, module in _modules().items()
        if has_returned(module)
    }


def hanging() -> tuple[str, ...]:
    """The frameworks that were asked in this process and have not returned."""
    return tuple(name for name, module in _modules().items() if not has_returned(module))


def _modules() -> dict[str, ModuleType]:
    return {name: module for name in _ASKED if (module := _module(name)) is not None}


def keepers() -> tuple[str, ...]:
    """A sentence about each framework that the program has imported and that cannot give memory back."""
    return tuple(told for name, told in KEEPS.items() if _module(name) is not None)


def _module(name: str) -> ModuleType | None:
    """A module that is imported, and not just being imported."""
    module = sys.modules.get(name)
    under_way = getattr(getattr(module, "__spec__", None), "_initializing", False)
    return None if module is None or under_way else module


def _free(ask: Callable[[Any, str], None], module: ModuleType, uuid: str) -> None:
    gc.collect()  # a cycle may keep the last tensors
    ask(module, uuid)


def _torch(torch: Any, uuid: str) -> None:
    cuda = torch.cuda
    if not cuda.is_initialized():
        return
    for index in range(cuda.device_count()):
        if cuda.memory_reserved(index) and _may_be(
            getattr(cuda.get_device_properties(index), "uuid", None), uuid
        ):
            with cuda.device(index):  # not the current one, on which this process may have nothing yet
                cuda.empty_cache()
                cuda.ipc_collect()


def _cupy(cupy: Any, uuid: str) -> None:
    runtime = cupy.cuda.runtime
    count = runtime.getDeviceCount()
    for index in range(count):
        known = runtime.getDeviceProperties(index).get("uuid")
        # Selecting a card makes a context there, so it must be the right one.
        if (known or count == 1) and _may_be(known, uuid):
            with cupy.cuda.Device(index):
                cupy.get_default_memory_pool().free_all_blocks()


def _paddle(paddle: Any, uuid: str) -> None:  # noqa: ARG001 (paddle does not tell which card is which)
    cuda = paddle.device.cuda
    before = paddle.device.get_device()
    used = [f"gpu:{index}" for index in range(cuda.device_count()) if cuda.memory_reserved(index)]
    try:
        for device in used:
            if paddle.device.get_device() != device:
                paddle.device.set_device(device)
            cuda.empty_cache()
    finally:
        if paddle.device.get_device() != before:
            paddle.device.set_device(before)


_ASKED: Mapping[str, Callable[[Any, str], None]] = {"torch": _torch, "cupy": _cupy, "paddle": _paddle}


def _may_be(told: object, uuid: str) -> bool:
    """Whether a framework's name for a card is empty, or may be its UUID: as text, or bytes cut at a zero."""
    if not told:
        return True
    try:
        wanted = UUID(uuid.partition("-")[2])
    except ValueError:
        return True
    if isinstance(told, bytes):
        return wanted.bytes.startswith(told[:16])
    text = str(told)
    return str(wanted) in text.lower() if "-" in text else True
