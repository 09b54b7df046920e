"""``--report FILE``: one JSON document about a ``run``, even if the command was not started."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from lockkit.cli import exits, output

if TYPE_CHECKING:
    from lockkit.cli.supervise import Ended
    from lockkit.cli.taking import Taken
    from lockkit.facts import ReleaseRequest
    from lockkit.sync.client import Client
    from lockkit.sync.lease import Lease

__all__ = ["RunReport"]


class RunReport:
    """A collector of the facts about a run. :meth:`close` replaces the file as a whole, or not at all.

    Without ``path`` nothing is collected or written. ``tell`` gets a sentence if the file cannot be written.
    """

    def __init__(self, path: str | None, name: str, program: str, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._path = None if path is None else Path(path)
        self._temporary: Path | None = None
        self._facts: dict[str, Any] = {
            "name": name,
            "program": Path(program).name,
            "started": time.time(),
            "waits": 0,
            "acquired": None,
            "leases": (),
            "release_requests": [],
        }
        """The fields of the document as far as they are known; the others are null."""

    def open(self) -> None:
        """Check that the file can be written, before the wait for the lock begins.

        Raises:
            CommandFailed: The file cannot be written.
        """
        if self._path is None:
            return
        try:
            if self._path.exists() and not self._path.is_file():
                return  # /dev/stderr or a FIFO, which is written without a temporary file
            self._temporary = Path(f"{self._path}.{os.getpid()}.tmp")
            self._temporary.touch()
        except OSError as error:
            path, self._path = self._path, None  # so that close() does not report the same error
            raise exits.CommandFailed(
                f"cannot write the report {path}: {error.strerror}", code=exits.USAGE, kind="report"
            ) from error

    def store(self, client: Client) -> None:
        if self._path is not None:
            from lockkit.views.making import store

            self._facts["store"] = store(client)

    def named(self, name: str) -> None:
        """Record the name of what is held, if only the configuration has it."""
        self._facts["name"] = name

    def waited(self, seconds: float, waits: int) -> None:
        self._facts |= {"waited": seconds, "waits": waits}

    def acquired(self, taken: Taken, leases: Sequence[Lease]) -> None:
        only = leases[0] if len(leases) == 1 else None
        self._facts |= {
            "claim_id": only and only.claim_id,
            "fence": only and only.fence,
            "acquired": taken.since,
        }
        self._each(leases)

    def _each(self, leases: Sequence[Lease]) -> None:
        """Record each lock with its release, as far as there is one."""
        if self._path is None:
            return
        from lockkit.cli.released import run_leases

        self._facts["leases"] = run_leases(leases)

    def ended(self, ended: Ended) -> None:
        self._facts |= {
            "command_exit_code": ended.code,
            "command_signal": ended.signal,
            "lost": ended.lost,
        }

    def lost(self, why: str) -> None:
        """Record that the lock was not held until the command's end, which may be known only afterwards."""
        self._facts["lost"] = why

    def evicted(self, by: dict[str, str]) -> None:
        """Record who evicted the holder, and why."""
        if self._path is not None:
            from lockkit.cli.parts import Evicted

            self._facts["evicted"] = Evicted(by=by["by"], reason=by["reason"])

    def asked(self, name: str, request: ReleaseRequest) -> None:
        """Record a request to release a lock."""
        if self._path is not None:
            from lockkit.views import parts
            from lockkit.views.making import made_of

            self._facts["release_requests"].append(made_of(parts.ReleaseRequest, request, name=name))

    def released(self, leases: Sequence[Lease]) -> None:
        acquired = self._facts["acquired"]
        if acquired is not None:
            self._facts["held"] = max(time.time() - acquired, 0.0)
        if len(leases) == 1:
            self._facts["release"] = leases[0].report
        self._each(leases)

    def failed(self, error: BaseException, code: int) -> None:
        if self._path is not None:
            self._facts["error"] = exits.describe(error, code)

    def close(self, code: int) -> None:
        """Write the file."""
        if self._path is None:
            return
        from lockkit.cli.documents import Run
        from lockkit.views.making import made_of

        unknown = dict.fromkeys(Run.__struct_fields__)
        document = made_of(Run, SimpleNamespace(**unknown), exit_code=code, **self._facts)
        target = self._temporary or self._path
        try:
            with target.open("w", encoding="utf-8") as file:
                output.write_json(document, stream=file)
            if self._temporary is not None:
                self._temporary.replace(self._path)
        except OSError as error:
            self._tell(f"cannot write the report {self._path}: {error.strerror}")
