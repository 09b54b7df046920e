"""The smallest store on lockkit.store.documents: compare-and-swap registers, and a server's own clock."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Hashable, Iterable
from pathlib import Path

from lockkit.facts import Capabilities
from lockkit.hooks import hookimpl
from lockkit.store.document import Stored
from lockkit.store.documents import DocumentBackend
from lockkit.store.spi import BackendSpec, OpenOptions
from lockkit.testing.clocks import ShiftedClock
from lockkit.testing.harness import Harness, StoredClaim
from lockkit.values.names import claim_id

__all__ = ["RegisterHarness", "Registers"]

CAPABILITIES = Capabilities(scope="process")


class Registers:
    """The server: one register for each name. A forked child has a server of its own, which is empty."""

    def __init__(self, clock: ShiftedClock) -> None:
        self.clock = clock
        self._mutex = threading.Lock()
        self._cells: dict[int, dict[str, tuple[str, int]]] = {}

    @property
    def cells(self) -> dict[str, tuple[str, int]]:
        """The registers of this process: text and version."""
        return self._cells.setdefault(os.getpid(), {})

    def swap(self, name: str, text: str, version: Hashable) -> bool:
        """Write a register if it has this version."""
        with self._mutex:
            if self.cells.get(name, ("", 0))[1] != version:
                return False
            self.cells[name] = text, int(str(version)) + 1
            return True


class RegisterBackend(DocumentBackend):
    """The store."""

    capabilities = CAPABILITIES

    def __init__(self, server: Registers, options: OpenOptions) -> None:
        super().__init__(options, "the registers")
        self._server = server
        self._prefix = f"{options.namespace}/"

    def read(self, name: str, end: float) -> Stored:  # noqa: ARG002
        text, version = self._server.cells.get(self._prefix + name, (None, 0))
        return Stored(text, version, self._server.clock.wall())

    def write(self, name: str, text: str, version: Hashable, end: float) -> bool:  # noqa: ARG002
        return self._server.swap(self._prefix + name, text, version)

    def read_all(self, end: float) -> Iterable[Stored]:  # noqa: ARG002
        now = self._server.clock.wall()
        return [
            Stored(text, version, now)
            for name, (text, version) in list(self._server.cells.items())
            if name.startswith(self._prefix)
        ]


class _Plugin:
    def __init__(self, server: Registers) -> None:
        self._server = server

    @hookimpl
    def lockkit_backends(self) -> list[BackendSpec]:
        """Offer ``register:``."""

        def opened(url: str, options: OpenOptions) -> RegisterBackend:  # noqa: ARG001
            return RegisterBackend(self._server, options)

        return [BackendSpec("register", ("register",), opened, "compare-and-swap registers", CAPABILITIES)]


class RegisterHarness(Harness):
    """Registers of their own, read without the backend."""

    name = "register"
    virtual = True
    ttl = 30.0
    short_ttl = 0.4
    examples = (60, 30)
    url = "register://here"

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.clock = self._shifted = ShiftedClock()
        self._epoch = self.clock.wall() - self.clock.now()
        self._server = Registers(self._shifted)
        self.plugins = [_Plugin(self._server)]

    def advance(self, seconds: float) -> None:
        self._shifted.advance(seconds)

    def freeze(self) -> None:
        self._shifted.freeze()
        self._epoch = self.clock.wall() - self.clock.now()

    def stored(self, name: str) -> list[StoredClaim]:
        text, _ = self._server.cells.get(f"default/{name}", ("{}", 0))
        return [
            StoredClaim(
                claim_id(row["token"]), row["fence"], row["state"], row["weight"], row["capacity"],
                row["deadline"] - self._epoch, row["evicted"],
            )
            for row in json.loads(text).get("rows", ())
        ]  # fmt: skip
