"""The state machines of the kit, by test id. Hypothesis is imported when one runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lockkit.testing.harness import Harness

__all__ = ["MACHINES"]


MACHINES: Mapping[str, Callable[[type[Harness], Path], None]] = {}
