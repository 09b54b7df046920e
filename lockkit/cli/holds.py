"""Holds that outlive the command that took them: where ``acquire`` leaves what ``release`` and ``held`` need.

One file per claim in the state folder's ``holds/``, 0600 in 0700, because it contains the claim's token. Its name is made
from a digest of store, namespace and lock name (which may be too long for a file name) and the claim id. It is written
before the store is asked: the answer may be lost, and who waits for it may be killed, while the hold stands.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lockkit.cli import exits
from lockkit.errors import BackendUnavailable
from lockkit.names import claim_id, digest, new_token
from lockkit.places import private_dir, state_place
from lockkit.redaction import identity

if TYPE_CHECKING:
    from lockkit.client import Client
    from lockkit.facts import ClaimInfo
    from lockkit.lease import Lease

__all__ = ["Asking", "Found", "Standing", "Stored", "absent", "find", "of"]

_HALF = ".new"
_KEPT = 86_400.0
"""Seconds that a file outlives its hold, for a ``release`` that is to say that it had lapsed."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One file, and the handle in it."""

    path: Path
    handle: Mapping[str, object]

    @property
    def claim_id(self) -> str:
        return claim_id(str(self.handle["token"]))

    @property
    def granted(self) -> bool:
        """Whether the answer of the store was read; else it is being asked, or was and nobody knows what it said."""
        return self.handle["fence"] != 0

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


class Standing(NamedTuple):
    """A hold of ours, and how the store records it."""

    stored: Stored
    claim: ClaimInfo

    def handle(self) -> dict[str, object]:
        """For ``Client.adopt``."""
        return {**self.stored.handle, "fence": self.claim.fence}


class Found(NamedTuple):
    """The holds of a name that this user has taken on this host and store.

    Attributes:
        standing: Those that the store records as held, evicted ones too: they go on blocking.
        gone: Those that it does not record any more.
    """

    standing: list[Standing]
    gone: list[Stored]


class Asking:
    """The tokens of an ``acquire`` under way, each on stable storage before the store hears of it.

    Args:
        name: The lock.
        ttl: Seconds for which it will be held.
        stores: False: there is to be no file.
    """

    def __init__(self, client: Client, name: str, ttl: float, *, stores: bool) -> None:
        self._client = client
        self._name = name
        self._ttl = ttl
        self._stores = stores
        self._tokens: list[str] = []
        if stores:
            _tidy(_folder(client))

    def token(self) -> str:
        """A new token, kept.

        Raises:
            CommandFailed: It could not be written.
        """
        token = new_token()
        self._tokens.append(token)
        if self._stores:
            handle = {"v": 1, "namespace": self._client.namespace, "name": self._name, "token": token}
            self._write({**handle, "fence": 0})
        return token

    def granted(self, lease: Lease) -> Path | None:
        """It is held: keep that, and forget earlier tokens. Where it is kept.

        Raises:
            CommandFailed: It could not be written.
        """
        self._forget(but=lease.token)
        self._tokens = [lease.token]
        return self._write(lease.handle()) if self._stores else None

    def hand_over(self, lease: Lease) -> None:
        """It is the user's from here on, whatever comes in between: what was kept of it stays.

        A signal before the lease is handed over still releases it; what was kept then tells of a hold that is gone.
        """
        self._tokens = []
        lease.hand_over()

    def give_up(self) -> str | None:
        """Nothing came of it: take back what the store may have of it. Where that failed, the id of the claim that may stand."""
        if not self._tokens:
            return None
        driver = self._client.driver()
        self._client.close()
        if len(driver.orphans):
            return claim_id(self._tokens[-1])
        self._forget()
        return None

    def _forget(self, *, but: str | None = None) -> None:
        if self._stores:
            for token in self._tokens:
                if token != but:
                    _path(self._client, self._name, token).unlink(missing_ok=True)

    def _write(self, handle: Mapping[str, object]) -> Path:
        path = _path(self._client, self._name, str(handle["token"]))
        half = path.with_suffix(_HALF)  # the token is never on disk by half
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(half, flags, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({**handle, "url": self._client.url, "until": time.time() + self._ttl}, file)
                file.flush()
                os.fsync(descriptor)
            half.replace(path)
        except OSError as error:
            raise exits.CommandFailed(
                f"cannot store the hold: {error}; {self._name!r} is not taken",
                code=exits.UNAVAILABLE,
                kind="unwritable",
                name=self._name,
                hint="--print-token needs no file",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                half.unlink(missing_ok=True)
        return path


def find(client: Client, name: str) -> Found:
    """Look for the holds of a name in the files of this user, and at the store.

    Raises:
        BackendError: The store does not answer.
    """
    stored = _read(_folder(client), f"{_digest(client, name)}-*.json", name)
    held: dict[str, ClaimInfo] = {}
    if stored:
        held = {claim.claim_id: claim for claim in client.inspect(name).claims if claim.state == "HELD"}
    return Found(
        [Standing(one, held[one.claim_id]) for one in stored if one.claim_id in held],
        [one for one in stored if one.granted and one.claim_id not in held],
    )


def of(client: Client, name: str, token: str) -> list[Stored]:
    """What is kept here of one hold; nothing where nothing can be kept."""
    try:
        return _read(_folder(client), _path(client, name, token).name, name)
    except BackendUnavailable:
        return []


def absent(client: Client, name: str) -> tuple[str, str | None]:
    """That there is none, and where that was looked for; and where there is one.

    A store is known by its URL as it was written, so that one with another spelling of it is as good as another store.
    """
    here = f"{client.url}, namespace {client.namespace}"
    stored = _read(_folder(client), "*.json", name)
    elsewhere = {f"{one.handle.get('url')}, namespace {one.handle.get('namespace')}" for one in stored}
    told = f"no hold of {name!r} was taken here by lockkit acquire on {here}"
    if elsewhere - {here}:
        taken = "; on ".join(sorted(elsewhere - {here}))
        return told, f"one was taken on {taken}; write the URL as it was written then"
    return told, None


def _tidy(folder: Path) -> None:
    """Forget what has been over for long: most who take a lock for a while never say that they have done."""
    now = time.time()
    for one in _read(folder, "*.json"):
        until = one.handle.get("until")
        if isinstance(until, float) and until + _KEPT < now:
            with contextlib.suppress(OSError):
                one.forget()
    for half in folder.glob(f"*{_HALF}"):  # of an acquire that was killed before it asked
        with contextlib.suppress(OSError):
            if half.stat().st_mtime + _KEPT < now:
                half.unlink()


def _read(folder: Path, pattern: str, name: str | None = None) -> list[Stored]:
    found: list[Stored] = []
    for path in folder.glob(pattern):
        try:
            handle = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(handle, dict) or not {"name", "token", "fence"} <= handle.keys():
            continue
        if name in (None, handle["name"]):
            found.append(Stored(path, handle))
    return found


def _path(client: Client, name: str, token: str) -> Path:
    return _folder(client) / f"{_digest(client, name)}-{claim_id(token)}.json"


def _folder(client: Client) -> Path:
    config = client.config
    configured = None if config.state_dir is None else (config.state_dir, config.source("state_dir"))
    return private_dir(state_place(configured=configured).path / "holds")


def _digest(client: Client, name: str) -> str:
    return digest(f"{identity(client.config.url)}\0{client.namespace}\0{name}")[:24]
