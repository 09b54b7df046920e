"""Places: the file system of a path, and the folder in which lockkit keeps the files of this user.

All users of an embedded store must share one kernel. Several kernels use a network file system, and
neither shared memory nor a FIFO works between them.
"""

from __future__ import annotations

import errno
import logging
import os
import pwd
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from lockkit.errors import BackendUnavailable, ConfigError
from lockkit.lib.forks import IMPORTS
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable
from lockkit.values.identity import user_name

__all__ = [
    "STORE_FILE",
    "StatePlace",
    "barred",
    "filesystem",
    "home_dir",
    "make_folders",
    "network_filesystem",
    "private_dir",
    "state_place",
]

STORE_FILE = "lockkit.db"
"""The name of the embedded store's file in the state folder, for a URL without a path."""

_log = logging.getLogger("lockkit")
_told: set[Path] = set()

_NETWORK = frozenset({
    "9p", "9pfs", "acfs", "afs", "auristorfs", "beegfs", "ceph", "cephfs", "cifs", "coda", "davfs", "drbdfs",
    "drvfs", "gfs", "gfs2", "glusterfs", "gpfs", "kafs", "lustre", "moosefs", "ncp", "ncpfs", "nfs", "nfs3",
    "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2", "quobyte", "smb", "smb2", "smb3", "smbfs",
    "vboxsf", "virtiofs", "vmhgfs", "weka", "wekafs",
})  # fmt: skip
_LOCAL_FUSE = frozenset({
    "fuseblk", "fuse.bindfs", "fuse.encfs", "fuse.ext2", "fuse.ext4", "fuse.exfat", "fuse.fuse-overlayfs",
    "fuse.gocryptfs", "fuse.mergerfs", "fuse.ntfs", "fuse.ntfs-3g", "fuse.overlayfs", "fuse.securefs",
    "fuse.unionfs", "fuse.zfs",
})  # fmt: skip
_MOUNTS = Path("/proc/self/mountinfo")


def filesystem(path: str | os.PathLike[str], *, mounts: Path = _MOUNTS) -> str | None:
    """The type of the file system on which a path lies or would be created; None if the system does not say.

    Symbolic links are followed. The answer comes from ``/proc/self/mountinfo`` (proc_pid_mountinfo(5)): the
    longest mount point that contains the path counts, and the last file system that was mounted there.

    Args:
        path: The path; it need not exist.
        mounts: The mount table.
    """
    target = os.path.realpath(path)
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError as error:
        if error.errno is None:  # of a signal handler
            raise
        return None
    found: tuple[int, str] | None = None
    for line in lines:
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = fields[4]
        if "\\" in point:
            point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and (found is None or len(point) >= found[0]):
            found = (len(point), after.split(" ", 1)[0])
    return found[1] if found else None


def network_filesystem(path: str | os.PathLike[str], *, mounts: Path = _MOUNTS) -> str | None:
    """The type of the file system if it may be shared with another kernel, else None.

    These are the known network and cluster file systems (nfs, cifs, ceph, lustre, 9p, virtiofs, ...) and
    every FUSE file system that is not known to be local. Most FUSE file systems use a network (sshfs, s3fs,
    rclone, gcsfuse), and refusing a local one is better than two holders. An unknown type is accepted.
    """
    kind = filesystem(path, mounts=mounts)
    if kind is None:
        return None
    if kind in _NETWORK or (kind.startswith("fuse") and kind not in _LOCAL_FUSE and kind != "fusectl"):
        return kind
    return None


def barred(path: str | os.PathLike[str]) -> Path | None:
    """The first of a path's folders that this process may not search; None if there is none."""
    for folder in reversed(Path(path).parents):
        try:
            os.stat(f"{folder}/.")  # noqa: PTH116 (a Path drops the dot, and only that asks for the right to search)
        except PermissionError:
            return folder
        except OSError:
            return None
    return None


class StatePlace(NamedTuple):
    """The state folder and the source of the choice, such as ``LOCKKIT_STATE_DIR``."""

    path: Path
    source: str

    def __str__(self) -> str:
        return str(self.path)


def state_place(
    environ: Mapping[str, str] | None = None,
    configured: tuple[str, str] | None = None,
    *,
    mounts: Path = _MOUNTS,
    create: bool = True,
) -> StatePlace:
    """Find the state folder of this user, and create it (0700) if it is missing.

    The first of these is used: the configured folder (``state_dir``, which already takes a pin in /etc and
    ``LOCKKIT_STATE_DIR`` into account); ``LOCKKIT_STATE_DIR``; ``$XDG_STATE_HOME/lockkit`` or
    ``~/.local/state/lockkit``, if it is local and writable; ``/var/tmp/lockkit-$UID``, with one WARNING per
    process. Without HOME the passwd entry's home counts, so cron jobs and login shells use the same folder.

    Args:
        environ: The environment; None for that of this process.
        configured: A folder and the source of that setting. ``~`` and ``{uid}`` in it are replaced.
        mounts: The mount table.
        create: Whether to create the folder. If False, nothing is created or logged, and only problems that
            show without creating it are found.

    Raises:
        ConfigError: The configured folder is not an absolute path.
        BackendUnavailable: The folder cannot be made, is none, is another user's, or others may write to it.
    """
    environ = os.environ if environ is None else environ
    home = home_dir(environ)
    if configured is None and environ.get("LOCKKIT_STATE_DIR"):
        configured = (environ["LOCKKIT_STATE_DIR"], "LOCKKIT_STATE_DIR")
    if configured is not None:
        text, source = configured
        return StatePlace(private_dir(_expand(text, home, source), create=create), source)
    why = "there is no home folder"
    xdg = environ.get("XDG_STATE_HOME", "")
    # The XDG Base Directory Specification says that a relative XDG_STATE_HOME must be ignored.
    base = Path(xdg) if xdg.startswith("/") else home / ".local" / "state" if home else None
    if base is not None:
        kind = network_filesystem(base, mounts=mounts)
        if kind is None:
            path = base / "lockkit"
            why = _obstacle(path, create=create)
            if not why:
                return StatePlace(
                    private_dir(path, create=create), "XDG_STATE_HOME" if xdg.startswith("/") else "default"
                )
        else:
            why = f"{base} is on {kind}, a network file system"
    path = private_dir(Path(f"/var/tmp/lockkit-{os.getuid()}"), create=create)  # noqa: S108 (owner checked)
    if create:
        _tell(path, why)
    return StatePlace(path, f"default, because {why}")


