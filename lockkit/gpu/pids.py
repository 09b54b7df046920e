"""The processes behind the pids that a driver reports, which are those of the host, also in a container.

A pid is given only where it is proved. Two pid namespaces may use one number for two processes, so a pid of
the host that merely exists here proves nothing (pid_namespaces(7)).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from lockkit.gpu.devices import DeviceProcess
from lockkit.values.identity import user_name

__all__ = ["Pids", "program_of", "spaces_of", "status_of"]

_INITIAL = 0xEFFFFFFC
"""The number of the pid namespace of the host itself: PROC_PID_INIT_INO, the same on every Linux."""
_KERNEL_THREAD = 0x00200000
"""PF_KTHREAD among the flags of proc_pid_stat(5). No program can set it."""
_LONGEST = 64
"""The number of characters to which the name of a program is cut."""

View = Literal["same", "outer", "unknown"]


class Pids:
    """The way from pids of the host to processes of this pid namespace, as it is now.

    - same: this process lives in the pid namespace of the host, so the pids are those that it knows.
    - outer: it lives in another one, but sees the host's ``/proc``, whose NSpid shows the pids here.
    - unknown: an ordinary container. Nothing is known about a pid of the host.

    Args:
        proc: The folder ``/proc``.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._own = spaces_of(status_of(proc / "self"))
        self.view: View = self._look()

    def _look(self) -> View:
        try:
            shown = str((self._proc / "self").readlink())
            space = (self._proc / "self/ns/pid").stat().st_ino
        except OSError:
            return "unknown"
        if space == _INITIAL and shown == str(os.getpid()):
            return "same"
        # Pid 2 of the host is a thread of the kernel, and no container has one.
        return "outer" if _is_kernel_thread(self._proc / "2") and self._own else "unknown"

    def process(self, pid: int, memory: int | None) -> DeviceProcess:
        """The process that a driver reports under ``pid``, with the bytes that it uses."""
        if self.view == "unknown":
            return DeviceProcess(memory=memory)
        folder = self._proc / str(pid)
        fields = status_of(folder)
        uid = fields.get("Uid", "").split()[:1]
        here = pid if self.view == "same" else self._inside(folder, fields)
        user = user_name(int(uid[0])) if uid else None
        return DeviceProcess(here, user, program_of(folder, fields), memory)

    def _inside(self, folder: Path, fields: dict[str, str]) -> int | None:
        """The pid that a process has here, if it lives in this very pid namespace."""
        pids = spaces_of(fields)
        if len(pids) != len(self._own):
            return None
        try:
            same = (folder / "ns/pid").readlink() == (self._proc / "self/ns/pid").readlink()
        except OSError:  # of another user
            return None
        return pids[-1] if same else None


def status_of(folder: Path) -> dict[str, str]:
    """The fields of proc_pid_status(5); none if the process has ended, or may not be seen."""
    try:
        text = (folder / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return {key: value.strip() for key, _, value in (row.partition(":") for row in text.splitlines())}


def spaces_of(fields: dict[str, str]) -> list[int]:
    """The pids that a process has, from the namespace of this ``/proc`` to its own."""
    return [int(pid) for pid in fields.get("NSpid", "").split()]


def _is_kernel_thread(folder: Path) -> bool:
    try:
        text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    fields = text.rpartition(")")[2].split()
    return len(fields) > 6 and bool(int(fields[6]) & _KERNEL_THREAD)


def program_of(folder: Path, fields: dict[str, str]) -> str | None:
    """The name of a program without arguments: ``train.py`` for ``python -u /srv/train.py --key ...``."""
    try:
        words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        words = []
    name = Path(words[0]).name if words else ""
    if name.startswith("python"):
        script = _script(words[1:])
        name = Path(script).name or name
    return (name or fields.get("Name", ""))[:_LONGEST] or None


def _script(words: list[str]) -> str:
    """The script or module that Python runs; "" if there is none, or if it may be an option's value."""
    for number, word in enumerate(words):
        if word == "-m" and number + 1 < len(words):
            return words[number + 1]
        if word not in ("-u", "-B", "-E", "-I", "-O", "-OO", "-s", "-S", "-q", "-b", "-bb"):
            return "" if word.startswith("-") else word
    return ""
