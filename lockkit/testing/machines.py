"""The state machines of the kit, by test id. Hypothesis is imported only when a machine runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lockkit.testing.harness import Harness

__all__ = ["MACHINES"]


def _queue(harness: type[Harness], scratch: Path) -> None:
    from lockkit.testing.machine_run import run

    run(harness, scratch)


MACHINES: Mapping[str, Callable[[type[Harness], Path], None]] = {"S1-S2-S4-S5-S7-S11-L4-machine": _queue}
