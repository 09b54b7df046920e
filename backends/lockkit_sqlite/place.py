"""The place of the file: its URL, the rights of its folder, and the places that are refused.

A *private* store lies in a folder that only its user may write to; its files get mode 0600. A *host* store
lies in a folder that a group shares (setgid, for instance 2770); its files, log and FIFOs get 0660.

Sticky folders are refused, /tmp above all: there the kernel keeps users from opening each other's files and
FIFOs (``fs.protected_regular``, ``fs.protected_fifos``; proc_sys_fs(5)), so a host store would fail for its
second user only; and where everybody may write, anybody could have put the file there.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from lockkit.config.places import STORE_FILE, barred, make_folders, network_filesystem, state_place
from lockkit.config.settings import IN_QUERY, meant, redact, veiled
from lockkit.errors import BackendUnavailable, ConfigError, PermissionDenied
from lockkit.lib.namedtuples import NamedTuple
from lockkit.store.spi import Refused
from lockkit_sqlite.descriptors import inside, opened, set_mode
from lockkit_sqlite.failures import left, linked, raise_if_foreign

__all__ = [
    "Place",
    "check_folder",
    "group_name",
    "is_shared",
    "locate",
    "make_file",
    "make_pulses",
    "prepare",
    "unusable",
]

OPTIONS = {"synchronous": ("normal", "full", "off")}
"""The options of a URL. With ``full`` the last second's releases survive a power cut, at 2 fsyncs a lock."""
_NEVER_EMPTY = "shared"
"""The empty folder in a shared folder of FIFOs."""
_USAGE = "write sqlite: or sqlite:/path/file.db"


class Place(NamedTuple):
    """A file that may be used.

    Attributes:
        given: The path as its users write it, with symbolic links.
        path: Absolute, links resolved.
        pulses: The folder of the FIFOs.
        shared: A host store, as opposed to a private one.
        synchronous: SQLite's setting of that name.
    """

    given: Path
    path: str
    pulses: str
    shared: bool
    synchronous: str

    @property
    def mode(self) -> int:
        """The mode of its files and FIFOs."""
        return 0o660 if self.shared else 0o600


def locate(url: str, state_dir: str | None) -> tuple[Path, str]:
    """Read the URL: the path of the file, and the ``synchronous`` setting.

    Raises:
        ConfigError: The URL has no path, or an option that does not exist.
        BackendUnavailable: There is no usable state folder.
        Refused: The place cannot be looked at; the error says which folder is in the way and what to do.
    """
    text, synchronous = _parse(url)
    if not text:
        return Path(state_dir or state_place().path) / STORE_FILE, synchronous
    path = Path(text)
    try:
        taken = path.is_dir()
    except OSError as error:
        raise unusable(path, error) from error
    if not path.is_absolute() or text.endswith("/") or taken:
        raise ConfigError(f"not the absolute path of a file: {veiled(text, redact(url))!r}", hint=_USAGE)
    return path, synchronous


def _parse(url: str) -> tuple[str, str]:
    """The path of a URL, empty for the user's own file, and its ``synchronous``; raises ConfigError."""
    shown = redact(url)
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may quote a password
        parts = None
    if parts is None or parts.netloc or parts.fragment:
        raise ConfigError(f"not the URL of an embedded store: {shown!r}", hint=_USAGE)
    if ":" in parts.path.rpartition("@")[0]:
        raise ConfigError(
            f"an embedded store has no login: {shown!r}",
            hint=f"{_USAGE}; in a path write : and @ as %3A and %40",
        )
    settings = dict.fromkeys(OPTIONS, "")
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key not in OPTIONS:
            # Settings leave the query before a store sees it, but to the user they are options, too.
            hint = (
                f"{meant(key, (*OPTIONS, *IN_QUERY)) or ''} allowed: {', '.join(OPTIONS)}; "
                f"and the settings {', '.join(IN_QUERY)}"
            )
            raise ConfigError(f"unknown option {veiled(key, shown)!r} in {shown!r}", hint=hint.strip())
        if value.lower() not in OPTIONS[key]:
            raise ConfigError(
                f"{key} cannot be {veiled(value, shown)!r} in {shown!r}",
                hint=f"allowed: {', '.join(OPTIONS[key])}",
            )
        settings[key] = value.upper()
    synchronous = settings["synchronous"] or "NORMAL"
    text = unquote(parts.path)
    if "\0" in text:
        raise ConfigError(f"not a path: {veiled(text, shown)!r}", hint=_USAGE)
    return text, synchronous


