"""The facts of a host: the group, the folder, the administrator's file, and the record of ``host init``.

Nothing here changes anything. A record that another user could have written is refused.
"""

from __future__ import annotations

import grp
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from lockkit.config import configfiles
from lockkit.config.places import network_filesystem
from lockkit.errors import ConfigError
from lockkit.hosting.planning import Folder, Group, HostFacts, Made, Wanted

__all__ = ["as_it_is", "collect", "exposed", "group_of", "made_by_init", "record_of"]


def record_of(config: Path) -> Path:
    """The file in which ``lockkit host init`` records what it makes. Only root may write to its folder."""
    return config.with_name("host-init.json")


def made_by_init(config: Path) -> Made:
    """Everything that ``lockkit host init`` has made before, by its record.

    Raises:
        ConfigError: The record cannot be read, or another user could have written it.
    """
    path = record_of(config)
    try:
        with open(
            path, encoding="utf-8", opener=as_it_is
        ) as file:  # closes a folder, too; os.fdopen would not
            forged = not _trusted(os.fstat(file.fileno()))
            read: object = None if forged else json.loads(file.read())
    except FileNotFoundError:
        return Made()
    except NotADirectoryError:
        return Made()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}", hint="it is the record of lockkit host init"
        ) from None
    if forged:
        raise ConfigError(
            f"{path} may be written by a user who is not root, so nothing is done by it",
            hint="lockkit host init makes it as a file of root; see who put this one there",
        )
    known = read if isinstance(read, dict) else {}
    if known.get("v") != 1:
        raise ConfigError(
            f"{path} is not a record that this version of lockkit can read",
            hint="use the version that wrote it",
        )
    group, folder, url = known.get("group"), known.get("folder"), known.get("url", "")
    return Made(
        group=Group(str(group["name"]), int(group["gid"])) if isinstance(group, dict) else None,
        folder=str(folder) if folder else None,
        inode=int(known.get("inode", 0)),
        gid=int(known.get("gid", -1)),
        url=str(url),
        config=str(known["config"]) if known.get("config") else None,
        block=str(known.get("block", "")),
        made_config_file=bool(known.get("file")),
        made_config_folder=bool(known.get("home")),
    )


def group_of(name: str) -> Group | None:
    """A group by its name or number; a number need not have a name."""
    try:
        found = grp.getgrgid(int(name)) if name.isdigit() else grp.getgrnam(name)
    except KeyError:
        return Group("", int(name)) if name.isdigit() else None
    return Group(found.gr_name, found.gr_gid, tuple(found.gr_mem))


def collect(wanted: Wanted) -> HostFacts:
    """The facts for a plan.

    Raises:
        ConfigError: The record of an earlier init cannot be read.
    """
    text, settings, problems = _file(wanted.config)
    return HostFacts(
        root=os.geteuid() == 0,
        group=group_of(wanted.group) if wanted.group else None,
        folder=_folder(wanted.folder),
        network=network_filesystem(wanted.folder),
        exposed=exposed(wanted.folder) or exposed(wanted.config),
        config_folder=wanted.config.parent.exists(),
        text=text,
        settings=settings,
        problems=problems,
        made=made_by_init(wanted.config),
    )


def _folder(path: Path) -> Folder | None:
    try:
        seen = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISDIR(seen.st_mode):
        return Folder(directory=False)
    try:
        group = grp.getgrgid(seen.st_gid).gr_name
    except KeyError:
        group = ""
    try:
        content = tuple(sorted(os.listdir(path)))  # noqa: PTH208 (names, not paths)
    except PermissionError:
        content = ()
    return Folder(True, seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode), group, content, seen.st_ino)


def exposed(path: Path) -> Path | None:
    """The first folder above a path that is not root's, or in which others may put something in its way.

    In a sticky folder others can do so while the next part of the path is missing, or is their link. The path
    is followed as written, and with all symbolic links resolved: their targets may lie elsewhere.
    """
    for way in (path, Path(os.path.realpath(path))):
        above = Path("/")
        for part in (*reversed(way.parents), way):
            shared = not _trusted(above.stat())
            try:
                link, seen = part.lstat(), part.stat()
            except FileNotFoundError:
                if shared:
                    return above
                break
            except OSError:
                break
            if shared and link.st_uid not in _roots():
                return above
            if part != way and not _trusted(seen, sticky=True):
                return part
            above = part
    return None


def _roots() -> tuple[int, int]:
    """The numbers of root, and of the owner of ``/``: a user namespace gives the host's root another one."""
    return Path("/").stat().st_uid, os.geteuid()


def as_it_is(path: str, flags: int) -> int:
    """Open a file, and neither what a link of its name leads to nor, for good, a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _trusted(seen: os.stat_result, *, sticky: bool = False) -> bool:
    """Whether root owns a file or folder, and only root may change it. ``sticky`` lets others add files."""
    others = seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    safe = not others or (sticky and bool(seen.st_mode & stat.S_ISVTX))
    return safe and seen.st_uid in _roots()


def _file(path: Path) -> tuple[str | None, Mapping[str, object], tuple[str, ...]]:
    """The administrator's file: its text, its settings, and what is wrong with it."""
    layer = configfiles.file(path, pins=True)
    if layer is None:
        return None, {}, (f"{path} is a link to nothing",) if path.is_symlink() else ()
    problems = tuple(error.message for error in layer.problems)
    if path.exists() and not _trusted(path.stat()):
        problems += (f"users other than root may write to {path}",)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "", layer.values, problems or (f"{path} cannot be read",)
    return text, layer.values, problems
