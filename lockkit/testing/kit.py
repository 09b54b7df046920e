"""The kit as pytest items: every scenario and the state machine, for one harness.

``kit(MyHarness)`` in a test file, under any name, or ``pytest --lockkit-kit package.module:MyHarness``.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lockkit.errors import CapabilityError
from lockkit.store.base import LeftOut
from lockkit.store.spi import Refused, Unknown
from lockkit.testing.harness import Harness
from lockkit.testing.shapes import SHAPES, Shape
from lockkit.testing.stage import NotApplicable, Scenario, Stage, registered

if TYPE_CHECKING:
    from _pytest._code.code import TerminalRepr

__all__ = ["Kit", "KitCollector", "kit"]

_OF_THREADS = (
    "-interrupted-",
    "-short-form-elsewhere",
    "-short-form-stack",
    "-short-form-by-hand",
    "L4-cancelled",
    "L7-told",
)
"""Parts of the names of scenarios that are about threads, or about a wait that another thread cancels."""


@dataclass(frozen=True, slots=True)
class Kit:
    """The kit for one harness.

    Attributes:
        harness: The harness; None for the one that ``--lockkit-kit`` names.
        shapes: The kinds of lock with which scenarios run; with ``--lockkit-whole`` all kinds.
    """

    harness: type[Harness] | None
    shapes: Sequence[Shape] = SHAPES


def kit(harness: type[Harness], shapes: Sequence[Shape] = SHAPES) -> Kit:
    """The kit for a harness. Assign the result to a name, any name, in a test file.

    Args:
        harness: The store.
        shapes: The kinds of lock with which scenarios run; all with ``--lockkit-whole``. Give fewer only
            for a store much like one tested with all: one kind alone may pass with a wrong rule.
    """
    return Kit(harness, shapes)


class KitCollector(pytest.Collector):
    """The collector of the kit's tests."""

    harness: type[Harness]
    shapes: Sequence[Shape]

    def collect(self) -> Iterator[pytest.Item]:
        from lockkit.testing.machines import MACHINES

        scenarios = registered()
        known = {each.guarantee for each in scenarios} | {each.name for each in scenarios} | set(MACHINES)
        unknown = self.harness.exclusions.keys() - known
        if unknown:
            raise self.CollectError(f"exclusions that name nothing in the kit: {', '.join(sorted(unknown))}")
        for each in scenarios:
            if each.shaped and each.shape not in self.shapes:
                continue
            item: ScenarioItem = ScenarioItem.from_parent(self, name=each.id)
            item.harness, item.scenario = self.harness, each
            yield item
        for name in MACHINES:
            machine: MachineItem = MachineItem.from_parent(self, name=name)
            machine.harness = self.harness
            yield machine


class KitItem(pytest.Item):
    """One test of the kit, with a scratch folder of its own."""

    harness: type[Harness]

    def excluded(self, *names: str) -> None:
        """Skip the test if the harness excludes one of these."""
        for name in names:
            if name in self.harness.exclusions:
                pytest.skip(f"excluded: {self.harness.exclusions[name]}")

    def scratch(self) -> Path:
        """A fresh folder. Its path is short, because some stores put sockets into it."""
        folder = Path(tempfile.mkdtemp(prefix="lockkit-kit-"))
        self.addfinalizer(lambda: shutil.rmtree(folder, ignore_errors=True))
        return folder

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None
    ) -> str | TerminalRepr:
        """The traceback from the kit on, without pytest's own frames."""
        if not self.config.getoption("fulltrace", default=False):
            excinfo.traceback = excinfo.traceback.cut(path=__file__)
        return super().repr_failure(excinfo, style=style)


class ScenarioItem(KitItem):
    """One scenario for one kind of lock."""

    scenario: Scenario

    def runtest(self) -> None:
        scenario = self.scenario
        self.excluded(scenario.guarantee)
        reason = self.harness.exclusions.get(scenario.name)
        if reason is None:
            self.play()
            return
        try:
            self.play()
        except (AssertionError, CapabilityError, Refused, Unknown):  # the exclusion says that it fails
            pytest.xfail(f"excluded: {reason}")
        raise AssertionError(f"{scenario.name} is excluded ({reason}), but passes: remove the exclusion")

    def play(self) -> None:
        """Run the scenario on a fresh store."""
        scenario = self.scenario
        if self.harness.face == "asyncio" and any(word in scenario.name for word in _OF_THREADS):
            pytest.skip(
                "a scenario of what happens in a thread: signals, `cancel=`, and the frames of `with`"
            )
        harness = self.harness(self.scratch())
        try:
            missing = [need for need in scenario.needs if not getattr(harness.capabilities, need)]
            if missing:
                pytest.skip(f"{harness.name} does not declare {', '.join(missing)}")
            stage = Stage(harness, scenario.shape)
            try:
                scenario.play(stage)
            except (NotApplicable, LeftOut) as reason:
                pytest.skip(str(reason))
            except Refused as refused:
                if not isinstance(refused.error, LeftOut):
                    raise
                pytest.skip(str(refused.error))
            finally:
                stage.close()
        finally:
            harness.close()

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.name


class MachineItem(KitItem):
    """The state machine."""

    def runtest(self) -> None:
        from lockkit.testing.machines import MACHINES

        self.excluded(self.name.partition("-")[0], self.name)
        try:
            MACHINES[self.name](self.harness, self.scratch())
        except ModuleNotFoundError as error:
            if error.name != "hypothesis":
                raise
            pytest.fail('the state machine needs hypothesis: pip install "lockkit[testing]"', pytrace=False)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.name
