"""Prometheus' text format without a library, for metrics of a store and of ``lockkit run``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkstemp
from typing import TypeAlias

from lockkit.observe.instruments import METRICS

__all__ = ["CONTENT_TYPE", "Samples", "parse", "render", "write"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of the text."""
Samples: TypeAlias = Mapping[str, Mapping[tuple[tuple[str, str], ...], float]]
"""By the name of each metric the values, by the labels with their values."""
_LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def render(samples: Samples) -> bytes:
    """The text of gauges and counters, in the order of the list of metrics."""
    lines = []
    for metric in METRICS.values():
        values = samples.get(metric.name)
        if not values:
            continue
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.type}"]
        for labels, value in values.items():
            told = ",".join(f'{label}="{text.translate(_ESCAPES)}"' for label, text in labels)
            lines.append(f"{metric.name}{{{told}}} {value!r}" if told else f"{metric.name} {value!r}")
    return "".join(f"{line}\n" for line in lines).encode(errors="replace")


def parse(text: bytes) -> Samples:
    """The samples in a text that :func:`render` made. Unreadable lines and unknown metrics are left out."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for line in text.decode(errors="replace").split("\n"):
        read = _LINE.fullmatch(line)
        if read is None or read[1] not in METRICS:
            continue
        labels = tuple(
            (label, re.sub(r"\\(.)", lambda one: "\n" if one[1] == "n" else one[1], told))
            for label, told in _LABEL.findall(read[2] or "")
        )
        try:
            found.setdefault(read[1], {})[labels] = float(read[3])
        except ValueError:
            continue
    return found


def write(path: Path, text: bytes) -> None:
    """Replace a file atomically: readers find the old text or the new one. The file is readable to all.

    Raises:
        OSError: The file cannot be written; the old one stays.
    """
    descriptor, temporary = mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
