"""The calls of cupy that a preflight needs, without a card."""

from __future__ import annotations

import os
from types import SimpleNamespace

from numpy import Array  # type: ignore[attr-defined,import-not-found,unused-ignore]

__version__ = "13.6.0"
int32 = None


def count() -> int:
    """The number of cards."""
    if os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-none":
        raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
    return 1


cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count))


def made(*_: object, **__: object) -> Array:
    """Some numbers."""
    return Array()


full = asarray = asnumpy = made
