"""Files of the holds that ``acquire`` leaves behind for ``release`` and ``held``.

There is one file per claim in the state folder's ``holds/``, with mode 0600 in 0700, because it contains the
claim's token. Its name consists of a digest of store, namespace and lock name (which may be too long for a
file name) and the claim id. The file is written before the store is asked, because the answer may be lost,
or the command killed, after the lock was granted.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lockkit.cli import exits
from lockkit.config.places import private_dir
from lockkit.config.store_names import store_of
from lockkit.errors import BackendUnavailable
from lockkit.lib.namedtuples import NamedTuple
from lockkit.values.names import claim_id, digest, new_token

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo
    from lockkit.sync.client import Client
    from lockkit.sync.lease import Lease

__all__ = ["Found", "Standing", "Stored", "Tokens", "absent", "find", "of"]

_HALF = ".new"
_KEPT = 86_400.0
"""Seconds for which a file outlives its hold, so that ``release`` can report that the hold had lapsed."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file, and the handle in it."""

    path: Path
    handle: Mapping[str, object]

    @property
    def claim_id(self) -> str:
        return claim_id(str(self.handle["token"]))

    @property
    def granted(self) -> bool:
        """Whether the grant was read. If not, the request is under way, or its answer was lost."""
        return self.handle["fence"] != 0

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


class Standing(NamedTuple):
    """A hold of this user, and its claim in the store."""

    stored: Stored
    claim: ClaimInfo

    def handle(self) -> dict[str, object]:
        """The handle for ``Client.adopt``."""
        return {**self.stored.handle, "fence": self.claim.fence}


class Found(NamedTuple):
    """The holds of a name that this user has taken on this host and store.

    Attributes:
        standing: Holds that the store records as held, including evicted ones, because they still block.
        gone: Holds that the store no longer records.
    """

    standing: list[Standing]
    gone: list[Stored]


class Tokens:
    """The tokens of a running ``acquire``. Each is on stable storage before the store is asked.

    Without ``stores`` no files are written.
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
        """Make a new token and write its file.

        Raises:
            CommandFailed: The file could not be written.
        """
        token = new_token()
        self._tokens.append(token)
        if self._stores:
            handle = {"v": 1, "namespace": self._client.namespace, "name": self._name, "token": token}
            self._write({**handle, "fence": 0})
        return token

    def granted(self, lease: Lease) -> Path | None:
        """Record that the lock is held, and remove the files of earlier tokens. Returns the file.

        Raises:
            CommandFailed: The file could not be written.
        """
        self._forget(but=lease.token)
        self._tokens = [lease.token]
        return self._write(lease.handle()) if self._stores else None

    def hand_over(self, lease: Lease) -> None:
        """Hand the lease over to the user: from here on it is not released, and its file stays.

        A signal before that still releases the lease; the file then describes a hold that is gone.
        """
        self._tokens = []
        lease.hand_over()

    def give_up(self) -> str | None:
        """Give up: remove the claim if the store has it. Returns the id of a claim that may remain."""
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
        half = path.with_suffix(_HALF)  # so that the final file is never incomplete
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
                f"{self._name!r} is not taken, because the file of the hold cannot be written: {error}",
                code=exits.UNAVAILABLE,
                kind="unwritable",
                name=self._name,
                hint="with --print-token no file is needed",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                half.unlink(missing_ok=True)
        return path


def find(client: Client, name: str) -> Found:
    """Find the holds of a name, in the files of this user and in the store.

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
    """The files of one hold on this host; empty if no files can be kept."""
    try:
        return _read(_folder(client), _path(client, name, token).name, name)
    except BackendUnavailable:
        return []


def absent(client: Client, name: str) -> tuple[str, str | None]:
    """A message that there is no hold here, and a hint that says where there is one."""
    here = f"{client.url}, namespace {client.namespace}"
    stored = _read(_folder(client), "*.json", name)
    elsewhere = {f"{one.handle.get('url')}, namespace {one.handle.get('namespace')}" for one in stored}
    told = f"this user has taken no hold of {name!r} on this host with lockkit acquire on {here}"
    if elsewhere - {here}:
        taken = "; on ".join(sorted(elsewhere - {here}))
        return told, f"there is one on {taken}; name that store (--url, --namespace)"
    return told, None


def _tidy(folder: Path) -> None:
    """Remove the files of holds that ended long ago: most users let a lock lapse and never release it."""
    now = time.time()
    for one in _read(folder, "*.json"):
        until = one.handle.get("until")
        if isinstance(until, float) and until + _KEPT < now:
            with contextlib.suppress(OSError):
                one.forget()
    for half in folder.glob(f"*{_HALF}"):  # left by an acquire that was killed before it asked the store
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
    return private_dir(client.config.state_place().path / "holds")


def _digest(client: Client, name: str) -> str:
    return digest(f"{store_of(client.config)}\0{client.namespace}\0{name}")[:24]
