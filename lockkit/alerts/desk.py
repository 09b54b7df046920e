"""The desk: alerts as people see them, and people's decisions, outside the process that runs the engine.

The engine's state and people's decisions are two files in one folder: a command or a page can silence and
acknowledge while the engine runs in another process of the user. The engine reads the decisions in each step.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from lockkit.alerts.engine import acknowledged, matches
from lockkit.alerts.grouping import member
from lockkit.alerts.notification import Member
from lockkit.alerts.state import Acknowledgement, Decisions, Silence, State
from lockkit.config.places import make_folders
from lockkit.config.store_names import store_of
from lockkit.errors import ConfigError
from lockkit.facts import NOTHING
from lockkit.lib.clock import SYSTEM
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable

if TYPE_CHECKING:
    from lockkit.config.config import Config
    from lockkit.lib.clock import Clock

__all__ = ["DECISIONS", "LONGEST_TEXT", "STATE", "Desk", "Listed", "folder_of", "set_aside", "write"]

LONGEST_TEXT = 500
"""The most characters of a comment, of a person's name or of a label."""
_MOST = 500
"""The most silences, and the most acknowledgements, that are kept."""
_LARGEST = 64 * 1024 * 1024
"""The most bytes of a file that are read."""
_KEEP = 30 * 86_400.0
"""Seconds for which an acknowledgement is kept, if the alert does not end before."""
_NO_LABELS: Mapping[str, str] = NOTHING  # type: ignore[assignment]  # nothing is in it
T = TypeVar("T", State, Decisions)


class Listed(NamedTuple):
    """One alert as lists show it.

    Attributes:
        alert: The alert, as a notification has it.
        state: ``pending`` (not true for long enough), ``firing``, or ``resolved`` (its end is not sent yet).
        hidden: ``silenced`` or ``inhibited``; empty if neither.
        told: Whether a notification has included it.
        silenced_by: The ids of the silences that match.
    """

    alert: Member
    state: str
    hidden: str
    told: bool
    silenced_by: tuple[str, ...] = ()


def folder_of(config: Config) -> Path:
    """The folder with the files of the alerts of a store and namespace, for one user of one host."""
    about = f"{store_of(config)}\n{config.namespace}".encode()
    return config.state_place(create=False).path / "alerts" / hashlib.sha256(about).hexdigest()[:16]


class Desk:
    """The alerts of one store and namespace, for those who look at them and decide about them.

    Args:
        folder: The folder of :func:`folder_of`.
        clock: The clock; its wall time is written.

    All methods raise OSError if a file cannot be read or written, ConfigError if it is damaged or too new.
    """

    def __init__(self, folder: Path, clock: Clock = SYSTEM) -> None:
        self.folder = folder
        self._clock = clock

    # -- looking

    def alerts(self) -> list[Listed]:
        """Every alert that the engine knows: the most severe first, then the oldest."""
        state, decisions, now = self.state() or State(), self.decisions(), self._clock.wall()
        told = {key for group in state.groups.values() for key in group.told}
        found = [
            Listed(
                member(key, one)._replace(acknowledged_by=acknowledged(one, decisions.acknowledged.get(key))),
                "resolved" if one.resolved is not None else "pending" if one.fired is None else "firing",
                one.hidden,
                key in told,
                tuple(
                    each.id for each in decisions.silences if matches(each, key, one.rule, one.labels, now)
                ),
            )
            for key, one in state.alerts.items()
        ]
        return sorted(
            found, key=lambda each: (each.alert.severity, each.alert.since, sorted(each.alert.labels.items()))
        )

    def silences(self) -> list[Silence]:
        """The silences that have not ended, by their end."""
        now = self._clock.wall()
        return sorted((one for one in self.decisions().silences if one.ends > now), key=lambda one: one.ends)

    def state(self) -> State | None:
        """The engine's state; None if no engine has run here."""
        return _read(self.folder / STATE, State)

    def decisions(self) -> Decisions:
        """The decisions of people."""
        return _read(self.folder / DECISIONS, Decisions) or Decisions()

    # -- deciding

    def silence(
        self,
        *,
        author: str,
        seconds: float,
        comment: str = "",
        rule: str = "*",
        labels: Mapping[str, str] = _NO_LABELS,
        fingerprint: str = "",
    ) -> Silence:
        """Send nothing about matching alerts for some time. Alerts sent earlier still get their end sent.

        Args:
            author: The person who decides so.
            seconds: For how long.
            comment: Why.
            rule: A rule, or a pattern of rules.
            labels: Labels that an alert must have, each a value or a pattern.
            fingerprint: The one alert that it is about; empty: all that match the rest.

        Raises:
            ConfigError: An argument is not allowed, or there are too many silences.
        """
        if not 0 < seconds <= 366 * 86_400:
            raise ConfigError(f"a silence lasts more than 0 s and at most 366 days, not {seconds:.12g} s")
        if rule == "*" and not labels and not fingerprint:
            raise ConfigError(
                "a silence must say what it is about",
                hint="a fingerprint, a rule, or a label such as lock=NAME",
            )
        _check(author=author, comment=comment, rule=rule, fingerprint=fingerprint, **labels)
        now = self._clock.wall()
        made = Silence(
            secrets.token_hex(4), author, now, now + seconds, comment, rule, dict(labels), fingerprint
        )

        def change(decisions: Decisions) -> None:
            decisions.silences = [one for one in decisions.silences if one.ends > now]
            if len(decisions.silences) >= _MOST:
                raise ConfigError(
                    f"there are {_MOST} silences; end some first: lockkit alerts silence --end ID"
                )
            decisions.silences.append(made)

        self._change(change)
        return made

    def end_silence(self, identity: str) -> Silence | None:
        """End a silence at once. Returns it; None if there is none of that id."""
        found: list[Silence] = []

        def change(decisions: Decisions) -> None:
            found.extend(one for one in decisions.silences if one.id == identity)
            decisions.silences = [one for one in decisions.silences if one.id != identity]

        self._change(change)
        return found[0] if found else None

    def acknowledge(self, fingerprint: str, *, author: str, comment: str = "") -> Member | None:
        """Acknowledge an alert: until it ends, it is not repeated or escalated. None if there is none.

        Raises:
            ConfigError: An argument is not allowed.
        """
        _check(author=author, comment=comment)
        state, now = self.state() or State(), self._clock.wall()
        one = state.alerts.get(fingerprint)
        if one is None or one.resolved is not None:
            return None

        def change(decisions: Decisions) -> None:
            decisions.acknowledged[fingerprint] = Acknowledgement(author, now, comment, one.instance)
            kept = sorted(decisions.acknowledged.items(), key=lambda each: -each[1].at)[:_MOST]
            decisions.acknowledged = {key: word for key, word in kept if word.at > now - _KEEP}

        self._change(change)
        return member(fingerprint, one)._replace(acknowledged_by=author)

    def take_back(self, fingerprint: str) -> Member | None:
        """Take an acknowledgement back: the alert repeats and escalates again. None if there was none."""
        state, found = self.state() or State(), []
        one = state.alerts.get(fingerprint)

        def change(decisions: Decisions) -> None:
            found.append(decisions.acknowledged.pop(fingerprint, None))

        self._change(change)
        return None if one is None or not acknowledged(one, found[0]) else member(fingerprint, one)

    def _change(self, change: Callable[[Decisions], None]) -> None:
        """Change the decisions while nobody else does."""
        with _alone(self.folder):
            decisions = self.decisions()
            change(decisions)
            write(self.folder / DECISIONS, decisions)


