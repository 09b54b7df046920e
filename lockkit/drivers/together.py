"""How an acquisition of several locks waits: the waits of each attempt, and one wake for all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from lockkit.drivers.lifecycle import listening, wait_no_longer_than_the_interpreter
from lockkit.drivers.waits import LONGEST_WAIT, LOOK, ThreadWaits, Waits, cancelled
from lockkit.errors import AcquireCancelled, BackendUnavailable
from lockkit.facts import Waiting
from lockkit.lib.bell import Bell
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.effects import CHOICES, Choose, Effect, Judge, Keep, WaitForAny, WaitForWake
from lockkit.protocol.hold import Hold
from lockkit.protocol.together import Together
from lockkit.store.spi import Refused

if TYPE_CHECKING:
    from lockkit.drivers.threads import Driver

__all__ = ["ThreadTogether", "WaitsTogether"]


class WaitsTogether:
    """The waits of an acquisition of several locks. The drivers add how to wait for a wake."""

    def __init__(self, driver: Driver, together: Together) -> None:
        self._driver = driver
        self._together = together
        self._on_wait = together.call.on_wait
        self._refused: Mapping[str, str] | None = None
        self._waits: dict[int, Waits] = {}
        self._last: dict[int, object] = {}
        self._woken: set[int] = set()
        self._alarmed: list[Hold] = []

    def perform(self, effect: Effect) -> object:
        """Perform an effect of the acquisition that is no request and never blocks."""
        if isinstance(effect, Keep):
            self._driver.beats.hold(effect.hold)
            return None
        return self._driver.perform(effect)

    def ring(self) -> None:
        """Wake the acquisition. Never blocks. May be called from anywhere, finalizers included."""
        raise NotImplementedError

    def _new_waits(self, attempt: Attempt, ring: Callable[[], None]) -> Waits:
        """The waits of one attempt, which call ``ring`` for each wake."""
        raise NotImplementedError

    def prepare(self, effect: WaitForAny) -> None:
        """Have the claims renewed, and have wakes and losses arrive."""
        for number in set(self._waits) - set(effect.waits):
            self._waits[number].close()  # before it is forgotten: a signal may cut this short
            del self._waits[number]
        for number, wait in effect.waits.items():
            if isinstance(wait, WaitForWake) and self._last.get(number) is not wait:
                self._waits_of(number).prepare(wait)
            self._last[number] = wait
        for hold in effect.held:
            if self.ring not in hold.alarms:
                self._alarmed.append(hold)
                hold.alarms = (*hold.alarms, self.ring)
        together = self._together
        if effect.until is not None and self._refused is not together.refused:
            self._refused = together.refused
            if self._on_wait is not None:
                waited = self._driver.clock.now() - (together.start or 0.0)
                self._on_wait(Waiting(together.attempts[0].terms.name, 0, None, waited, together.refused))

    def ready(self, effect: WaitForAny) -> Collection[int] | float:
        """The attempts that were woken or are due, none if a hold is lost; otherwise the seconds to wait.

        Raises:
            AcquireCancelled: The wait must end.
        """
        if why := cancelled(self._driver, self._together.call.cancel):
            raise AcquireCancelled(why, name=self._name(effect))
        ends = {number: wait.until for number, wait in effect.waits.items() if wait.until is not None}
        at = self._driver.clock.now()
        # No wake cuts a pause short.
        woken = {n for n in self._woken.copy() if isinstance(effect.waits.get(n), WaitForWake)}
        ready = woken | {n for n, until in ends.items() if until <= at}
        until = effect.until
        if ready or any(hold.lost_why for hold in effect.held) or (until is not None and until <= at):
            self._woken -= ready  # a wake that comes from here on is for the next wait
            return ready
        left = min([end - at for end in ends.values()], default=LONGEST_WAIT)
        return left if until is None else min(left, until - at)

    def left_for(self, effect: Choose | Judge, began: float) -> float:
        """Seconds for which to wait for a chooser that was asked at ``began``.

        Raises:
            Refused: The time of the chooser is up.
            AcquireCancelled: The wait must end.
        """
        if why := cancelled(self._driver, self._together.call.cancel):
            raise AcquireCancelled(why)
        left = began + effect.budget - self._driver.clock.now()
        if left <= 0:
            raise Refused(BackendUnavailable("the chooser gave no answer in time"))
        return left

    def _tell(self, waiting: Waiting) -> None:
        refused = self._together.refused
        assert self._on_wait is not None
        self._on_wait(waiting._replace(refused=refused) if refused else waiting)

    def _waits_of(self, number: int) -> Waits:
        waits = self._waits.get(number)
        if waits is None:

            def ring() -> None:
                self._woken.add(number)
                self.ring()

            waits = self._waits[number] = self._new_waits(self._together.attempts[number], ring)
        return waits

    def ask_again(self) -> None:
        """Wake the waits, so that each asks the store again. Any thread may call this."""
        for waits in list(self._waits.values()):
            waits.ask_again()
        self.ring()

    def _name(self, effect: WaitForAny) -> str | None:
        return next((self._together.attempts[number].terms.name for number in effect.waits), None)

    def close(self) -> None:
        """Clean up after the waits: stop the watches, and take the claims out of the heartbeat."""
        for waits in list(self._waits.values()):
            waits.close()
        self._waits = {}  # their rings refer to this object: without a circle it goes at once
        for hold in self._alarmed:
            hold.alarms = tuple(alarm for alarm in hold.alarms if alarm != self.ring)


class ThreadTogether(WaitsTogether):
    """The waits of a thread, which one bell wakes."""

    def __init__(self, driver: Driver, together: Together) -> None:
        super().__init__(driver, together)
        self._bell = Bell()
        cancel = together.call.cancel
        self._attached = 0 if cancel is None else cancel.attach(self._bell.ring)

    def perform(self, effect: Effect) -> object:
        """Perform an effect of the acquisition that is no request."""
        if isinstance(effect, WaitForAny):
            return self.wait(effect)
        return self.choose(effect) if isinstance(effect, CHOICES) else super().perform(effect)

    def wait(self, effect: WaitForAny) -> Collection[int]:
        """Wait until an attempt is woken or due, or a hold is lost; the claims are renewed meanwhile."""
        self.prepare(effect)
        wait_no_longer_than_the_interpreter()
        while isinstance(ready := self.ready(effect), float):
            self._bell.wait(ready if listening() else min(ready, LOOK))
        return ready

    def choose(self, effect: Choose | Judge) -> object:
        """Ask a chooser, and wait for its answer.

        Raises:
            Refused: There is none within the budget.
            AcquireCancelled: The wait must end.
        """
        began = self._driver.clock.now()
        job = self._driver.choices.submit(effect)
        job.add_done_callback(lambda _: self._bell.ring())
        wait_no_longer_than_the_interpreter()
        try:
            while not job.done():
                left = self.left_for(effect, began)
                self._bell.wait(left if listening() else min(left, LOOK))
        finally:
            self._driver.choices.give_up(job)
        return job.result()

    def ring(self) -> None:
        """Wake the thread. Never blocks."""
        self._bell.ring()

    def _new_waits(self, attempt: Attempt, ring: Callable[[], None]) -> Waits:
        return ThreadWaits(self._driver, attempt, ring, None if self._on_wait is None else self._tell)

    def close(self) -> None:
        """Clean up after the waits, and forget the switch that could have cancelled them."""
        cancel = self._together.call.cancel
        if cancel is not None:
            cancel.detach(self._attached)
        super().close()