def is_shared(url: str) -> bool:
    """Whether the file of a URL lies in a folder that a group shares, by a look; the store is not opened.

    False for a URL that will be refused, and for an absent folder, which lockkit creates for one user. True
    for a folder shared in a wrong way, or no longer: opening the store refuses it, and says what is wrong.
    """
    try:
        path = Path(_parse(url)[0])
        # Without a path it is the user's state folder, which is never shared.
        target = _resolved(path)
        others = target.parent.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        return path.is_absolute() and (bool(others) or _was_shared(f"{target}.pulses"))
    except ConfigError:
        return False
    except OSError as error:
        raise_if_foreign(error)
        return False


def _resolved(path: Path) -> Path:
    """A path without links; the file need not be there.

    Raises:
        OSError: A circle of links, for which Path.resolve() raises different errors, or none, by version.
    """
    resolved = Path(os.path.realpath(path))
    try:
        resolved.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise
    return resolved


def _is_shared(mode: int) -> bool:
    everybody = mode & (stat.S_IWOTH | stat.S_ISVTX)
    return bool(mode & stat.S_IWGRP and mode & stat.S_ISGID and not everybody)


def group_name(gid: int) -> str:
    """The name of a group; the number of one without a name."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def prepare(path: Path, synchronous: str, *, shared: bool = False) -> Place:
    """Check the folder, and create it if it is missing, with the right mode whatever the umask.

    Args:
        path: The database as its users name it.
        synchronous: SQLite's setting of that name.
        shared: The folder is known to have been shared by a group, so that a private one is no substitute.

    Raises:
        Refused: The place cannot be used; the error says why and what to do.
    """
    if _own_clock():
        raise Refused(
            BackendUnavailable(
                "this process is in a time namespace with a clock of its own, "
                "by which the locks of other processes would seem to have lapsed",
                hint="use Redis, etcd or ZooKeeper there",
            ),
            retry=False,
        )
    try:
        folder = _resolved(path.parent)
        if not folder.exists():
            if shared:
                raise Refused(
                    BackendUnavailable(
                        f"{folder}, which a group shared, is gone",
                        hint=f"create it anew: mkdir -m 2770 {folder}, and chgrp",
                    )
                )
            make_folders(folder)
        target = folder / path.name
        if target.is_symlink():
            if _judge(folder, folder.stat()):  # in a folder of this user alone, the link is the user's own
                raise linked(str(target))
            target = _resolved(target)
            folder = target.parent  # where log, index and FIFOs will be
        seen = folder.stat()
    except OSError as error:
        raise unusable(path, error) from error
    kind = network_filesystem(folder)
    if kind is not None:
        raise Refused(
            BackendUnavailable(
                f"{folder} is on {kind}, a network file system, "
                "on which SQLite and FIFOs cannot keep hosts apart",
                hint="use a local folder, or Redis, etcd or ZooKeeper for more than one host",
            ),
            retry=False,
        )
    pulses = f"{target}.pulses"
    now_shared = _judge_both(folder, seen, pulses, shared=shared)
    if now_shared and target.exists() and not os.access(target, os.R_OK | os.W_OK, effective_ids=True):
        mine = target.stat().st_gid
        if mine != seen.st_gid and target.stat().st_mode & stat.S_IWGRP:
            group = group_name(seen.st_gid)
            raise _denied(
                f"{target} belongs to the group {group_name(mine)}, and its folder to the group {group}",
                f"end all programs that use it, then: sudo chgrp -R {group} {folder}",
            )
        raise _denied(
            f"{target} was made for its owner alone (mode {stat.S_IMODE(target.stat().st_mode):04o}), "
            "before a group shared its folder",
            f"name another file in {folder}: that one is made for the group",
        )
    return Place(path, str(target), pulses, now_shared, synchronous)


def check_folder(path: Path) -> None:
    """Refuse a folder that is there and cannot be used. Nothing is made.

    Raises:
        Refused: As for :func:`prepare`.
    """
    try:
        target = _resolved(path)
        seen = target.parent.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise unusable(path, error) from error
    _judge_both(target.parent, seen, f"{target}.pulses")


def _judge_both(folder: Path, seen: os.stat_result, pulses: str, *, shared: bool = False) -> bool:
    """As :func:`_judge`; refuses a private folder that was shared until now, or whose FIFOs are a group's."""
    now_shared = _judge(folder, seen)
    if not now_shared and (shared or _was_shared(pulses)):
        raise _denied(
            f"a group shared {folder}, and no longer does (mode {stat.S_IMODE(seen.st_mode):04o})",
            f"chmod 2770 {folder}, and chgrp; or end all programs that use it, and remove {pulses}",
        )
    return now_shared


