"""The versions in tests/locked, and what is installed beside them. lockkit itself need not be installed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["FOLDER", "MAIN", "constrained_by", "locked", "unlike"]

FOLDER = Path(__file__).parents[1] / "locked"
MAIN = FOLDER / "main.txt"


def constrained_by() -> Path | None:
    """The file that the installer of this environment was held to; tox names it."""
    named = os.environ.get("UV_CONSTRAINT")
    return Path(named) if named is not None and Path(named).parent == FOLDER else None


def locked(file: Path, markers: Mapping[str, str] | None = None) -> Iterator[Requirement]:
    """Each ``name==version`` of a file that applies to this Python and system, or to those of ``markers``."""
    for line in re.findall(r"^[a-z0-9].*?(?= *\\?$)", file.read_text(encoding="utf-8"), re.MULTILINE):
        pinned = Requirement(line)
        if pinned.marker is None or pinned.marker.evaluate(dict(markers or {})):
            yield pinned


def unlike(file: Path) -> list[str]:
    """Lines that name the installed distributions of other versions than in the file, with both versions."""
    versions = {
        canonicalize_name(pinned.name): str(pinned.specifier).removeprefix("==") for pinned in locked(file)
    }
    found = {canonicalize_name(each.name): each.version for each in distributions()}
    return [
        f"{name} {version} is installed, {versions.get(name, 'nothing')} is locked"
        for name, version in sorted(found.items())
        if name not in {"lockkit", "pip"} and versions.get(name) != version
    ]
