"""Cleanup hooks, each on a separate thread with the caller's context variables and a time budget."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence

from lockkit.drivers.lifecycle import ending
from lockkit.facts import CleanupContext, HookReport, Reason
from lockkit.lib.bell import Bell
from lockkit.lib.clock import Clock
from lockkit.lib.namedtuples import NamedTuple
from lockkit.plugins.calling import Implementation, for_devices, hook_of
from lockkit.protocol.hold import RELEASING, Hold
from lockkit.store.log import Log
from lockkit.store.starting import start

__all__ = ["OVERRUNS", "CleanupHook", "CleanupRuns", "Overruns", "context_of", "hooks_of"]

_log = Log("lockkit.cleanup")
_OVERRUNS_ALLOWED = 1
"""Overruns that a plugin's cleanup may have in a process; after one more it is disabled."""

_ON_RELEASE = "on_release"
"""The name under which callbacks of leases are reported."""


class CleanupHook(NamedTuple):
    """One cleanup hook of a plugin, or one callback of a lease.

    Attributes:
        plugin: The name of the plugin; ``on_release`` for a callback.
        call: Called with ``context=``.
        own: The plugin's own function, the same for all its clients; None for a callback.
        for_devices: Whether the hook runs only for locks of devices, like lockkit's own hook for GPUs.
    """

    plugin: str
    call: Callable[..., object]
    own: object = None
    for_devices: bool = False

    @property
    def limited(self) -> bool:
        """Whether the hook may be disabled after overruns: not a callback, nor the cleaning of devices."""
        return self.own is not None and not self.for_devices


def hooks_of(hold: Hold, plugins: Sequence[Implementation]) -> list[CleanupHook]:
    """The hooks of one release: the callbacks of the leases, then the plugins' hooks that apply to this lock.

    Args:
        hold: The hold.
        plugins: The hooks of plugins.
    """
    calls = hold.last_calls if hold.calls_last else ()
    mine = [
        CleanupHook(_ON_RELEASE if number == 1 else f"{_ON_RELEASE} {number}", _last_call(call))
        for number, call in enumerate(calls, 1)
    ]
    others = [_hook(plugin) for plugin in plugins]
    return [*mine, *(hook for hook in others if hold.behind is not None or not hook.for_devices)]


def _last_call(callback: Callable[[CleanupContext], object]) -> Callable[..., object]:
    """A callback that was given to ``lease.on_release``, called as a hook."""

    def call(*, context: CleanupContext) -> object:
        return callback(context)

    return call


def _hook(plugin: Implementation) -> CleanupHook:
    own = hook_of(plugin)
    return CleanupHook(*plugin, own, for_devices(own))


class Overruns:
    """Counts, by plugin, the hooks that overran their budget in this process, for all its clients."""

    def __init__(self) -> None:
        self._mutex = threading.RLock()
        self._counts: dict[object, int] = {}

    def note(self, hook: CleanupHook) -> None:
        """Count one overrun of a hook that may be disabled."""
        if not hook.limited:
            return
        with self._mutex:
            self._counts[hook.own] = self._counts.get(hook.own, 0) + 1
        if self.disabled(hook):
            _log.error(
                "the cleanup plugin %r overran its budget again, and is disabled in this process", hook.plugin
            )

    def disabled(self, hook: CleanupHook) -> bool:
        """Whether the hook is disabled for this process."""
        return self._counts.get(hook.own, 0) > _OVERRUNS_ALLOWED


OVERRUNS = Overruns()
"""The overruns of this process."""


def context_of(hold: Hold, reason: Reason, clock: Clock, end: float) -> CleanupContext:
    """The facts of a release for one hook, whose budget is over at ``end`` of that clock."""
    return CleanupContext(
        name=hold.name,
        claim_id=hold.claim_id,
        fence=hold.fence,
        reason=reason,
        where="wrapper" if hold.where == "wrapper" else "process",
        budget=lambda: max(0.0, end - clock.now()),
        owner=hold.owner,
        devices=hold.behind.devices if hold.behind is not None else (),
        lost=bool(hold.lost_why),
        note=hold.claim.note or {},
    )


