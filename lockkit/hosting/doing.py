"""The doing of planned steps, one by one.

Everything is recorded before it is made, so that ``lockkit host remove`` finds it after a crash: a group by
its name, and later with its number. The paths are checked again just before something is made in them,
because another user may have made a missing parent. An interrupted step is planned again, and repeated.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lockkit.errors import BackendUnavailable
from lockkit.hosting.facts import exposed, group_of, record_of
from lockkit.hosting.planning import (
    CLOSED,
    MODE,
    UNKNOWN,
    Group,
    HostFacts,
    Made,
    Step,
    Wanted,
    belongs_to_store,
    store_url,
    without,
)

__all__ = ["initialise", "remove"]

_SECONDS = 30.0
"""Seconds that groupadd and groupdel may take; they wait for each other's lock for 15."""


def initialise(wanted: Wanted, seen: HostFacts, steps: tuple[Step, ...]) -> Iterator[Step]:
    """Do the steps of a plan for ``lockkit host init``; yields each when it is done.

    Raises:
        BackendUnavailable: A step failed. Those before it are done and recorded.
    """
    url = str(seen.settings.get("url") or store_url(wanted.folder))
    made = seen.made._replace(
        url=url, made_config_folder=seen.made.made_config_folder or not seen.config_folder
    )
    if seen.folder is not None:
        made = made._replace(gid=seen.folder.gid)
    for step in steps:
        with _explained(step):
            match step.action:
                case "make_group":
                    made = made._replace(group=Group(step.subject, UNKNOWN))
                    _record(wanted.config, made)
                    _command("groupadd", "--system", step.subject)
                    found = group_of(step.subject)
                    made = made._replace(group=found and Group(found.name, found.gid))
                    _record(wanted.config, made)
                case "make_folder":
                    group = group_of(wanted.group)
                    gid = 0 if group is None else group.gid
                    with _new_folder(wanted.folder, gid) as inode:
                        made = made._replace(folder=step.subject, inode=inode, gid=gid)
                        _record(wanted.config, made)
                case "write_settings":
                    made = made._replace(
                        config=step.subject,
                        block=step.detail,
                        made_config_file=made.made_config_file or seen.text is None,
                    )
                    _record(wanted.config, made)
                    _write(wanted.config, step.detail + (f"\n{seen.text}" if seen.text else ""))
        yield step


def remove(config: Path, seen: HostFacts, steps: tuple[Step, ...]) -> Iterator[Step]:
    """Do the steps of a plan for ``lockkit host remove``; yields each when it is done. The record goes last.

    Raises:
        BackendUnavailable: A step failed. Those before it are done; another call does the rest.
    """
    made = seen.made
    for step in steps:
        with _explained(step):
            match step.action:
                case "remove_settings":
                    rest = without(seen.text or "", step.detail) or ""
                    if made.made_config_file and not rest.strip():
                        config.unlink(missing_ok=True)
                    else:
                        _write(config, rest)
                    made = made._replace(config=None, block="", made_config_file=False)
                case "remove_folder":
                    _remove_folder(Path(step.subject), made.inode)
                    made = made._replace(folder=None, inode=0)
                case "remove_group":
                    _command("groupdel", step.subject)
                    made = made._replace(group=None)
            _record(config, made)
        yield step
    record_of(config).unlink(missing_ok=True)
    if made.made_config_folder:
        with contextlib.suppress(OSError):  # it is not empty
            config.parent.rmdir()


@contextlib.contextmanager
def _explained(step: Step) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        told = f"cannot {step.text}: {error.strerror or error}"
        raise BackendUnavailable(
            told, hint="nothing after this step was done; correct that, and run the command again"
        ) from error


def _command(*words: str) -> None:
    """Run one of the system's own programs for groups.

    Raises:
        OSError: The program is missing, or did not end in time, or refused; then the text is its own.
    """
    path = shutil.which(words[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise FileNotFoundError(2, f"there is no program {words[0]}")
    line = [path, *words[1:-1], "--", words[-1]]
    try:
        done = subprocess.run(
            line, capture_output=True, text=True, errors="replace", check=False, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        told = f"{words[0]} did not end within {_SECONDS:g} s, and was killed"
        raise TimeoutError(errno.ETIMEDOUT, told) from None
    if done.returncode:
        raise OSError(done.returncode, done.stderr.strip() or f"{words[0]} failed with {done.returncode}")


@contextlib.contextmanager
def _new_folder(path: Path, gid: int) -> Iterator[int]:
    """Make the shared folder. It gets its name after the block, which gets its inode, to record it."""
    _make_parents(path.parent)
    made = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    made.mkdir(mode=0o700)
    try:
        os.chown(made, 0, gid)
        made.chmod(MODE)
        yield made.stat().st_ino
        made.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            made.rmdir()
        raise


def _make_parents(folder: Path) -> None:
    """Make a folder that everybody may look into, and its missing parents, whatever the umask.

    Raises:
        OSError: Another user could replace what is made in it: a parent was made by somebody else.
    """
    for one in (*reversed(folder.parents), folder):
        if not one.is_dir():
            one.mkdir(mode=0o755)
            one.chmod(0o755)
    open_to_others = exposed(folder / "any")
    if open_to_others is not None:
        raise PermissionError(errno.EPERM, f"other users may write to {open_to_others}")


def _write(path: Path, text: str) -> None:
    """Replace a file in one step; it keeps its owner and mode. A new one can be read by everybody."""
    path = Path(os.path.realpath(path))  # a link stays one
    _make_parents(path.parent)
    before = path.stat() if path.exists() else None
    made = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        with made.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644 if before is None else stat.S_IMODE(before.st_mode))
            if before is not None:
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
            os.fsync(file.fileno())
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise


def _record(config: Path, made: Made) -> None:
    """Write down what is made, before it is made."""
    document = {
        "v": 1,
        "group": None if made.group is None else {"name": made.group.name, "gid": made.group.gid},
        "folder": made.folder,
        "inode": made.inode,
        "gid": made.gid,
        "url": made.url,
        "config": made.config,
        "block": made.block,
        "file": made.made_config_file,
        "home": made.made_config_folder,
    }
    _write(record_of(config), json.dumps(document, indent=2) + "\n")


def _remove_folder(path: Path, inode: int) -> None:
    """Close the folder to its group, so nothing in it can be replaced; then remove the store and the folder.

    Raises:
        OSError: Another folder is there, and left alone; or other files keep it, closed to its group.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(folder).st_ino != inode:
            raise FileExistsError(errno.EEXIST, "another folder took its place")
        os.fchmod(folder, CLOSED)
    finally:
        os.close(folder)
    for one in path.iterdir():
        if not belongs_to_store(one.name):
            continue
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one)
        else:
            one.unlink()
    path.rmdir()
