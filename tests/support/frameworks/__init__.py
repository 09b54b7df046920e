"""Stand-ins for torch and cupy, on no card, of which a file steers that for torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["FOLDER", "Torch"]

FOLDER = Path(__file__).parent
"""The folder of the stand-in for torch; that for cupy is in ``only_cupy`` below it."""


class Torch:
    """The stand-in in the environment of a program.

    Args:
        state: The file that steers it: what happens on each card, by the value of CUDA_VISIBLE_DEVICES:
            ``wrong``, ``hangs``, ``absent``, ``dies``, or the text of an error. ``*`` is every other card,
            and ``import`` the import.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self.steer({})

    def steer(self, cards: Mapping[str, str]) -> None:
        """Write the file, and forget which cards were computed on."""
        self._state.write_text(json.dumps(cards))
        self._state.with_suffix(".log").write_text("")

    def computed(self) -> list[str]:
        """The cards that were computed on, in order."""
        return self._state.with_suffix(".log").read_text().split()

    def environ(self) -> dict[str, str]:
        """The variables of a program that is to import it."""
        return {"PYTHONPATH": str(FOLDER), "TORCH_STATE": str(self._state)}
