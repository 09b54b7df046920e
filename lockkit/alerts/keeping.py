"""The engine's files: no fault in one stops alerts. Prefer a duplicate to a lost alert."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from lockkit.alerts import inbox
from lockkit.alerts.desk import DECISIONS, STATE, Desk, set_aside, write
from lockkit.alerts.happenings import Happening
from lockkit.alerts.state import Decisions, State
from lockkit.errors import ConfigError
from lockkit.lib.printable import printable

__all__ = ["Keeper"]

_log = logging.getLogger("lockkit.alerts")
T = TypeVar("T")


class Keeper:
    """The files of one engine. No method raises because of a file, and none waits for another process.

    Args:
        desk: The desk with the files.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._said: dict[str, str] = {}
        self._saves = True

    def state(self) -> State | None:
        """The earlier state; None if absent or unreadable. A newer lockkit's state is never overwritten."""
        self._saves = True
        return self._read(STATE, self._desk.state)

    def decisions(self) -> Decisions:
        """The decisions of people; none if they cannot be read."""
        return self._read(DECISIONS, self._desk.decisions) or Decisions()

    def save(self, state: State) -> None:
        """Write the state; if the disk fails, the engine continues from memory."""
        if not self._saves:
            return
        try:
            write(self._desk.folder / STATE, state)
        except OSError as error:
            self.say("save", f"the state of alerts is not saved: {error}")
        else:
            self.well("save")

    def handed_over(self) -> list[Happening]:
        """Everything that other processes have left; nothing while one of them writes."""
        try:
            found = inbox.handed_over(self._desk.folder)
        except BlockingIOError:
            return []
        except OSError as error:
            self.say("handed over", f"alerts of other processes are not read: {error}")
            return []
        self.well("handed over")
        return found

    def say(self, what: str, told: str, *, level: int = logging.ERROR) -> None:
        """Log that something is wrong, unless the same was logged last."""
        if self._said.get(what) != told:
            self._said[what] = told
            _log.log(level, "%s", printable(told))

    def well(self, what: str) -> None:
        """Note that something is right again."""
        self._said.pop(what, None)

    def _read(self, name: str, read: Callable[[], T]) -> T | None:
        try:
            found = read()
        except ConfigError as error:
            self._refused(name, error.message)
            return None
        except OSError as error:
            self.say(name, f"alerts go on without a file that cannot be read: {error}")
            return None
        self.well(name)
        return found

    def _refused(self, name: str, told: str) -> None:
        try:
            where = set_aside(self._desk.folder, name)
        except BlockingIOError:  # another process is writing it
            return
        except OSError as error:
            told = f"{told}; it cannot be moved aside: {error}"
        else:
            if where is not None:
                told = f"{told}; it is now {where.name}"
            elif name == STATE:
                self._saves = False
        self.say(name, f"alerts go on without a file: {told}")