class CleanupRuns:
    """The hooks of one release. Each hook is started once, even if several threads ask for it repeatedly."""

    def __init__(
        self,
        hooks: Sequence[CleanupHook],
        overruns: Overruns,
        clock: Clock,
        context: Callable[[float], CleanupContext],
    ) -> None:
        self._hooks = {hook.plugin: hook for hook in hooks}
        self._overruns = overruns
        self._clock = clock
        self._context = context
        self._runs: dict[str, _Run] = {}

    def start(self, plugin: str, budget: float) -> None:
        """Start a hook that may take ``budget`` seconds, unless it has been started or is disabled.

        After an interrupted call, call again: the hook starts only if the first call did not start it.
        """
        run = self._runs.get(plugin)
        if run is None:
            hook = self._hooks[plugin]
            if self._overruns.disabled(hook):
                return
            context = self._context(self._clock.now() + budget)
            if self._runs:
                late = tuple(name for name, one in self._runs.items() if not one.over)
                context = context._replace(overrun=late)
            run = _Run(hook, context, budget, self._clock)
            self._runs[plugin] = run
        run.start()

    def report(self, plugin: str, *, wait: bool) -> HookReport:
        """Report how a hook ended. With ``wait``, wait until the hook ends or its budget is over."""
        run = self._runs.get(plugin)
        if run is None:
            return HookReport(plugin, "SKIPPED", error="disabled after overrunning its budget twice")
        report = run.report(wait=wait)
        if wait and report.outcome == "RUNNING":
            self._overruns.note(self._hooks[plugin])
        return report

    def left(self, plugin: str) -> float:
        """Seconds for which a hook may still be waited for; 0 once it is over."""
        run = self._runs.get(plugin)
        return 0.0 if run is None else run.left()

    def when_over(self, plugin: str, call: Callable[[], None]) -> None:
        """Call something, from any thread, when a hook is over; at once if it is."""
        run = self._runs.get(plugin)
        if run is None:
            call()
        else:
            run.when_over(call)


class _Run:
    """One hook, to be run once.

    The threads share only bare locks and plain attributes: a signal handler that raises in the waiting thread
    cannot leave those half changed (see :class:`~lockkit.lib.bell.Bell`).
    """

    def __init__(self, hook: CleanupHook, context: CleanupContext, budget: float, clock: Clock) -> None:
        self._plugin, self._call = hook.plugin, hook.call
        self._context = context
        self._clock = clock
        self._began = clock.now()
        self._end = self._began + budget
        self._took = 0.0
        self._error: BaseException | None = None
        self._begun = threading.Lock()  # taken for good by the one thread that runs the hook
        self._finished = False
        self._bell = Bell()
        self._variables = contextvars.copy_context()
        self._variables.run(RELEASING.set, context.claim_id)

    def start(self) -> None:
        if self._begun.locked():
            return
        try:
            start(self._run, f"lockkit-cleanup-{self._plugin}")
        except RuntimeError as error:
            if ending():
                # At the end of the interpreter no thread can be started, so run the hook in this one.
                self._run()
            elif self._begun.acquire(blocking=False):
                self._error = RuntimeError(f"not run, because no thread can be started for it: {error}")
                self._finished = True

    @property
    def over(self) -> bool:
        return self._finished

    def left(self) -> float:
        return 0.0 if self._finished else max(self._end - self._clock.now(), 0.0)

    def when_over(self, call: Callable[[], None]) -> None:
        self._bell.alarm = call
        if self._finished:
            call()

    def report(self, *, wait: bool) -> HookReport:
        while wait and not self._finished:
            left = self._end - self._clock.now()
            if left <= 0:
                break
            self._bell.wait(left)
        if not self._finished:
            return HookReport(self._plugin, "RUNNING", self._clock.now() - self._began, "still running")
        if self._error is not None:
            error = f"{type(self._error).__name__}: {self._error}"
            return HookReport(self._plugin, "FAILED", self._took, error)
        return HookReport(self._plugin, "DONE", self._took)

    def _run(self) -> None:
        if not self._begun.acquire(blocking=False):
            return
        try:
            self._variables.run(self._call, context=self._context)
        except BaseException as error:
            self._error = error
            _log.warning("the cleanup hook %r failed", self._plugin, exc_info=error)
        finally:
            try:
                self._took = self._clock.now() - self._began
            finally:
                self._finished = True
                self._bell.ring()
