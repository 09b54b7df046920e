"""Runs of the state machine for a harness."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from hypothesis import settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from lockkit.testing.harness import Harness
from lockkit.testing.machine import Machine

__all__ = ["run"]

DEFAULT_EXAMPLES = 100
_ATTEMPTS = 5
"""Attempts of a run that does not replay, on a store with real time."""


class _Recorded(Machine):
    """The machine, with its first failure kept.

    Hypothesis replays a failed run. If the replay passes, or fails differently, Hypothesis reports that in
    place of the guarantee: on a store with real time, or with a mistake that depends on threads.
    """

    wrong: list[AssertionError]

    def teardown(self) -> None:
        error = sys.exc_info()[1]  # what the run ends with
        if isinstance(error, AssertionError) and not self.wrong:
            self.wrong.append(error)
        super().teardown()


def run(harness: type[Harness], scratch: Path) -> None:
    """Run the machine. The harness, or a Hypothesis profile, gives the number of examples and steps."""
    wrong: list[AssertionError] = []
    machine = type("Machine", (_Recorded,), {"harness_class": harness, "scratch": scratch, "wrong": wrong})
    profile = settings()
    examples, steps = harness.examples
    if profile.max_examples != DEFAULT_EXAMPLES:
        examples, steps = profile.max_examples, profile.stateful_step_count
    log = logging.getLogger("lockkit")
    level = log.level
    log.setLevel(logging.CRITICAL)  # thousands of evictions are no news here
    chosen = settings(
        profile,
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        report_multiple_bugs=False,  # Hypothesis would take minutes to shrink each one
    )
    try:
        for left in reversed(range(_ATTEMPTS)):
            try:
                run_state_machine_as_test(machine, settings=chosen)
                return
            except Flaky as error:
                if wrong:
                    raise wrong[0] from error
                if harness.virtual or not left or isinstance(error, ExceptionGroup):  # a group of failures
                    raise
    finally:
        log.setLevel(level)
