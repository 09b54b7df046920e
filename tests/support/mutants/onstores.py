"""Mutants before real stores: the conformance kit must notice them too."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lockkit.facts import Capabilities
from lockkit.hooks import hookimpl
from lockkit.store.spi import Backend, BackendSpec, OpenOptions
from lockkit.sync.client import Client
from lockkit.testing.harness import Harness, StoredClaim
from lockkit.testing.stage import NotApplicable, Scenario, Stage, Work, registered
from support.mutants.mutant import Mutant, patched

__all__ = ["fails", "impatient", "mutated", "scenarios"]

_LONG_ENOUGH = 8.0


def mutated(base: type[Harness], mutant: Mutant) -> type[Harness]:
    """A harness for ``base``'s store with the mutant's layer before it, if it has one."""
    if mutant.wrap is None:
        return base
    wrap = mutant.wrap

    class Mutated(Harness):
        """Every backend that a client or a scenario opens has the mistake in it."""

        name = f"{base.name} with {mutant.name}"
        virtual = base.virtual
        ttl = base.ttl
        short_ttl = base.short_ttl
        grain = base.grain
        examples = base.examples

        def __init__(self, scratch: Path) -> None:
            super().__init__(scratch)
            self._inner = base(scratch)
            self.clock = self._inner.clock
            self.plugins = [*self._inner.plugins, self]

        @hookimpl
        def lockkit_backends(self) -> list[BackendSpec]:
            """Offer the store under a scheme of its own."""
            return [BackendSpec("mutant", ("mutant",), self._open, mutant.what, self.capabilities)]

        @property
        def url(self) -> str:
            return "mutant://store"

        @property
        def capabilities(self) -> Capabilities:
            return self._inner.capabilities

        def _open(self, url: str, options: OpenOptions) -> Backend:  # noqa: ARG002
            return self.open(options)

        def open(self, options: OpenOptions | None = None) -> Backend:
            backend: Backend = wrap(self._inner.open(options), self.clock)
            return backend

        def stored(self, name: str) -> list[StoredClaim]:
            return self._inner.stored(name)

        def advance(self, seconds: float) -> None:
            self._inner.advance(seconds)

        def outlast(self, seconds: float) -> None:
            self._inner.outlast(seconds)

        def crash(self, client: Client) -> None:
            self._inner.crash(client)

        def residue(self) -> Mapping[str, int]:
            return self._inner.residue()

        def close(self) -> None:
            self._inner.close()

    return Mutated


def scenarios(name: str) -> list[Scenario]:
    """The scenarios of the kit that bear a name, for each shape of lock."""
    found = [each for each in registered() if each.name == name]
    assert found, f"the kit has no scenario {name}"
    return found


@contextmanager
def impatient() -> Iterator[None]:
    """Let scenarios wait for 8 seconds instead of 30: most mistakes show as something that never comes.

    Not for scenarios that should hold. On a busy machine they would fail.
    """
    registered()  # loads all scenarios
    modules = [
        module for name, module in [*sys.modules.items()] if name.startswith("lockkit.testing.scenarios.")
    ]
    with ExitStack() as stack:
        for call in (Stage.until, Work.result, Work.error):
            stack.enter_context(patched(call, __defaults__=(_LONG_ENOUGH,)))
        for module in modules:
            if hasattr(module, "PATIENCE"):
                stack.enter_context(patched(module, PATIENCE=_LONG_ENOUGH))
        yield


def fails(scenario: Scenario, harness: type[Harness], scratch: Path) -> BaseException | None:
    """Play a scenario; what it failed with, or None if it held (or makes no sense there)."""
    stage: Any = None
    played = harness(scratch)
    try:
        stage = Stage(played, scenario.shape)
        scenario.play(stage)
    except NotApplicable:
        return None
    except Exception as error:  # whatever a broken store leads to
        return error
    finally:
        if stage is not None:
            stage.close()
        played.close()
    return None
