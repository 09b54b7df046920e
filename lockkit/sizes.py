"""Sizes of memory: bytes in Python, ``"20GiB"`` in config and on the command line."""

from __future__ import annotations

import re

from lockkit.errors import ConfigError

__all__ = ["GIB", "MIB", "parse", "show"]

MIB = 1 << 20
GIB = 1 << 30
_UNITS = {
    "b": 1,
    "kib": 1 << 10,
    "mib": MIB,
    "gib": GIB,
    "tib": 1 << 40,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
}
_LARGE = ((1 << 50, "PiB"), (1 << 40, "TiB"), (GIB, "GiB"))
_MOST = 1 << 50
"""The largest size accepted, a pebibyte: anything larger is taken for a typo."""


def parse(value: object, *, what: str, zero: bool = False) -> int:
    """Read ``"20GiB"``, ``"512MiB"``, ``"1.5 TiB"``, ``"8GB"`` or a whole number of bytes. 1 GiB is 1024 MiB, 1 GB is 1000 MB.

    Args:
        value: The text or number.
        what: The name of the argument, for the error.
        zero: Whether 0 is allowed.

    Raises:
        ConfigError: The value is none of these, or out of range.
    """
    size: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)\s*([A-Za-z]+)?", value.strip())
        unit = _UNITS.get((match[2] or "b").lower()) if match else None
        if match and unit and (unit > 1 or "." not in match[1]):
            size = round(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit
    if size is None:
        raise ConfigError(
            f"{what} must be a size, not {value!r}", hint="write 20GiB, 512MiB, 8GB, or a number of bytes"
        )
    if size < 0 or size > _MOST or (size == 0 and not zero):
        low = "at least 0" if zero else "more than 0"
        raise ConfigError(f"{what} must be {low} and at most {show(_MOST)}, not {value!r}")
    return size


def show(size: int) -> str:
    """A size for people: ``20 GiB``, ``1.5 GiB``, ``612 MiB``, ``0 MiB``. Rounded, so it is not for decisions."""
    if size < GIB:
        return f"{round(size / MIB)} MiB" if size < MIB * 1023.5 else "1 GiB"
    unit, name = next(each for each in _LARGE if size >= each[0])
    number = size / unit
    return (
        f"{number:.0f} {name}"
        if number >= 100 or abs(number - round(number)) < 0.05
        else f"{number:.1f} {name}"
    )
