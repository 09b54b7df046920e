"""The stores that users of this host have by default, each of their own, and everything that uses one.

A program goes on in the store that it opened. Later ones, after a change of the default, lock elsewhere, and
nothing separates the two. So a program counts once it has opened such a store, with or without a lock.
"""

from __future__ import annotations

import json
import os
import pwd
import stat
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lockkit.config.config import ETC
from lockkit.config.places import STORE_FILE
from lockkit.hosting.facts import as_it_is
from lockkit.hosting.planning import Group, OwnStores
from lockkit.values.identity import user_name

__all__ = ["find"]

_MOST_BYTES, _MOST_FILES = 65_536, 1_000
"""Bytes of a file of another user that are read at most, and files of one user."""


def find(config: Path, group: Group | None, state_dir: object = None) -> OwnStores:
    """Find the stores of users, and what uses them. Only root sees the programs and folders of others.

    Args:
        config: The administrator's file that is to name another store. Only the usual place changes defaults.
        group: The group whose users are to share a store.
        state_dir: The state folder of each user, if the administrator's file sets one.
    """
    if config != ETC:
        return OwnStores()
    uses, owners = [], set[int]()
    for pid, owner in _programs():
        owners.add(owner)
        uses.append(f"pid {pid} ({_program(pid)}) of {user_name(owner)}")
    for user in pwd.getpwall():
        for folder in _state_folders(user, state_dir):
            if _owner(folder / STORE_FILE) == user.pw_uid:
                owners.add(user.pw_uid)
                uses += [f"{name!r}, which {user.pw_name} has acquired" for name in _acquired(folder)]
    sharing = {owner for owner in owners if owner == 0 or (group and group.gid in _groups(owner))}
    return OwnStores(_names(sharing), _names(owners - sharing), tuple(uses))


def _programs() -> Iterator[tuple[int, int]]:
    """The pids that have a store of their user's own open, and the owner of each store."""
    ours = Path("/etc").stat()
    for process in Path("/proc").iterdir():
        try:
            theirs = (process / "root/etc").stat()
            if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
                continue  # a container has an administrator's file of its own
            opened = next(each for each in (process / "fd").iterdir() if each.readlink().name == STORE_FILE)
            seen = opened.stat()
        except (OSError, StopIteration):  # ended meanwhile, or not for this user to see, or none is open
            continue
        if not seen.st_mode & stat.S_IWGRP:  # else a group shares it
            yield int(process.name), seen.st_uid


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "ended"


def _state_folders(user: pwd.struct_passwd, state_dir: object) -> list[Path]:
    """The folders in which a user has a store by default; see :func:`lockkit.config.places.state_place`."""
    if isinstance(state_dir, str):
        home = user.pw_dir if state_dir.startswith("~") else ""
        return [Path(home + state_dir.removeprefix("~").replace("{uid}", str(user.pw_uid)))]
    return [Path(user.pw_dir, ".local/state/lockkit"), Path(f"/var/tmp/lockkit-{user.pw_uid}")]  # noqa: S108 (owner checked)


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except OSError:
        return None


def _acquired(state: Path) -> list[str]:
    """The locks of a user's own store that ``lockkit acquire`` has taken: no process has them."""
    found = []
    for path in islice((state / "holds").glob("*.json"), _MOST_FILES):
        try:
            with open(path, encoding="utf-8", opener=as_it_is) as file:
                hold = json.loads(file.read(_MOST_BYTES))
            if hold["url"] == "sqlite:" and float(hold["until"]) > time.time():
                found.append(str(hold["name"]))
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            continue  # another user may have written anything
    return found


def _groups(uid: int) -> list[int]:
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return []
    return os.getgrouplist(user.pw_name, user.pw_gid)


def _names(uids: set[int]) -> tuple[str, ...]:
    return tuple(sorted(map(user_name, uids)))
