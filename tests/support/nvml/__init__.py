"""A host with imaginary NVIDIA cards: NVIDIA's Python module on a driver library steered by a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["ACTOR", "Host", "Looker", "Requester", "build"]

SOURCE = Path(__file__).parent / "libnvidia-ml.c"
ACTOR = Path(__file__).parent / "actor.py"
REQUESTER = Path(__file__).parent / "requester.py"
CARD: Mapping[str, object] = {
    "name": "NVIDIA H100 80GB HBM3",
    "total": 80 << 30,
    "reserved": 600 << 20,
    "used": 0,
    "gpu": 0,
    "mig": 0,
    "field 230": 0,
    "field 4": 0,
    "field 144": 0,
    "field 145": 0,
}
"""A card of a new driver that is idle and well."""


def build(folder: Path, *, without: Sequence[str] = ()) -> Path:
    """Compile the library into a folder, without some calls, as an old driver. Needs a C compiler."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "libnvidia-ml.so.1"
    script = folder / "exports"
    hidden = "".join(f" {name};" for name in without)
    script.write_text(f"{{ global: nvml*; local:{hidden} *; }};\n")
    subprocess.run(
        ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,--version-script={script}",
         "-Wl,-soname,libnvidia-ml.so.1", "-o", str(library), str(SOURCE)],
        check=True,
    )  # fmt: skip
    return folder


class Host:
    """The cards of a host, and the programs that look at them.

    Args:
        folder: A folder for the state and the log.
        library: The folder of the library; None for a host without a driver.
    """

    def __init__(self, folder: Path, library: Path | None) -> None:
        self.library = library
        self._folder = folder
        self._state, self._log = folder / "state", folder / "log"
        self._read = 0
        self._rows: dict[str, list[object]] = {"log": [self._log]}
        self.write()

    def card(self, index: int | str, **values: object) -> str:
        """Add a card (or with "0.1" a slice) that is idle and well, but for ``values``. Returns its UUID."""
        uuid = f"{'MIG' if '.' in str(index) else 'GPU'}-{index}"
        for key, value in {**CARD, "uuid": uuid, **values}.items():
            self.set(index, key.replace("_", " "), value)
        self._rows["count"] = [
            len({row.split()[1].partition(".")[0] for row in self._rows if row[:5] == "card "})
        ]
        self.write()
        return uuid

    def set(self, index: int | str, key: str, *values: object) -> None:
        """Give a card one value, or several rows of one key; none removes the key."""
        self.row(f"card {index} {key}", *(value for value in values if value is not None))

    def row(self, key: str, *values: object) -> None:
        """Write some rows that are no card's: ``init 9``."""
        self._rows.pop(key, None)
        if values:
            self._rows[key] = list(values)
        self.write()

    def write(self) -> None:
        """Write the state, at once."""
        text = "".join(f"{key} {value}\n" for key, values in self._rows.items() for value in values)
        new = self._folder / "state.new"
        new.write_text(text)
        new.replace(self._state)

    def calls(self) -> list[str]:
        """The library's calls since the last time. Programs may append, so the file stays."""
        if not self._log.exists():
            return []
        with self._log.open("rb") as file:
            file.seek(self._read)
            whole, end, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(end)
        return whole.decode().splitlines()

    def environ(self, **more: str) -> dict[str, str]:
        """The environment of a program on this host."""
        library = "/nowhere" if self.library is None else str(self.library)
        return {**os.environ, "LD_LIBRARY_PATH": library, "NVML_STATE": str(self._state), **more}

    def requester(self, **environ: str) -> Requester:
        """A program that asks for cards when it is told to. All those of a host have one store."""
        return Requester(self.environ(LOCKKIT_STATE_DIR=str(self._folder), **environ))

    def looker(self, **environ: str) -> Looker:
        """A program that looks at the cards when it is told to."""
        return Looker(self.environ(**environ))


class Looker:
    """A process that calls one provider's methods. DevicesUnavailable is ``{"unavailable": text}``."""

    script = ACTOR

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(self.script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def do(self, *words: object) -> Any:
        """Perform one command of the actor, and return its answer."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def devices(self) -> list[dict[str, Any]]:
        """The devices of one snapshot, as dicts of their fields."""
        answer = self.do("snapshot")
        assert isinstance(answer, list), answer
        return answer


class Requester(Looker):
    """A process with the host's pool. Errors: ``{"error": type, "told": text, "hint": text}``."""

    script = REQUESTER
