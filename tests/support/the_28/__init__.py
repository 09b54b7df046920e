"""The stage of tests/scenarios/test_the_28.py: stores, tasks with faults and cables, workers, the audit."""

from __future__ import annotations

from support.the_28.stage import Stage, Task
from support.the_28.stores import Store, opened

__all__ = ["Stage", "Store", "Task", "opened"]