def _was_shared(pulses: str) -> bool:
    """Whether the FIFOs' folder is a group's. Its processes may be inside, barred from a private FIFO."""
    try:
        return _is_shared(os.lstat(pulses).st_mode)
    except OSError as error:
        raise_if_foreign(error)
        return False


def _own_clock() -> bool:
    """Whether this process's CLOCK_BOOTTIME differs from that of the machine (time_namespaces(7))."""
    try:
        with open("/proc/self/timens_offsets", encoding="utf-8") as rows:  # noqa: PTH123 (twice as fast as Path)
            return any(row.split()[0] == "boottime" and row.split()[1:] != ["0", "0"] for row in rows)
    except OSError as error:
        raise_if_foreign(error)
        return False  # a kernel without time namespaces


def _judge(folder: Path, seen: os.stat_result) -> bool:
    """True for a folder that a group shares, False for one of this user alone; others are refused."""
    mode, mine = stat.S_IMODE(seen.st_mode), os.geteuid()
    if mode & stat.S_IWOTH or (mode & stat.S_ISVTX and mode & stat.S_IWGRP):
        raise _denied(
            f"{folder} is {'sticky' if mode & stat.S_ISVTX else 'writable by everybody'} (mode {mode:04o}): "
            "anybody could have put a file there, and the kernel keeps users from opening each other's files",
            "use a folder of your own (mkdir -m 700), or for a group: "
            "mkdir -m 2770 and chgrp; see: lockkit docs all-users",
        )
    if _is_shared(mode):
        if seen.st_uid == mine != 0 and not _in_group(seen.st_gid):
            # The kernel would drop the setgid bit of the FIFOs' folder: no user could open another's FIFO.
            group = group_name(seen.st_gid)
            raise _denied(
                f"the group {group} shares {folder}, and its owner, this user, is not in that group",
                f"{_way_in(group)}; or sudo chown root {folder}",
            )
        return True
    if mode & stat.S_IWGRP:
        raise _denied(
            f"{folder} is shared by a group but not setgid (mode {mode:04o}): "
            "its members could not open each other's files",
            f"chmod g+s {folder}, or chmod 700 if it is yours alone",
        )
    if seen.st_uid not in (mine, 0):  # root too: what root creates there, the owner could not open
        raise _denied(
            f"{folder} belongs to uid {seen.st_uid}, not to uid {mine}, "
            f"and no group shares it (mode {mode:04o})",
            f"run this as its owner (sudo -u '#{seen.st_uid}'), use a folder of your own, "
            "or one that a group shares (mode 2770); see: lockkit docs all-users",
        )
    return False


def _in_group(gid: int) -> bool:
    return gid in (os.getegid(), *os.getgroups())


def _denied(text: str, hint: str) -> Refused:
    return Refused(PermissionDenied(text, hint=hint), retry=False)


def make_file(path: str, place: Place, content: str = "") -> None:
    """Create a file of the store with the right mode whatever the umask, if it is not there.

    The file has its name only with its mode and content, because another process may open it at once.

    Raises:
        OSError: The file cannot be created.
    """
    if os.path.lexists(path):
        return
    made = _unborn(path)
    try:
        file = opened(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, place.mode)
        try:
            os.fchmod(file.fileno(), place.mode)
            if content:
                os.write(file.fileno(), content.encode())
                os.fsync(file.fileno())
        finally:
            file.close()
        os.link(made, path)  # which replaces nothing, unlike a renaming
    except FileExistsError as error:
        raise_if_foreign(error)
    finally:
        Path(made).unlink(missing_ok=True)


