"""Environment variables of this process that are set for a while."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from functools import cache
from types import TracebackType
from typing import Generic, TypeVar

__all__ = ["EnvironmentSet"]

_log = logging.getLogger("lockkit")
Variables = TypeVar("Variables", bound=Mapping[str, str | None])


class EnvironmentSet(Generic[Variables]):
    """Environment variables of this process that a ``with`` statement sets, and restores at its end.

    Not a generator: if a signal handler raised between its steps, the collector would restore the variables,
    perhaps while others are set.

    Args:
        variables: The variables; those whose value is None are removed.
    """

    def __init__(self, variables: Variables) -> None:
        self._variables = variables
        self._before: Mapping[str, str | None] = {}

    def __enter__(self) -> Variables:
        self._before = {name: os.environ.get(name) for name in self._variables}
        if self._before != self._variables and _fork_server_runs():
            _warn(", ".join(self._variables))
        try:
            _set(self._variables)
        except BaseException:
            self.put_back()
            raise
        return self._variables

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.put_back()

    def put_back(self) -> None:
        """Put the variables back. Once more does no harm, until others are set."""
        _set(self._before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if os.environ.get(name) == value:
            continue
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@cache  # logged once: a worker may set them for each of its tasks
def _warn(names: str) -> None:
    text = (
        "processes of multiprocessing's fork server, which runs already, do not see what is set for them "
        f"now ({names})"
    )
    _log.warning("%s", f'{text}: use multiprocessing.get_context("spawn") or "fork"')


def _fork_server_runs() -> bool:
    """Whether ``forkserver`` processes of multiprocessing have an earlier environment: that of its start."""
    server = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    return getattr(server, "_forkserver_pid", None) is not None