def _tell(path: Path, why: str) -> None:
    # Another process of this user (login shell, cron job) may use another default store. Warn once.
    if path not in _told:
        _told.add(path)
        _log.warning(
            "journals, and locks of a URL without a path, are kept in %s, because %s; a process with "
            "another state folder does not share them (to use one folder everywhere, set state_dir in "
            "/etc/lockkit/config.toml, or LOCKKIT_STATE_DIR)",
            printable(str(path)),
            printable(why),
        )


def private_dir(path: Path, *, create: bool = True) -> Path:
    """Create a folder of this user's own (0700) if it is missing, and return it.

    Args:
        path: The folder.
        create: Whether to create the folder. If False, only check whether it could be created.

    Raises:
        BackendUnavailable: The folder cannot be made, is none, is another user's, or others may write to it.
    """
    try:
        if not _make(path, create=create):
            return path
        seen = path.lstat()
        if stat.S_ISLNK(seen.st_mode) and seen.st_uid in (os.getuid(), 0):  # another user's may be a trap
            seen = path.stat()
    except OSError as error:
        hint = "set LOCKKIT_STATE_DIR to a folder that you can write to"
        raise BackendUnavailable(f"cannot use {path}: {error.strerror}", hint=hint) from error
    mine = os.getuid()
    if not stat.S_ISDIR(seen.st_mode):
        raise BackendUnavailable(f"{path} is not a folder", hint="rename it, or set LOCKKIT_STATE_DIR")
    if seen.st_uid != mine:
        raise BackendUnavailable(
            f"{path} belongs to {user_name(seen.st_uid)}, not to {user_name(mine)}",
            hint="set LOCKKIT_STATE_DIR to a folder of your own, which may be a new one in it",
        )
    if seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise BackendUnavailable(
            f"others may write to {path} (mode {stat.S_IMODE(seen.st_mode):04o})",
            hint=f"chmod 700 {path}, or set LOCKKIT_STATE_DIR to another folder",
        )
    return path


def _obstacle(path: Path, *, create: bool) -> str:
    try:
        if not _make(path, create=create):
            return ""
    except OSError as error:
        return f"{path} cannot be created: {error.strerror}"
    # For another user's folder, state_place raises an error: HOME is probably wrong (sudo -E).
    if path.stat().st_uid == os.getuid() and not os.access(path, os.W_OK | os.X_OK):
        return f"{path} cannot be written to"
    return ""


def _make(path: Path, *, create: bool) -> bool:
    """Create the folder unless it exists; return whether it exists. OSError: it cannot be created."""
    if create:
        make_folders(path)
        return True
    above = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    trouble = 0
    if not above.is_dir():
        trouble = errno.EEXIST if above == path else errno.ENOTDIR
    elif above != path and not os.access(above, os.W_OK | os.X_OK):
        trouble = errno.EACCES
    if trouble:
        raise OSError(trouble, os.strerror(trouble))
    return above == path


def make_folders(path: Path) -> None:
    """Create a folder and its missing parents, each for its owner alone (0700), whatever the umask.

    ``os.makedirs`` applies its mode to the last folder only. The others' mode would depend on the umask, and
    with a umask of 0 anybody could replace this folder by another.

    Raises:
        OSError: A folder cannot be created, or something else has its name.
    """
    for folder in (*reversed(path.parents), path):
        if not os.path.isdir(folder):  # noqa: PTH112 (Path.is_dir raises where it may not look)
            try:
                folder.mkdir(mode=0o700)
            except FileExistsError:
                if not os.path.isdir(folder):  # noqa: PTH112 (as above; another process may have created it just now)
                    raise
            else:
                _owner_alone(folder)


def _owner_alone(folder: Path) -> None:
    """Give the owner of a new folder the rights that the umask took away."""
    mode = stat.S_IMODE(folder.lstat().st_mode)
    if mode & 0o700 != 0o700:
        folder.chmod(mode | 0o700)


def _expand(text: str, home: Path | None, source: str) -> Path:
    if home and (text == "~" or text.startswith("~/")):
        text = f"{home}{text[1:]}"
    path = Path(text.replace("{uid}", str(os.getuid())))
    if not path.is_absolute() or "\0" in text:
        raise ConfigError(
            f"state_dir must be an absolute path, not {text!r} (from {source})",
            hint="for instance /var/tmp/lockkit-{uid}; ~ and {uid} are replaced",
        )
    return path


def home_dir(environ: Mapping[str, str]) -> Path | None:
    """The user's home folder: HOME, or that of the passwd entry; None if neither is an existing folder."""
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        try:
            with IMPORTS:  # as in user_name
                home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    # The folder must exist: lockkit creates no home folders, and "/" or /nonexistent is the home of a daemon.
    # Path.is_dir raises in a folder that may not be searched.
    usable = home.startswith("/") and home.strip("/") and os.path.isdir(home)  # noqa: PTH112
    return Path(home) if usable else None
