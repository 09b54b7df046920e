"""Writes the settings for type checkers, from `lockkit.config.settings.SETTINGS`: `python docs/tables.py`.

`Config` has each setting as an attribute, and `connect` takes each as a keyword. Type checkers read both from
classes, and can make neither from a table. A test fails if a class is out of date.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

from lockkit.config.settings import SETTINGS, Setting
from lockkit.sync.client import connect

PACKAGE = Path(__file__).parents[1] / "lockkit"
TYPES: Mapping[str, Callable[[Setting], str]] = {
    "text": lambda _: "str",
    "duration": lambda _: "float",
    "limit": lambda _: "float",
    "choice": lambda setting: "Literal[" + ", ".join(f'"{choice}"' for choice in setting.allowed) + "]",
    "flag": lambda _: "bool",
    "names": lambda _: "tuple[str, ...]",
    "count": lambda _: "int",
}
"""The type of a value, by the kind of its setting."""


def annotation(setting: Setting, names: str = "tuple[str, ...]") -> str:
    """A setting as a line in the body of a class. ``names`` is the type of a list."""
    kind = names if setting.kind == "names" else TYPES[setting.kind](setting)
    unset = " | None" if setting.default is None or setting.kind == "limit" else ""
    return f"    {setting.key}: {kind}{unset}\n"


def fields() -> str:
    """The settings as fields of :class:`lockkit.config.Config`."""
    return "".join(map(annotation, SETTINGS.values()))


def briefly(setting: Setting) -> str:
    """The first sentence of a setting's meaning, up to a semicolon, as a docstring has it."""
    first = re.split(r"; |(?<=\.) ", setting.meaning)[0].rstrip(".").replace("`", "``")
    return re.sub(r'"[^" ]*\*"', r"``\g<0>``", first) + "."


def _entry(text: str) -> str:
    """An entry under ``Attributes:`` in lines of at most 110 columns."""
    first, rest = " " * 8, " " * 12
    lines = textwrap.wrap(text, 110, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
    return "\n".join(lines) + "\n"


def keywords() -> str:
    """The class of the keywords of ``connect``, those left out that it names itself."""
    named = inspect.signature(connect).parameters
    settings = [setting for setting in SETTINGS.values() if setting.key not in named]
    meanings = (_entry(f"{setting.key}: {briefly(setting)}") for setting in settings)
    return (
        "class Settings(TypedDict, total=False):\n"
        '    """Further settings that ``connect`` takes by keyword, as defaults of all locks of the client.\n'
        "\n"
        "    Durations are in seconds; None, where allowed, means no limit. Settings that are left out\n"
        "    come from the config. :data:`lockkit.config.settings.SETTINGS` says more of each.\n"
        "\n"
        "    Attributes:\n"
        f"{''.join(meanings)}"
        '    """\n'
        "\n"
        f"{''.join(annotation(setting, 'Sequence[str]') for setting in settings)}"
        "\n\n"
    )


LINES = {"config/config.py": fields, "shared/options.py": keywords}
"""The lines that are written into a file, by its name in the package."""


def filled(file: str, text: str) -> str:
    """The text of a file, with the lines between its two comments as the table of settings has them."""
    return re.sub(
        r"( *# Written by docs/tables\.py from lockkit\.config\.settings\.\n).*?"
        r"( *# End of the lines written by docs/tables\.py\.\n)",
        lambda found: f"{found[1]}{LINES[file]()}{found[2]}",
        text,
        flags=re.DOTALL,
    )


def write() -> None:
    """Bring the classes up to date."""
    for file in LINES:
        path = PACKAGE / file
        text = path.read_text()
        if filled(file, text) != text:
            path.write_text(filled(file, text))
