"""Sizes of memory: bytes in Python, ``"20GiB"`` in text. Bare numbers in text are refused: most mean GiB."""

from __future__ import annotations

import re

from lockkit.errors import ConfigError

__all__ = ["GIB", "MIB", "parse", "show"]

MIB = 1 << 20
GIB = 1 << 30
_UNITS = {"b": 1} | {
    letter + rest: 1 << 10 * power
    for power, letter in enumerate("kmgt", start=1)
    for rest in ("", "b", "ib")  # Slurm, Docker and nvidia-smi mean powers of 1024 by each of them
}
_LARGE = ((1 << 50, "PiB"), (1 << 40, "TiB"), (GIB, "GiB"))
_MOST = 1 << 50
"""The largest size accepted, a pebibyte: anything larger is taken for a typo."""


def parse(value: object, *, what: str, zero: bool = False, least: int = 1) -> int:
    """Read ``"20GiB"``, ``"1.5 TiB"``, ``"8G"``, or bytes as an int. G and GB mean GiB, as in Slurm, Docker.

    Args:
        value: The text or number.
        what: The name of the argument, for the error.
        zero: Whether 0 is allowed.
        least: The fewest bytes allowed otherwise; more than 1 where fewer suggest a forgotten unit.

    Raises:
        ConfigError: The value is none of these, or out of range.
    """
    size: int | None = None
    hint = "write 20GiB or 512MiB"
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
        if 0 < size < least:
            raise ConfigError(
                f"{what} must be at least {show(least)}, not {size} bytes", hint=_meant(str(size), hint)
            )
    elif isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)\s*([A-Za-z]+)?", value.strip())
        number, letters = (match[1], match[2]) if match else ("", None)
        unit = _UNITS.get(letters.lower()) if letters else None
        if number and letters is None and float(number) == 0:
            unit = 1
        elif number and letters is None:
            raise ConfigError(f"{what} must be a size with a unit, not {value!r}", hint=_meant(number, hint))
        if unit and (unit > 1 or "." not in number):
            size = round(float(number) * unit) if "." in number else int(number) * unit
        if size is not None and 0 < size < least:
            raise ConfigError(f"{what} must be at least {show(least)}, not {value!r}", hint=hint)
    if size is None:
        raise ConfigError(f"{what} must be a size, not {value!r}", hint=hint)
    if size < 0 or size > _MOST or (size == 0 and not zero):
        low = "at least 0" if zero else "more than 0"
        raise ConfigError(f"{what} must be {low} and at most {show(_MOST)}, not {value!r}")
    return size


def _meant(number: str, hint: str) -> str:
    """The hint for a number without a unit: in GiB, as long as that is a size that cards have."""
    return f"did you mean {number}GiB" if 0 < float(number) <= 1024 else hint


def show(size: int) -> str:
    """A size for people, rounded, so not for decisions: ``20 GiB``, ``1.5 GiB``, ``612 MiB``, ``0 MiB``."""
    if size < GIB:
        return f"{round(size / MIB)} MiB" if size < MIB * 1023.5 else "1 GiB"
    unit, name = next(each for each in _LARGE if size >= each[0])
    number = size / unit
    return (
        f"{number:.0f} {name}"
        if number >= 100 or abs(number - round(number)) < 0.05
        else f"{number:.1f} {name}"
    )
