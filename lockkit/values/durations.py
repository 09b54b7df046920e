"""Durations: seconds in Python, ``"30s"`` in config and on the command line; checked before any I/O."""

from __future__ import annotations

import math
import re
import time
from typing import overload

from lockkit.errors import ConfigError

__all__ = [
    "ENDLESS",
    "LONGEST",
    "age",
    "exact",
    "limit",
    "limits",
    "parse",
    "rfc3339",
    "seconds",
    "show",
    "utc",
]

LONGEST = 10 * 365 * 86_400.0
"""The longest duration accepted: ten years, in seconds."""

ENDLESS = ("forever", "never", "none")
"""The words for "no limit"."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = r"(\d+(?:\.\d+)?)(ms|s|m|h|d)"


def seconds(value: object, *, what: str, zero: bool = False) -> float:
    """Check a duration given in Python and return it as float seconds.

    Args:
        value: An int or float, in seconds.
        what: The name of the argument, for the error.
        zero: Whether 0 is allowed.

    Raises:
        ConfigError: The value is a bool, not a number, NaN, infinite, negative, longer than :data:`LONGEST`,
            or a forbidden 0.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(
            f"{what} must be a number of seconds, not {value!r}", hint=f"for instance {what}=30"
        )
    # An int may be too big.
    number = float(value) if isinstance(value, float) or abs(value) <= LONGEST else math.inf
    if (
        math.isnan(number)
        or math.isinf(number)
        or number < 0
        or number > LONGEST
        or (number == 0 and not zero)
    ):
        low = "at least 0" if zero else "more than 0"
        told = f"{value:.12g}" if isinstance(value, float) else value
        most = f" and at most {LONGEST:.0f} seconds (10 years)" if number > LONGEST else ""
        raise ConfigError(f"{what} must be {low}{most}, not {told}")
    return number


def parse(text: str, *, what: str, zero: bool = False) -> float:
    """Read ``"30s"``, ``"1h30m"``, ``"250ms"`` or a bare number of seconds.

    Raises:
        ConfigError: The text is none of these, or out of range.
    """
    compact = text.strip().lower()
    try:
        return seconds(float(compact), what=what, zero=zero)
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
    parts = re.findall(_PART, compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ConfigError(
            f"{what} must be a duration, not {text!r}", hint="write 500ms, 30s, 10m, 2h, 1d or 1h30m"
        )
    return seconds(sum(float(number) * _UNITS[unit] for number, unit in parts), what=what, zero=zero)


def limit(text: str, *, what: str, zero: bool = False) -> float | None:
    """Read a duration, or one of :data:`ENDLESS`, which gives None.

    Raises:
        ConfigError: As for :func:`parse`.
    """
    return None if text.strip().lower() in ENDLESS else parse(text, what=what, zero=zero)


def limits(low: float, high: float) -> str:
    """The allowed range, for people: ``16 s to 40 s``, or ``at least 0.1 s`` up to the general limit."""
    return f"at least {exact(low)}" if high >= LONGEST else f"{exact(low)} to {exact(high)}"


def exact(value: float) -> str:
    """A duration for people, not rounded: ``2.25 s``, ``2 h``, ``7201 s``."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if value >= 2 * size and value % size == 0:
            return f"{value / size:.0f} {unit}"
    return f"{value:.12g} s"


def age(value: float) -> str:
    """The time since a start, for people, rounded: ``just now`` below a second, else as :func:`show`."""
    return "just now" if value < 1 else show(value)


def show(value: float) -> str:
    """A duration for people, rounded: ``0.25 s``, ``12 s``, ``3 min``, ``2 h 5 min``, ``4 d 1 h``."""
    if value < 10:
        return f"{round(value, 3):.2g} s" if value >= 0.0005 else "0 s"
    whole = round(value)
    if whole < 120:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if hours < 2:
        return f"{minutes} min"
    if days < 2:
        rest = minutes % 60
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    rest = hours % 24
    return f"{days} d {rest} h" if rest else f"{days} d"


@overload
def rfc3339(at: float) -> str: ...
@overload
def rfc3339(at: float | None) -> str | None: ...
def rfc3339(at: float | None) -> str | None:
    """A time since the epoch, for programs: ``2030-01-31T12:00:00.250Z``; None for None.

    Importing datetime would add a millisecond to the start of programs.
    """
    if at is None:
        return None
    fraction, whole = math.modf(at)
    more, micros = divmod(round(fraction * 1e6), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole + more))}.{micros // 1000:03d}Z"


def utc(at: float) -> str:
    """A time of the wall clock, for people of all time zones: ``2025-11-27 19:00:00 UTC``."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
