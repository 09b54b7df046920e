"""The label ``lock`` of metrics: only chosen locks have their own value, to bound the number of series."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from lockkit.observe.instruments import OTHER
from lockkit.observe.periods import periods_of

if TYPE_CHECKING:
    from lockkit.config.config import Config

__all__ = ["LockLabels", "SharedLabels"]

_REMEMBERED = 4096


class LockLabels:
    """Maps a name to its label ``lock``: the first matching pattern, else ``instruments.OTHER``.

    Args:
        patterns: Names and patterns: ``*`` is any text, ``?`` one character. An exact name comes first.
        raw: Whether a name that matches nothing is its own value, until there are ``most`` of them.
        most: The most such names.
    """

    def __init__(self, patterns: Sequence[str] = (), *, raw: bool = False, most: int = 1000) -> None:
        self.patterns = tuple(patterns)
        self._exact = frozenset(patterns)
        self._own = most if raw else 0
        self._known: dict[str, str] = {}

    @classmethod
    def of(cls, config: Config) -> LockLabels:
        """The labels of a configuration. Locks with a period keep their name, so that rules can compare."""
        return cls(
            (*config.metrics_names, *periods_of(config)),
            raw=config.metrics_raw_names,
            most=config.metrics_most,
        )

    def __call__(self, name: str) -> str:
        label = self._known.get(name)
        if label is None:
            label = self._find(name)
            if label == name or len(self._known) < _REMEMBERED:
                # Each name that is its own value stays, so that it counts once.
                self._known[name] = label
        return label

    def _find(self, name: str) -> str:
        if name in self._exact:
            return name
        for pattern in self.patterns:
            if fnmatchcase(name, pattern):
                return pattern
        if self._own > 0:
            self._own -= 1
            return name
        return OTHER


class SharedLabels:
    """Shares labels among clients with the same settings: the limit is for all their names. Thread-safe."""

    def __init__(self) -> None:
        self._made: dict[tuple[tuple[str, ...], bool, int], LockLabels] = {}

    def of(self, config: Config) -> LockLabels:
        """The labels that a configuration asks for."""
        key = ((*config.metrics_names, *periods_of(config)), config.metrics_raw_names, config.metrics_most)
        return self._made.setdefault(key, LockLabels.of(config))
