"""Containers: whether this process runs in one, and how far the locks of a store reach from there.

An embedded store reaches as far as the folder of its file: nobody else sees a container's own layer. The
host's kernel distinguishes users, so a container that maps user numbers has other users than it seems.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from lockkit.facts import Finding, Scope
from lockkit.lib.namedtuples import NamedTuple

__all__ = ["Container", "detect", "finding"]

_OWN = ("overlay", "aufs", "fuse.fuse-overlayfs", "vfs")
"""The types of the file system that engines give a container as its own root."""
_ENGINES = r"docker|kubepods|containerd|libpod|podman|lxc|machine\.slice|crio"


class Container(NamedTuple):
    """The container of a process, as the process sees it."""

    engine: str
    """The name of the container engine."""
    mapped: bool = False
    """Whether user numbers differ from those of the host (user_namespaces(7))."""
    mount: str = ""
    """The mount point of the store's folder."""
    kind: str = ""
    """The type of the file system there."""

    @property
    def own(self) -> bool:
        """Whether the folder lies in the container itself, where no other container sees it."""
        return self.mount == "/" or self.kind in _OWN


def detect(folder: Path | None, environ: Mapping[str, str], *, root: Path = Path("/")) -> Container | None:
    """The container of this process; None if there is no sign of one.

    Args:
        folder: The folder of an embedded store.
        environ: The environment, in which engines leave a mark.
        root: The folder under which the marks of engines and ``/proc`` are looked for.
    """
    engine = _engine(environ, root)
    if engine is None:
        return None
    mapped = " ".join(_text(root / "proc/self/uid_map").split()) not in ("", "0 0 4294967295")
    mount, kind = ("", "") if folder is None else _mount(folder, root)
    return Container(engine, mapped, mount, kind)


def _engine(environ: Mapping[str, str], root: Path) -> str | None:
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return "Kubernetes"
    if (root / ".dockerenv").exists():
        return "Docker"
    if (root / "run/.containerenv").exists():
        return "Podman"
    if environ.get("container"):
        return environ["container"]
    found = re.search(_ENGINES, _text(root / "proc/1/cgroup"))
    return found[0] if found else None


def _mount(folder: Path, root: Path) -> tuple[str, str]:
    """The mount point of a folder, and the type of the file system there (proc_pid_mountinfo(5))."""
    best = ("", "")
    path = os.path.realpath(folder)
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, after.split(" ", 1)[0])
    return best


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def finding(seen: Container, scope: Scope, folder: Path | None, user: str) -> Finding:
    """Say how far the locks of a store reach from a container, and what reaches further.

    Args:
        seen: The container.
        scope: The scope of the store, as it is without containers.
        folder: The folder of the store's file; None for another store.
        user: This user, by number.
    """
    where = f"this process runs in a container ({seen.engine})"
    if scope == "fleet":
        return Finding(
            "container", "ok", f"{where}; a server keeps apart the processes of all containers and hosts"
        )
    if scope == "process" or folder is None:
        reach = (
            "this store reaches no other process"
            if scope == "process"
            else "how far this store reaches from it cannot be told"
        )
        return Finding(
            "container", "warning", f"{where}, and {reach}", "use a server; see: lockkit docs containers"
        )
    users = "users of the folder's group share it." if scope == "host" else f"user {user} shares it."
    if seen.mapped:
        users += " The host has other numbers for the users of this container."
    if seen.own:
        return Finding(
            "container",
            "warning",
            f"{where}. The store lies in the container's own layer ({folder}), so its locks reach no other "
            f"container and not the host. Only {users}",
            "mount a folder of the host into all containers that share locks, for example docker run "
            "-v /var/lib/lockkit:/var/lib/lockkit --group-add GID -e LOCKKIT_URL="
            "sqlite:/var/lib/lockkit/host.db, or use a server; see: lockkit docs containers",
        )
    return Finding(
        "container",
        "ok",
        f"{where}. The store lies on a mount, {seen.mount} ({seen.kind}, for {folder}), so its locks keep "
        f"apart all processes of this host that have the same folder. Only {users}",
        "see: lockkit docs containers",
    )
