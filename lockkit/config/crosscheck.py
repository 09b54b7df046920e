"""The check of settings that must fit each other: ages of a hold, max_hold, min_hold, ttl, kill_after."""

from __future__ import annotations

from itertools import pairwise

from lockkit.config.settings import Value
from lockkit.errors import ConfigError
from lockkit.values.durations import show

__all__ = ["DEFAULT", "misfits"]

DEFAULT = "default"
"""The source of a setting that was not set."""
_AGES = ("age_warning", "age_soft", "age_hard")


def misfits(values: dict[str, Value], sources: dict[str, str]) -> list[ConfigError]:
    """Find settings that do not fit each other. If only max_hold was set, the default ages are lowered."""

    def told(key: str) -> str:
        return f"{key} ({show(number(key))}, from {sources.get(key, DEFAULT)})"

    def number(key: str) -> float:
        value = values[key]
        assert isinstance(value, (int, float))
        return value

    longest = values["max_hold"]
    if isinstance(longest, float) and longest < number("age_hard") and not sources.keys() & set(_AGES):
        # If only max_hold was set, the default ages are scaled down to stay below it.
        scale = longest / number("age_hard")
        values.update({key: round(number(key) * scale, 3) for key in _AGES})
        sources.update(dict.fromkeys(_AGES, f"{DEFAULT}, lowered to fit max_hold"))
    problems = [
        f"{told(high)} must be more than {told(low)}"
        for low, high in pairwise(_AGES)
        if number(low) >= number(high)
    ]
    if longest is not None:
        problems += [
            f"{told(key)} must not be more than {told('max_hold')}"
            for key in ("age_hard", "min_hold")
            if number(key) > number("max_hold")
        ]
    if "ttl" in sources and "kill_after" in sources and number("kill_after") >= number("ttl"):
        problems.append(f"{told('kill_after')} must be less than {told('ttl')}")
    return list(map(ConfigError, problems))
