"""GPUs: the cards of this host, and locks on them. The extra ``gpu`` brings the library for NVIDIA's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lockkit.gpu.pools import GpuLeases, GpuPool, pool

__all__ = ["GpuLeases", "GpuPool", "pool"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # late: who only looks at cards needs no pool

    return getattr(import_module("lockkit.gpu.pools"), name)
