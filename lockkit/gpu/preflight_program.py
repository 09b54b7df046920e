"""The program of a preflight, for a child process, perhaps another Python. Imports nothing of lockkit.

``preflight_program.py probe`` finds a framework to import, without touching a card. ``preflight_program.py
torch`` (or ``cupy``) computes on the card that the environment shows. Each line of output is a word and a
text: ``ready`` after a first small product, for which CUDA had to start, then ``fine``, ``wrong`` (the
result), ``raised`` (an error while computing), or ``absent`` (the framework is unusable, or sees no card).
"""

from __future__ import annotations

import os
import sys
import threading
from importlib import import_module
from typing import Any

SIDE = 1024
NUMBERS = 1 << 24
PATTERN = 1234567


def main(word: str) -> None:
    """Do what the word says."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 (an old Python's pathlib is slower)
    sys.path[:] = [one for one in sys.path if one not in ("", here)]  # so that nothing here hides a module
    threading.Thread(target=end_with_parent, daemon=True).start()
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a framework prints is no answer

    def say(what: str, text: object = "") -> None:
        out.write(f"{what} {' '.join(str(text).split())[:300]}\n")

    if word == "probe":
        probe(say)
        return
    try:
        compute = (of_torch if word == "torch" else of_cupy)(say)
    except Exception as error:
        say("absent", f"{type(error).__name__}: {error}")
        return
    if compute is None:
        return
    try:
        say("fine" if compute(lambda: say("ready")) else "wrong")
    except Exception as error:
        say("raised", f"{type(error).__name__}: {error}")


def end_with_parent() -> None:
    """End when standard input does: the parent has ended, and nobody waits for the answer."""
    os.read(0, 1)
    os._exit(3)


def probe(say: Any) -> None:
    """Report the first framework that is importable and made for cards, or why each cannot be used."""
    try:
        torch: Any = import_module("torch")
        version = torch.version
        if getattr(version, "cuda", None) or getattr(version, "hip", None):
            say("torch", torch.__version__)
            return
        say("absent", "torch is a build without CUDA")
    except Exception as error:
        say("absent", f"torch: {type(error).__name__}: {error}")
    try:
        cupy: Any = import_module("cupy")
        say("cupy", cupy.__version__)
    except Exception as error:
        say("absent", f"cupy: {type(error).__name__}: {error}")


def of_torch(say: Any) -> Any:
    """The computation with torch; None if it sees no card. Any order of additions has the same result."""
    torch: Any = import_module("torch")
    if not torch.cuda.is_available():
        say("absent", "torch sees no card that it can use")
        return None

    def compute(started: Any) -> bool:
        first = torch.full((8, 8), 1, dtype=torch.float32, device="cuda")
        (first @ first).cpu()
        started()
        small = (torch.arange(SIDE * SIDE, dtype=torch.float32) % 7).reshape(SIDE, SIDE)
        on_card = small.to("cuda")
        product = (on_card @ on_card).cpu()
        kept = torch.full((NUMBERS,), PATTERN, dtype=torch.int32, device="cuda")
        return bool(torch.equal(product, small @ small)) and bool((kept == PATTERN).all())

    return compute


def of_cupy(say: Any) -> Any:  # noqa: ARG001 (as of_torch)
    """The computation with cupy; see :func:`of_torch`."""
    cupy: Any = import_module("cupy")
    cupy.cuda.runtime.getDeviceCount()  # raises if there is none

    def compute(started: Any) -> bool:
        numpy: Any = import_module("numpy")
        first = cupy.full((8, 8), 1, dtype=numpy.float32)
        cupy.asnumpy(first @ first)
        started()
        small = (numpy.arange(SIDE * SIDE, dtype=numpy.float32) % 7).reshape(SIDE, SIDE)
        on_card = cupy.asarray(small)
        product = cupy.asnumpy(on_card @ on_card)
        kept = cupy.full(NUMBERS, PATTERN, dtype=cupy.int32)
        return bool(numpy.array_equal(product, small @ small)) and bool((kept == PATTERN).all())

    return compute


if __name__ == "__main__":
    main(sys.argv[1])