def _unborn(path: str) -> str:
    """A temporary name beside a path, for a file or folder that is not ready for its own."""
    return f"{path}.{os.urandom(6).hex()}"


def make_pulses(folder: str, *, shared: bool) -> None:
    """Create the folder of FIFOs if it is not there, with the right mode whatever the umask.

    Raises:
        OSError: The folder cannot be created, or something else has its name.
        Refused: Everybody may write to the one that is there.
    """
    path = Path(folder)
    try:
        if shared and not os.path.lexists(path):
            _make_shared(path)
            return
        path.mkdir(mode=0o700)
    except FileExistsError as error:
        raise_if_foreign(error)
        mode = path.lstat().st_mode
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder") from None
        if mode & stat.S_IWOTH:
            raise _denied(
                f"everybody may write to {folder} (mode {stat.S_IMODE(mode):04o})",
                f"chmod {'2770' if shared else '700'} {folder}",
            ) from None
        return
    set_mode(folder, 0o2770 if shared else 0o700)


def _make_shared(path: Path) -> None:
    """Create a folder for a group, with its mode before its name. If another user is first, theirs stays.

    A renaming replaces a folder that is empty, so the folder is made with another one in it.
    """
    made = Path(_unborn(str(path)))
    made.mkdir(mode=0o700)
    try:
        with inside(str(made), os.O_RDONLY) as folder:
            set_mode(".", 0o2770, folder)
            os.mkdir(_NEVER_EMPTY, dir_fd=folder.fileno())
        made.rename(path)
    except BaseException as error:
        with contextlib.suppress(OSError), inside(str(made)) as folder:
            os.rmdir(_NEVER_EMPTY, dir_fd=folder.fileno())
        with contextlib.suppress(OSError):
            made.rmdir()
        if not isinstance(error, OSError) or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _group_of_others(folder: Path) -> str | None:
    """The group that shares a folder, if this process is not in it; else None."""
    try:
        seen = folder.stat()
    except OSError as error:
        raise_if_foreign(error)
        return None
    mine = seen.st_uid == os.geteuid() or _in_group(seen.st_gid)
    return group_name(seen.st_gid) if _is_shared(seen.st_mode) and not mine else None


def _way_in(group: str) -> str:
    """A hint that gets this user into a group; a number without an account has no name to give to usermod."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = "USER"
    ask = "ask the administrator: " if os.geteuid() else ""
    return f"{ask}sudo usermod -aG {group} {user}; then log in again"


def _mode_of(folder: Path) -> str:
    """The mode of a folder, to go behind a sentence; empty if this user may not see it."""
    try:
        return f" (mode {stat.S_IMODE(folder.stat().st_mode):04o})"
    except OSError as error:
        raise_if_foreign(error)
        return ""


def unusable(path: Path, error: OSError) -> Refused:
    """The refusal for a place that the system bars to this process. Reraises an error not the system's."""
    raise_if_foreign(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        group = _group_of_others(path.parent)
        if group is not None:
            return _denied(
                f"cannot use {path}: the group {group} shares its folder, "
                "and this process is not in that group",
                f"{_way_in(group)}; see: lockkit docs all-users",
            )
        folder = barred(path)
        if folder is not None:
            text = f"this user may not look into {folder}{_mode_of(folder)}"
            hint = (
                f"name a file in a folder of your own, or have the owner of {folder} "
                "let you in (chmod, chgrp)"
            )
        else:
            text = f"permission denied in {path.parent}{_mode_of(path.parent)}"
            hint = "check the owner and mode of the folder, or name another file"
        return _denied(f"cannot use {path}: {text}", hint)
    hints = {
        errno.EROFS: "the file system is mounted read-only: name a file elsewhere",
        errno.ENOSPC: "free some space (df -h, and df -i for inodes)",
        errno.EDQUOT: "free some of your quota",
        errno.ENAMETOOLONG: "name a file with a shorter path",
        errno.ELOOP: "its links lead in a circle: name the file that is meant",
    }
    hint = hints.get(error.errno or 0, "name another file")
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = f"the disk or quota is full, {left(str(path))}" if full else error.strerror
    return Refused(BackendUnavailable(f"cannot use {path}: {what}", hint=hint), retry=False)
