"""Writes the keywords of `connect` for type checkers, from the settings: `python docs/tables.py`.

Type checkers read keywords from a class, and cannot make it from another one. A test fails if the class is
out of date.
"""

from __future__ import annotations

import inspect
from pathlib import Path

from lockkit.config.settings import SETTINGS
from lockkit.sync.client import connect

FILE = Path(__file__).parents[1] / "lockkit" / "shared" / "options.py"
BEGIN, END = '``lockkit docs config``.\n    """\n\n', "\n\n# End of the lines written by docs/tables.py.\n"


def keywords() -> str:
    """The fields of the class, those left out that `connect` names itself. Lists may be any sequences."""
    named = inspect.signature(connect).parameters
    lines = (f"    {key}: {setting.annotation}\n" for key, setting in SETTINGS.items() if key not in named)
    return "".join(lines).replace("tuple[str, ...]", "Sequence[str]").replace("'", '"')


def filled(text: str) -> str:
    """The text of the file, with the fields as the settings have them."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}{keywords()}{END}{rest.partition(END)[2]}"


def write() -> None:
    """Bring the file up to date."""
    FILE.write_text(filled(FILE.read_text()))
