"""Identity: the description of this process that its claims show.

Pid, boot id and start time together identify one process for ever. A pid alone does not: pids are reused.
"""

from __future__ import annotations

import functools
import os
import pwd
import sys
from collections.abc import Mapping
from pathlib import Path

from lockkit._version import __version__
from lockkit.facts import Owner
from lockkit.lib.forks import IMPORTS
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.origin import Origin, this_origin

__all__ = [
    "Process",
    "boot_id",
    "look_at",
    "pid_space",
    "process_of",
    "process_start",
    "program_name",
    "same_start",
    "this_process",
    "user_name",
    "with_task",
]

_LONGEST = 64
"""The number of characters to which names of programs and tasks are cut, because they are shown in tables."""
_CUT_HOSTNAME = 63
"""The number of characters to which Kubernetes cuts the host name of a pod whose name is longer."""
_LONGEST_POD = 253
"""The most characters of a pod's or node's name. Not cut: the name serves to ask whether a pod still runs."""

_LONGEST_STAT = 4096
"""Bytes; the line has some 50 numbers and a name of at most 64 bytes."""
_HALF_A_STEP = 0.005
"""Half of the steps, in seconds, in which the kernel counts times of start."""

_known: tuple[Origin, Owner] | None = None


@functools.cache
def boot_id() -> str:
    """The kernel's random id of this boot (random(4)), or "" if there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def pid_space() -> int:
    """The number of this process's pid namespace (pid_namespaces(7)); 0 if it cannot be determined.

    Two processes see each other under their own pids only in one pid namespace. The containers of a host
    share its boot id, but have separate pid namespaces.
    """
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # noqa: PTH115
            return 0  # this /proc belongs to another pid namespace
        return os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116
    except OSError:
        return 0


class Process(NamedTuple):
    """A process of this pid namespace, as the kernel shows it now.

    Attributes:
        state: The letter of its state, for instance ``S``; ``T`` and ``t`` are stopped, ``Z`` and ``X`` dead.
        started: The start of the process, in seconds since boot; the resolution is a clock tick, 10 ms.
        threads: The number of its threads.
        parent: The pid of its parent; 0 if that is in another pid namespace.
    """

    state: str
    started: float
    threads: int
    parent: int

    @property
    def stopped(self) -> bool:
        """Whether the process is stopped, by a signal or by a debugger."""
        return self.state in ("T", "t")

    @property
    def ended(self) -> bool:
        """Whether the process has ended, unnoticed by its parent. A process may outlive its first thread."""
        return self.state in ("Z", "X", "x") and self.threads <= 1


def look_at(pid: int) -> Process | None:
    """The process with this pid; None if there is none, or if it cannot be seen (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 (a Path is half as fast)
            text = file.read(_LONGEST_STAT)
    # Not OSError: a signal handler may raise a TimeoutError.
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The second field is the command in parentheses, which may itself contain spaces and parentheses.
    fields = text.rpartition(b")")[2].split()
    if len(fields) < 20:
        return None
    return Process(
        fields[0].decode(), int(fields[19]) / os.sysconf("SC_CLK_TCK"), int(fields[17]), int(fields[1])
    )


def same_start(one: float, other: float) -> bool:
    """Whether two times of start, in seconds since boot, are the same. The kernel's steps are 10 ms."""
    return abs(one - other) < _HALF_A_STEP


def process_of(owner: Owner) -> tuple[str, int, int, float]:
    """An identifier of an owner's process: equal for two claims if and only if the same process made both.

    A pid counts in one pid namespace of one boot only, and is given away again after the end of its process.
    """
    return owner.boot_id or owner.host, owner.pid_space, owner.pid, owner.started


def process_start(pid: int) -> float | None:
    """The start time of a process, in seconds since boot; None without such a process (or ``/proc``)."""
    process = look_at(pid)
    return None if process is None else process.started


def user_name(uid: int | None = None) -> str:
    """The name of a user (None: this process's), or the uid if it has no name, as in some containers."""
    uid = os.getuid() if uid is None else uid
    try:
        with IMPORTS:  # a fork in the first call leaves the C library's module list locked in the child
            return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def program_name() -> str:
    """The program that this process runs: ``train.py``, ``celery``, a module for ``python -m``, ``python``.

    Never contains arguments, which may be passwords, or a path.
    """
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    module = getattr(spec, "name", None)
    if isinstance(module, str) and module and module != "__main__":
        return _clean(module.removesuffix(".__main__"))
    first = sys.argv[0] if getattr(sys, "argv", None) else ""
    if first in ("", "-", "-c", "-m"):
        return "python"
    return _clean(Path(first).name) or "python"


def this_process(
    task: str | None = None, *, program: str | None = None, environ: Mapping[str, str] | None = None
) -> Owner:
    """The owner that this process's claims show.

    Determined once per process, and again in a forked child, without starting a process or using the network.

    Args:
        task: The task of the process, for instance the id of a Celery task.
        program: A name to use instead of :func:`program_name`; only the last part of a path is kept.
        environ: The environment that may name the pod; None: that of this process.
    """
    global _known  # noqa: PLW0603 (one cache for the process; a race only finds out twice)
    known = _known
    if known is None or not known[0].is_here() or environ is not None:
        variables = os.environ if environ is None else environ
        pod, pid = _pod(variables), os.getpid()
        owner = Owner(
            user=user_name(),
            host=os.uname().nodename,
            pid=pid,
            boot_id=boot_id(),
            started=process_start(pid) or 0.0,
            program=program_name(),
            pod=pod,
            version=__version__,
            pid_space=pid_space(),
            pod_namespace=_of_pod(pod, variables.get("POD_NAMESPACE")),
            node=_of_pod(pod, variables.get("NODE_NAME")),
        )
        known = (this_origin(), owner)
        if environ is None:
            _known = known
    owner = known[1]
    if task is not None:
        owner = owner._replace(task=_clean(task))
    if program is not None:
        owner = owner._replace(program=_clean(Path(program).name))
    return owner


def with_task(
    owner: Owner, task: str, task_id: str | None = None, retries: int = 0, worker: str | None = None
) -> Owner:
    """An owner that runs one task of a queue of tasks."""
    return owner._replace(
        task=_clean(task),
        task_id=None if task_id is None else _clean(task_id),
        retries=retries,
        worker=None if worker is None else _clean(worker),
    )


def _pod(environ: Mapping[str, str]) -> str | None:
    if environ.get("POD_NAME"):
        return _clean(environ["POD_NAME"], _LONGEST_POD)
    # Kubernetes sets this variable in every container; HOSTNAME is the pod's name, unless that was too long.
    host = environ.get("HOSTNAME", "")
    if environ.get("KUBERNETES_SERVICE_HOST") and len(host) < _CUT_HOSTNAME:
        return _clean(host) or None
    return None


def _of_pod(pod: str | None, said: str | None) -> str | None:
    """A fact about a pod; None outside of one, where others use the same variables (NODE_NAME by Jenkins)."""
    return None if pod is None or not said else _clean(said, _LONGEST_POD) or None


def _clean(text: str, longest: int = _LONGEST) -> str:
    """Make a text printable, valid Unicode and short: it comes from files and environments, and is shown."""
    return "".join(char for char in text if char.isprintable())[:longest]
