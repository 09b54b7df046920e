"""Writes the pictures of the pages: `python docs/pictures.py`; with `--record` it runs the demo anew first.

A test fails if a picture is older than the code that draws it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from drawing.figures import FIGURES
from drawing.terminal import Recording, record, render

PICTURES = Path(__file__).parent / "pictures"
CAST = PICTURES / "demo.cast"


def recorded() -> Recording:
    """The demo, run now."""
    environ = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    environ["PATH"] = (
        f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # so that the demo names lockkit alone
    )
    return record("lockkit demo", [sys.executable, "-m", "lockkit", "demo"], environ)


def pictures() -> dict[str, str]:
    """Every picture, by the name of its file."""
    demo = render(
        Recording.from_cast(CAST.read_text()),
        "A recording of lockkit demo",
        "A terminal. Five processes take turns to hold one lock. One is killed with kill -9 and the lock goes on at once; one is stopped for longer than its ttl, "
        "and learns that it has lost the lock. A timeline shows who held the lock when, and the checks say that no two held it at the same time.",
    )
    return {"demo.svg": demo} | {f"{name}.svg": draw().svg() for name, draw in FIGURES.items()}


if __name__ == "__main__":
    if "--record" in sys.argv[1:]:
        CAST.write_text(recorded().to_cast())
    for name, text in pictures().items():
        (PICTURES / name).write_text(text)
