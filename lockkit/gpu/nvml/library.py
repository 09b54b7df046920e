"""NVIDIA's library, NVML, through the module ``pynvml`` of nvidia-ml-py: finding it, and why it fails.

Imported and initialised only when devices are looked at, because a driver that wakes up may take seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from lockkit.errors import DevicesNotReady, DevicesUnavailable
from lockkit.gpu.words import WITHOUT
from lockkit.lib.forks import IMPORTS

__all__ = ["begin", "load", "unavailable"]

_NEEDED = ("NVMLError", "nvmlInitWithFlags", "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlMemory_v2")
"""Names that every usable pynvml defines."""

# By number: old versions of pynvml lack some of the names.
_REASONS: Mapping[int, tuple[str, str]] = {
    4: (
        "this user may not use NVIDIA's cards",
        "ask the administrator for the right to open /dev/nvidiactl and /dev/nvidia0",
    ),
    9: (
        "NVIDIA's driver is not loaded",
        f"load it: sudo modprobe nvidia; the kernel's log, dmesg, says why it is not; {WITHOUT}",
    ),
    12: (
        "NVIDIA's library libnvidia-ml.so.1 is not on this host",
        f"install NVIDIA's driver; in a container: start it with its GPUs, docker run --gpus all; {WITHOUT}",
    ),
    13: (
        "NVIDIA's driver is too old for the module pynvml",
        "update the driver",
    ),
    15: ("a card of this host has fallen off the bus", "restart the host; see dmesg for Xid 79"),
    17: ("the operating system keeps NVIDIA's driver from answering", "see dmesg"),
    18: (
        "NVIDIA's library and the loaded driver have different versions, as after an update",
        "restart the host, or unload the driver and load it again",
    ),
}
"""Why NVML cannot be used, and what to do, by the number of its error."""
_LASTING = (4, 12, 13, 15, 17)
"""Errors that no wait cures. Others may pass, as 9 (not loaded) and 18 (unlike the library) in an upgrade."""


def load() -> ModuleType:
    """Import ``pynvml``, and check that it is NVIDIA's.

    Raises:
        DevicesUnavailable: The module is missing, or another module of that name is in the way.
    """
    try:
        with IMPORTS:
            nvml = import_module("pynvml")
    except ImportError as error:
        if error.name != "pynvml":
            raise DevicesUnavailable(
                f"the module pynvml cannot be imported: {error}", hint=_install()
            ) from error
        raise DevicesUnavailable(
            "the module pynvml is not installed", hint=f"{_install()}; {WITHOUT}"
        ) from error
    except Exception as error:
        raise DevicesUnavailable(
            f"the module pynvml cannot be imported: {type(error).__name__}: {error}", hint=_install()
        ) from error
    where = getattr(nvml, "__file__", None) or "an unknown place"
    if hasattr(nvml, "__path__"):  # NVIDIA's is a single file
        raise DevicesUnavailable(
            f"the module pynvml in {where} is not that of nvidia-ml-py,"
            " but of the old distribution pynvml or another one",
            hint=f"pip uninstall -y pynvml nvidia-ml-py; then: {_install()}",
        )
    if not all(hasattr(nvml, name) for name in _NEEDED):
        raise DevicesUnavailable(
            f"the module pynvml in {where} is not NVIDIA's, or a very old one of theirs",
            hint=f"rename it if it is yours; else: {_install()} --upgrade",
        )
    return nvml


def _install() -> str:
    return 'pip install "lockkit[gpu]"'


def begin(nvml: ModuleType, *, forked: bool) -> None:
    """Initialise NVML for this process.

    Args:
        nvml: The module.
        forked: Whether an ancestor initialised NVML. A lock that its threads held at the fork is replaced.

    Raises:
        DevicesUnavailable: NVML cannot be initialised; the message says why, and what to do.
    """
    if forked:
        nvml.libLoadLock = threading.Lock()  # type: ignore[attr-defined]
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise unavailable(error) from error


def unavailable(error: Any) -> DevicesUnavailable:
    """The error for an error of NVML that concerns all its cards."""
    number = getattr(error, "value", 0)
    told, hint = _REASONS.get(number, (f"NVIDIA's library NVML fails: {error}", "try nvidia-smi; see dmesg"))
    return (DevicesUnavailable if number in _LASTING else DevicesNotReady)(told, hint=hint)
