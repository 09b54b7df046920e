"""Cleanup hooks, each on a thread of its own with the caller's context variables and a time budget."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Sequence

from lockkit.clock import Clock
from lockkit.facts import CleanupContext, HookReport
from lockkit.lease import RELEASING
from lockkit.plugins.calling import function_of

__all__ = ["OVERRUNS", "CleanupHook", "CleanupRuns", "Overruns"]

_log = logging.getLogger("lockkit.cleanup")
_OVERRUNS_ALLOWED = 1
"""After one more overrun than this a plugin's cleanup is disabled for the process."""

CleanupHook = tuple[str, Callable[..., object]]
"""Plugin name and its ``lockkit_cleanup``, called with ``context=``."""


class Overruns:
    """Which hooks overran their budget, told apart by their function: whatever client ran them."""

    def __init__(self) -> None:
        self._mutex = threading.RLock()
        self._counts: dict[object, int] = {}

    def note(self, hook: CleanupHook) -> None:
        """Count one overrun."""
        function = function_of(hook)
        with self._mutex:
            self._counts[function] = self._counts.get(function, 0) + 1
        if self.disabled(hook):
            _log.error("cleanup plugin %r overran its budget again: disabled for this process", hook[0])

    def disabled(self, hook: CleanupHook) -> bool:
        """Whether it is not run any more."""
        return self._counts.get(function_of(hook), 0) > _OVERRUNS_ALLOWED


OVERRUNS = Overruns()
"""Those of this process."""


class CleanupRuns:
    """The hooks of one release. A hook is started once, however often :meth:`run` is called for it.

    Attributes:
        interrupts: What interrupted the waiting for hooks; raised when the release is done.
    """

    def __init__(
        self,
        hooks: Sequence[CleanupHook],
        overruns: Overruns,
        clock: Clock,
        context: Callable[[float], CleanupContext],
    ) -> None:
        self._hooks = dict(hooks)
        self._overruns = overruns
        self._clock = clock
        self._context = context
        self._runs: dict[str, _Run] = {}
        self.interrupts: list[BaseException] = []

    def run(self, plugin: str, budget: float) -> HookReport:
        """Run a hook for at most ``budget`` seconds.

        One Ctrl-C during the wait is kept for later: the hook goes on to its budget. A second one ends the waiting.
        """
        hook = (plugin, self._hooks[plugin])
        if self._overruns.disabled(hook):
            return HookReport(plugin, "SKIPPED", error="disabled after overrunning its budget twice")
        run = self._runs.get(plugin)
        if run is None:
            run = self._runs[plugin] = _Run(hook, self._context(self._clock.now() + budget), self._clock)
        try:
            report = run.wait(budget)
        except BaseException as interrupt:
            self.interrupts.append(interrupt)
            report = run.wait(budget)
        if report.outcome == "RUNNING":
            self._overruns.note(hook)
        return report


class _Run:
    """One started hook."""

    def __init__(self, hook: CleanupHook, context: CleanupContext, clock: Clock) -> None:
        self._plugin, self._call = hook
        self._context = context
        self._clock = clock
        self._began = clock.now()
        self._took = 0.0
        self._error: BaseException | None = None
        self._done = threading.Event()
        self._variables = contextvars.copy_context()
        self._variables.run(RELEASING.set, context.claim_id)
        self._thread = threading.Thread(target=self._run, name=f"lockkit-cleanup-{self._plugin}", daemon=True)

    def wait(self, budget: float) -> HookReport:
        if self._thread.ident is None:
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is shutting down: no new threads, so without a time limit
                self._run()
        if not self._done.wait(max(0.0, self._began + budget - self._clock.now())):
            return HookReport(self._plugin, "RUNNING", self._clock.now() - self._began, "still running")
        if self._error is not None:
            return HookReport(
                self._plugin, "FAILED", self._took, f"{type(self._error).__name__}: {self._error}"
            )
        return HookReport(self._plugin, "DONE", self._took)

    def _run(self) -> None:
        try:
            self._variables.run(self._call, context=self._context)
        except BaseException as error:
            self._error = error
            _log.warning("cleanup plugin %r failed", self._plugin, exc_info=error)
        finally:
            self._took = self._clock.now() - self._began
            self._done.set()
