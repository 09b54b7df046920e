"""The calls of torch that a preflight needs, without a card."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

STATE = Path(os.environ["TORCH_STATE"])
CARD = os.environ["CUDA_VISIBLE_DEVICES"]
TOLD = json.loads(STATE.read_text())
DOES = TOLD.get(CARD, TOLD.get("*", "")) if CARD else ""

__version__ = "2.9.0"
version = SimpleNamespace(cuda=None if TOLD.get("import") == "without CUDA" else "13.0")
cuda = SimpleNamespace(is_available=lambda: start() and DOES != "absent")
float32 = int32 = None

sys.stdout.write("a framework may print what it likes\n")
if TOLD.get("import") == "fails":
    raise ImportError("libcudart.so.13: cannot open shared object file")


def start() -> bool:
    """Start CUDA."""
    if DOES == "starts slowly":
        time.sleep(600)
    return True


class OutOfMemoryError(RuntimeError):
    """The error of an allocation that finds no memory."""


class Tensor:
    """Numbers that are not computed."""

    def to(self, place: str) -> Tensor:
        """Use the card."""
        assert place == "cuda"
        use()
        return self

    def same(self, *_: object) -> Tensor:
        """Do nothing."""
        return self

    __mod__ = __matmul__ = reshape = cpu = same
    __eq__ = same  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]

    def all(self) -> bool:
        """Whether each number is true."""
        return True


def use() -> None:
    """Compute, as the file says."""
    with STATE.with_suffix(".log").open("a") as log:
        log.write(f"{CARD}\n")
    if DOES == "hangs":
        time.sleep(600)
    if DOES == "dies":
        os._exit(9)
    if DOES == "no memory":
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 64.00 MiB.")
    if DOES not in ("", "wrong"):
        raise RuntimeError(DOES)


def made(*_: object, **__: object) -> Tensor:
    """Some numbers."""
    return Tensor()


arange = full = made


def equal(*_: object) -> bool:
    """Whether the result is right."""
    return bool(DOES != "wrong")
