"""Commands that lockkit suggests, ready for a shell, with the options that select the same store."""

from __future__ import annotations

import os
import shlex  # at the top: a signal handler may need it while the program imports it for the first time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, cast

from lockkit.errors import LockkitError
from lockkit.lib.namedtuples import NamedTuple

if TYPE_CHECKING:
    from lockkit.config.config import Config

__all__ = [
    "HERE",
    "URL_FIRST",
    "SameStore",
    "command_line",
    "options",
    "place_of",
    "quoted",
    "same_store",
    "selecting",
]


class SameStore(NamedTuple):
    """How a suggested command uses the same store.

    Attributes:
        options: The options to add, with a space before each: `` --url sqlite:/srv/lockkit.db``.
        first: What must be done before, as a phrase in brackets with a space before it, such as to set
            LOCKKIT_URL to a URL with a secret, which no suggested command contains; empty if nothing.
        reachable: Whether a command can use the store at all. It cannot if the store is in this process.
    """

    options: str = ""
    first: str = ""
    reachable: bool = True


HERE = SameStore()
"""The store that a command uses without any options."""
URL_FIRST: Final = (
    " (first set LOCKKIT_URL to the store's URL, which is not repeated here because it has a secret)"
)
"""The phrase about what must be done before a suggested command."""


def same_store(config: Config, *, reachable: bool = True) -> SameStore:
    """How a command in another shell, environment and working folder selects this configuration's store.

    ``reachable``: other processes can use the store.
    """
    moved = _elsewhere(config, "url")
    url = place_of(config) if moved or _elsewhere(config, "state_dir") or _xdg_state(config) else config.url
    way = selecting(
        url if moved or config.url != url else None,
        config.profile if _elsewhere(config, "profile") else None,
        config.namespace if _elsewhere(config, "namespace") else None,
    )
    return way._replace(reachable=reachable)


def selecting(url: str | None, profile: str | None, namespace: str | None) -> SameStore:
    """How a command selects the store with this URL, profile and namespace; None for a default."""
    from lockkit.values.redaction import redact

    secret = bool(url) and redact(url or "") != url
    words = [("--url", None if secret else url), ("--profile", profile), ("--namespace", namespace)]
    return SameStore(options(words), URL_FIRST if secret else "")


def place_of(config: Config) -> str:
    """The store's URL with its secrets; it always names the file of the embedded store."""
    head, mark, more = config.url.partition("?")
    if head != "sqlite:":
        return config.url
    from urllib.parse import quote

    from lockkit.config.places import STORE_FILE

    try:
        file = config.state_place(create=False).path / STORE_FILE
    except LockkitError:
        return config.url
    return f"sqlite:{quote(os.fsencode(file))}{mark}{more}"


def _elsewhere(config: Config, key: str) -> bool:
    """Whether a setting has a value that a command in another shell would not have."""
    source = config.source(key).partition(" [profiles.")[0]
    return not source.startswith("default") and source not in _shared(config)


def _shared(config: Config) -> list[str]:
    """The configuration files that every command of this user reads, whatever its folder and environment."""
    from lockkit.config.config import ETC
    from lockkit.config.places import home_dir

    given = config.arguments
    home = given.get("home") or home_dir(cast("Mapping[str, str] | None", given.get("environ")) or os.environ)
    files = [str(given.get("etc") or ETC)]
    return files if home is None else [*files, f"{home}/.config/lockkit/config.toml"]


def _xdg_state(config: Config) -> bool:
    """Whether the default store is in the folder of XDG_STATE_HOME, which another shell may lack."""
    try:
        return config.state_place(create=False).source == "XDG_STATE_HOME"
    except LockkitError:
        return False


def options(words: list[tuple[str, str | None]]) -> str:
    """Options of a command line, each with a space before it. Those without a value are left out."""
    return "".join(f" {flag} {quoted(value)}" for flag, value in words if value)


def quoted(text: str, *, besides: str = "") -> str:
    """Quote a text as one word of a shell. Unprintable characters are escaped as in bash, zsh and ksh.

    ``besides`` has further characters to escape, such as those that a markup would change.
    """
    if text.isprintable() and not any(char in besides for char in text):
        return shlex.quote(text)
    escaped = "".join(
        f"\\{char}"
        if char in "\\'"
        else char
        if char.isprintable() and char not in besides
        else f"\\U{ord(char):08x}"
        for char in text
    )
    return f"$'{escaped}'"


def command_line(command: str, name: str, more: str = "", *, options: str = "") -> str:
    """A command about a lock, ready to paste. The name of the lock may be any text."""
    lock, more = quoted(name), f" {more}" if more else ""
    if name.startswith("-"):
        return f"lockkit {command}{options}{more} -- {lock}"
    return f"lockkit {command}{options} {lock}{more}"
