"""Tokens: who may use the server, and for what, in a file that only its owner can read.

Each line is ``NAME SCOPE TOKEN``; empty lines and lines with a ``#`` first are skipped. Audit records have
the name. The scopes are ``view`` (look), ``operate`` (also evict, ask for a release, quarantine, silence and
acknowledge), and ``admin``. A changed file is read again, so a removed token is refused at once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import re
import stat
import threading
from pathlib import Path
from typing import Final, Literal, TypeAlias

from lockkit.errors import ConfigError
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable

__all__ = ["SCOPES", "SESSION_SECONDS", "Scope", "TokenFile", "Visitor", "allows", "how_to_make"]

_log = logging.getLogger("lockkit.server")

Scope: TypeAlias = Literal["view", "operate", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("view", "operate", "admin")
"""The scopes; each allows all that the ones before it allow."""
SESSION_SECONDS: Final = 12 * 3600.0
"""Seconds for which the page stays signed in."""
_LEAST = 32
"""The fewest characters of a token, so that guessing it takes for ever."""
_LARGEST = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")


class Visitor(NamedTuple):
    """The sender of a request: the token's name and scope, and whether it came in the page's cookie."""

    name: str
    scope: Scope
    by_cookie: bool = False


class _Entry(NamedTuple):
    name: str
    scope: Scope
    digest: bytes
    """SHA-256 of the token; the token itself is not kept."""


def allows(scope: Scope, needed: Scope) -> bool:
    """Whether a scope includes another one."""
    return SCOPES.index(scope) >= SCOPES.index(needed)


def how_to_make(file: str | None = None) -> str:
    """The commands that make a token, for the configured file or one in the user's configuration folder."""
    where = file or "$HOME/.config/lockkit/serve-tokens"
    made = "$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')"
    line = f'(umask 077; echo "$USER admin {made}" >> "{where}")'
    return line if file else f'{line}; export LOCKKIT_SERVE_TOKEN_FILE="{where}"'


class TokenFile:
    """The tokens of one file.

    Args:
        path: The file. ``~`` is replaced.

    Raises:
        ConfigError: The file is unreadable, open to others, another user's (but for root's), or malformed.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path).expanduser()
        self._mutex = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._entries: tuple[_Entry, ...] = ()
        self._failing = False
        self._load()

    def visitor(self, token: str) -> Visitor | None:
        """The bearer of a token; None if it is unknown. Takes the same time whatever the characters."""
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        found: Visitor | None = None
        for entry in self._now():
            if hmac.compare_digest(entry.digest, digest):
                found = Visitor(entry.name, entry.scope)
        return found

    def session(self, token: str, now: float) -> str | None:
        """A cookie for a token, valid for 12 hours or until its removal; None for an unknown token."""
        visitor = self.visitor(token)
        if visitor is None:
            return None
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        head = f"{visitor.name}:{int(now + SESSION_SECONDS)}"
        return f"{head}:{_seal(head, digest)}"

    def signed_in(self, cookie: str, now: float) -> Visitor | None:
        """The bearer of the token for which a cookie was made; None if it is removed, or too old."""
        head, _, seal = cookie.rpartition(":")
        _, _, until = head.rpartition(":")
        found: Visitor | None = None
        for entry in self._now():
            if hmac.compare_digest(_seal(head, entry.digest).encode(), seal.encode(errors="replace")):
                found = Visitor(entry.name, entry.scope, by_cookie=True)
        if found is None or not until.isdecimal() or now >= int(until):
            return None
        return found

    def _now(self) -> tuple[_Entry, ...]:
        """The entries as the file has them. A file that cannot be used any more has none."""
        with self._mutex:
            try:
                seen = _stamp(self.path.stat())
                if seen != self._seen:
                    self._load()
            except (OSError, ConfigError) as error:
                if not self._failing:
                    _log.error("no token is accepted any more: %s", printable(str(error)))
                self._entries, self._seen, self._failing = (), None, True
            return self._entries

    def _load(self) -> None:
        text, seen = _read(self.path)
        self._entries, self._seen, self._failing = tuple(_entries(text, self.path)), seen, False


def _seal(head: str, digest: bytes) -> str:
    """A text that only a bearer of the token could have made, in characters that a cookie may have."""
    made = hmac.new(digest, f"lockkit session {head}".encode(errors="replace"), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()


def _stamp(seen: os.stat_result) -> tuple[int, ...]:
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def _read(path: Path) -> tuple[str, tuple[int, ...]]:
    """The text of the file, and the stamp by which a change is seen."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(
            f"the token file {path} cannot be read: {error.strerror}",
            hint=f"to make a token: {how_to_make(str(path))}",
        ) from None
    try:
        seen = os.fstat(handle)
        if not stat.S_ISREG(seen.st_mode):
            raise ConfigError(f"the token file {path} is no regular file")
        if seen.st_mode & 0o077:
            raise ConfigError(
                f"the token file {path} can be used by others (mode {stat.S_IMODE(seen.st_mode):04o})",
                hint=f"keep it for its owner: chmod 600 {path}",
            )
        if seen.st_uid not in (os.geteuid(), 0):
            raise ConfigError(f"the token file {path} belongs to another user (uid {seen.st_uid})")
        data = os.read(handle, _LARGEST + 1)
    finally:
        os.close(handle)
    if len(data) > _LARGEST:
        raise ConfigError(f"the token file {path} has more than {_LARGEST} bytes")
    return data.decode(errors="replace"), _stamp(seen)


def _entries(text: str, path: Path) -> list[_Entry]:
    """The tokens of the file. A message about a bad line names its number, and never quotes it."""
    found: list[_Entry] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"line {number} of the token file {path}"
        if len(words) != 3 or words[1] not in SCOPES or not _NAME.fullmatch(words[0]):
            raise ConfigError(
                f"{where} cannot be understood",
                hint="each line is NAME SCOPE TOKEN, and SCOPE is view, operate or admin",
            )
        if len(words[2]) < _LEAST or not _TOKEN.fullmatch(words[2]):
            raise ConfigError(f"the token in {where} must have at least {_LEAST} letters and digits")
        scope = next(each for each in SCOPES if each == words[1])
        digest = hashlib.sha256(words[2].encode()).digest()
        if any(each.digest == digest for each in found):
            raise ConfigError(f"the token in {where} stands in an earlier line, too")
        found.append(_Entry(words[0], scope, digest))
    if not found:
        raise ConfigError(
            f"the token file {path} has no token", hint=f"to make one: {how_to_make(str(path))}"
        )
    return found