STATE = "state.json"
DECISIONS = "decisions.json"
_LOCK = "decisions.lock"


def _check(**texts: str) -> None:
    for what, text in texts.items():
        if len(text) > LONGEST_TEXT or text != printable(text):
            raise ConfigError(f"{what} must be one line of at most {LONGEST_TEXT} characters that print")
        if what == "author" and not text.strip():
            raise ConfigError("author must not be empty")


@contextmanager
def _alone(folder: Path, *, wait: bool = True) -> Iterator[None]:
    make_folders(folder)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(folder / _LOCK, flags, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _read(path: Path, kind: type[T]) -> T | None:
    """The content of a file; None if there is none.

    Raises:
        ConfigError: The file is damaged, or of a newer lockkit.
    """
    try:
        text = _text(path)
    except FileNotFoundError:
        return None
    try:
        found = msgspec.json.decode(text, type=kind)
    except _DAMAGE as error:
        raise ConfigError(f"{path} is damaged: {error}", hint="to begin anew, remove it") from None
    if found.v > kind().v:
        raise ConfigError(
            f"{path} is of a newer lockkit (version {found.v} of its form)", hint="upgrade this one"
        )
    return found


_DAMAGE = (msgspec.DecodeError, RecursionError)


def _text(path: Path) -> bytes:
    with open(path, "rb", opener=_at_once) as file:  # closes a folder, too; os.fdopen would not
        return file.read(_LARGEST + 1)


def _at_once(path: str, flags: int) -> int:
    """Open a file; a pipe of its name would otherwise hold up its reader for good."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)


def set_aside(folder: Path, name: str) -> Path | None:
    """Rename a damaged file to ``NAME.damaged``, replacing an earlier one; None if it is not damaged.

    Raises:
        BlockingIOError: Somebody else writes there now.
        OSError: The file could not be read or renamed.
    """
    path = folder / name
    kind: type[State] | type[Decisions] = State if name == STATE else Decisions
    with _alone(folder, wait=False):
        try:
            msgspec.json.decode(_text(path), type=kind)
        except _DAMAGE:
            return path.replace(path.with_name(f"{name}.damaged"))
    return None


def write(path: Path, what: State | Decisions) -> None:
    """Write a file atomically, for its owner alone: a reader finds the old one or the new one.

    Raises:
        OSError: The file could not be written; the old one is unchanged.
    """
    make_folders(path.parent)
    made = path.with_name(f"{path.name}.{os.getpid()}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(made, flags, 0o600)
    try:
        try:
            text = memoryview(msgspec.json.encode(what))
            while text:
                text = text[os.write(handle, text) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
