"""Closing a client: all its holds are released concurrently, each through all layers, within one budget."""

from __future__ import annotations

import contextvars
from itertools import count
from math import ceil
from typing import TYPE_CHECKING

from lockkit.facts import Event, Reason
from lockkit.lib.bell import Bell
from lockkit.lib.takers import outlives_exit
from lockkit.protocol.effects import Orphan
from lockkit.protocol.hold import Hold
from lockkit.protocol.renewing import drop_of
from lockkit.store.log import Log
from lockkit.store.starting import start

if TYPE_CHECKING:
    from lockkit.drivers.threads import Driver

__all__ = ["Closing"]

_log = Log("lockkit")
_CREW = 32
"""The threads of the crew: how many holds are released at the same time."""
_LEAST = 0.25
"""Minimum seconds for each release's requests if there are more holds than threads in the crew."""
_GRACE = 0.2
"""Seconds beyond its budget after which a release is not waited for any longer."""
_TICK = 0.005
"""Seconds between two looks at releases that other threads have under way."""
_SELDOM = 10
"""Every so many looks, search for releases that a signal interrupted and no thread resumes."""


class Closing:
    """The releases of a client that closes.

    Args:
        budget: Seconds for the requests of all releases together; cleanup hooks have their own budgets.
        ends: Whether the process ends. Daemon threads may then run until the interpreter is gone, so the
            holds under which they may work are kept, and end with the process.
    """

    def __init__(self, driver: Driver, reason: Reason, budget: float, *, ends: bool = False) -> None:
        self._driver = driver
        self._reason: Reason = reason
        self._budget = budget
        self._ends = ends
        self._context = contextvars.copy_context()
        self._todo: list[Hold] = []
        self._dropped: set[Hold] = set()
        self._began = 0.0
        self._released = Bell()

    def run(self) -> None:
        """Cancel waits, release all holds but those kept, try orphans once, flush events; stop renewing."""
        driver = self._driver
        try:
            self._release_all()
            driver.orphans.flush(max(0.1, self._left()))
        finally:
            if not driver.ending.kept:
                driver.heartbeat.close()
            if driver.dispatcher.wants("closed"):
                driver.dispatcher.tell(Event("closed", ""))
            driver.dispatcher.flush(0.2)

    def _release_all(self) -> None:
        driver = self._driver
        self._began = self._working_time()
        driver.ending.wake_all()
        # Include interrupted releases, whose holds may no longer be members. A running release continues.
        holds = list({**dict.fromkeys(driver.beats.holds()), **driver.beats.releasing})
        if self._ends:
            kept = driver.ending.kept = [
                one for one in holds if one.standing and one.key and outlives_exit(one.key())
            ]
            holds = [hold for hold in holds if hold not in kept]
        for hold in holds:  # a drop just before the close, which the deadline thread may not have seen
            if hold.collected and not hold.closing and hold.report_drop():
                driver.dispatcher.tell(drop_of(hold))
        now = driver.clock.now()
        self._todo = [hold for hold in holds if hold.take_over() or not hold.reserved(now)]
        taken = set(self._todo)
        crew = min(len(self._todo), _CREW)
        if not all(self._start() for _ in range(crew)):
            self._work()  # no further thread can be started, so this one joins the crew
        looks = count(1)
        while self._unfinished(holds) or self._unsettled():
            if self._left() <= -_GRACE and not driver.releases.cleaning.moving:
                break
            if next(looks) % _SELDOM == 0:
                driver.tidy()
                for hold in self._unfinished(holds):
                    # a signal has interrupted its release meanwhile, or its loop has stopped
                    if hold not in taken and not hold.reserved(driver.clock.now()):
                        taken.add(hold)
                        self._todo.append(hold)
                        if not self._start():
                            self._work()
            driver.ending.wake_all()
            self._released.wait(_TICK)
        for hold in self._unfinished(holds):
            self._drop(hold)

    def _left(self) -> float:
        return self._budget - (self._working_time() - self._began)

    def _working_time(self) -> float:
        """A clock that stops while cleanup hooks run."""
        return self._driver.clock.now() - self._driver.releases.cleaning.total()

    def _unsettled(self) -> bool:
        """Whether an acquire runs, or has left claims that are not on the orphan list yet."""
        return not all(attempt.over and not attempt.sent for attempt in list(self._driver.under_way))

    def _unfinished(self, holds: list[Hold]) -> list[Hold]:
        """The holds whose release is under way, in the crew or in a thread of the user."""
        return [hold for hold in holds if hold.report is None and hold not in self._dropped]

    def _start(self) -> bool:
        try:
            start(self._work, "lockkit-close-release")
        except RuntimeError:
            return False
        return True

    def _work(self) -> None:
        """Release one hold after another. Each thread of the crew runs this."""
        while True:
            try:
                hold = self._todo.pop()
            except IndexError:
                return
            try:
                # Cleanup hooks see the context variables of the thread that called close().
                self._context.copy().run(self._driver.releases.release, hold, self._reason, self._share())
            except BaseException:
                _log.exception("releasing %r failed; it is removed in the background", hold.name)
                self._drop(hold)
            self._released.ring()

    def _share(self) -> float:
        """Seconds for the requests of the next release; 0 if the time is up."""
        left = self._left()
        if left <= 0.0:
            return 0.0
        fair = left / ceil((len(self._todo) + 1) / _CREW)
        return min(left, max(fair, _LEAST), self._driver.request_timeout)

    def _drop(self, hold: Hold) -> None:
        """Give up a release that does not return: stop renewing, and leave the claim to the background."""
        driver = self._driver
        how = hold.end()
        driver.beats.withdraw(hold.claim.token)
        driver.orphans.add(Orphan(hold.claim, abandon=True, how=how))
        self._dropped.add(hold)
        driver.dispatcher.tell(Event("abandoned", hold.name, hold.claim_id, hold.fence, self._reason))
