"""Holds that outlive the command that took them: where ``acquire`` leaves what ``release`` and ``held`` need.

One file per hold in the state folder's ``holds/``, 0600 in 0700, because it contains the claim's token. Its name is made
from a digest of store, namespace and lock name (which may be too long for a file name) and the claim id.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lockkit.names import digest
from lockkit.places import private_dir, state_place

if TYPE_CHECKING:
    from lockkit.client import Client

__all__ = ["Stored", "absent", "find", "keep"]


@dataclass(frozen=True, slots=True)
class Stored:
    """One file, and the handle in it."""

    path: Path
    handle: Mapping[str, object]

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


def keep(client: Client, handle: Mapping[str, object], claim_id: str) -> Stored:
    """Write a hold's handle to stable storage.

    Raises:
        OSError: It could not be written.
    """
    name = str(handle["name"])
    path = _folder(client) / f"{_digest(client, name)}-{claim_id}.json"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({**handle, "url": client.url}, file)
        file.flush()
        os.fsync(descriptor)
    return Stored(path, handle)


def find(client: Client, name: str) -> list[Stored]:
    """The holds of a name that this user has taken on this host and store, newest first; they may have lapsed."""
    return _read(client, name, f"{_digest(client, name)}-*.json")


def absent(client: Client, name: str) -> tuple[str, str | None]:
    """That there is none, and where that was looked for; and where there is one.

    A store is known by its URL as it was written, so that one with another spelling of it is as good as another store.
    """
    elsewhere = {
        f"{one.handle['url']}, namespace {one.handle['namespace']}"
        for one in _read(client, name, "*.json")
        if {"url", "namespace"} <= one.handle.keys()
    }
    where = f"on {client.url}, namespace {client.namespace}"
    told = f"no hold of {name!r} was taken here by lockkit acquire {where}"
    if elsewhere:
        return (
            told,
            f"one was taken on {'; on '.join(sorted(elsewhere))}; write the URL as it was written then",
        )
    return told, None


def _read(client: Client, name: str, pattern: str) -> list[Stored]:
    found: list[Stored] = []
    paths = _folder(client).glob(pattern)
    for path in sorted(paths, key=lambda one: one.stat().st_mtime, reverse=True):
        try:
            handle = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(handle, dict) and handle.get("name") == name:
            found.append(Stored(path, handle))
    return found


def _folder(client: Client) -> Path:
    config = client.config
    stated = None if config.state_dir is None else (config.state_dir, config.source("state_dir"))
    return private_dir(state_place(stated=stated).path / "holds")


def _digest(client: Client, name: str) -> str:
    return digest(f"{client.url}\0{client.namespace}\0{name}")[:24]
