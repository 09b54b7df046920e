"""GPUs: the cards of this host, and locks on them. The extra ``gpu`` brings the library for NVIDIA's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lockkit.gpu.old_names import default_client, gpu_lock, release_lock
    from lockkit.gpu.pools import GpuLeases, GpuPool, pool

__all__ = ["GpuLeases", "GpuPool", "default_client", "gpu_lock", "pool", "release_lock"]

_OLD = ("default_client", "gpu_lock", "release_lock")


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # late: who only looks at cards needs no pool

    return getattr(import_module("lockkit.gpu.old_names" if name in _OLD else "lockkit.gpu.pools"), name)


def __dir__() -> list[str]:
    return sorted((*__all__, *(name for name in globals() if name.startswith("__"))))
