"""The application of ``lockkit top``: its store, its thread that reads, and how it ends.

textual, because rich alone draws tables but reads no keys: sorting, a filter, a cursor, pages, dialogs, the
mouse, and restoring the terminal after any end would have to be written here. textual is an extra, because it
brings several packages that no other command needs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.message import Message

from lockkit.cli import intervening, output
from lockkit.cli.terminal import gone
from lockkit.cli.top.confirming import Act
from lockkit.cli.top.main_screen import MainScreen
from lockkit.cli.top.polling import Answer, Poller
from lockkit.cli.top.screens import DrawnGpus, Live
from lockkit.errors import ConfigError, DevicesUnavailable, LockkitError
from lockkit.hooks import of_gpus
from lockkit.lib.printable import printable
from lockkit.views.looking import Asked, Look, look

if TYPE_CHECKING:
    from textual.screen import Screen

    from lockkit.facts import ClaimInfo
    from lockkit.sync.client import Client

__all__ = ["Top"]

_LATE = 3.0
"""Seconds without an answer after which the screen is called stale, if the interval is not longer."""
_TO_END = 5.0
"""Seconds from a signal to the end of the process, whatever the terminal does."""
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Answered(Message):
    """An answer for the screen."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class Acted(Message):
    """The result of an intervention, in words."""

    def __init__(self, words: str, *, failed: bool) -> None:
        super().__init__()
        self.words, self.failed = words, failed


class Top(App[int]):
    """The application. Its result is the number of the signal that ended it; None if a key did."""

    TITLE = "lockkit top"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", show=False),
    ]
    CSS = """
    #place { height: 1; color: $text-muted; }
    #stale { height: auto; max-height: 3; background: $error; color: $text; text-style: bold reverse;
             display: none; }
    #summary { height: auto; max-height: 4; text-style: bold; }
    Tabs { height: 2; }
    ContentSwitcher { height: 1fr; }
    LiveTable { height: 1fr; }
    #told { height: auto; max-height: 50%; }
    #about { height: auto; max-height: 3; color: $text-muted; }
    #filter { height: 1; border: none; padding: 0; }
    Confirm { align: center middle; }
    #confirm { width: 90%; max-width: 100; height: auto; max-height: 95%; border: thick $error;
               padding: 0 1; background: $surface; }
    #reason { height: 1; border: none; padding: 0; margin-top: 1; }
    #refused { height: auto; color: $error; }
    #buttons { height: 1; margin-top: 1; }
    #buttons Button { margin-right: 2; }
    #buttons Button:focus { text-style: bold reverse; }
    """

    def __init__(
        self,
        client: Client,
        asked: Asked,
        interval: float,
        *,
        suggested: tuple[str, str] = ("", ""),
        simulate: int | None = None,
        first: Look | None = None,
    ) -> None:
        super().__init__()
        self.client = client
        self.suggested = suggested
        self.first = first
        self.failure: Exception | None = None
        self._asked = asked
        self._interval = interval
        self._simulate = simulate
        self._gpus: Callable[[], DrawnGpus] | None = None
        self._poller = Poller(self._tell, interval)
        self._fresh_at, self._heard = time.time(), time.monotonic()
        self._trouble = ""
        self._attributes: list[Any] | None = None
        with suppress(termios.error):
            self._attributes = termios.tcgetattr(0)

    def get_default_screen(self) -> Screen[Any]:
        """The first screen."""
        return MainScreen(self._asked.sort)

    def on_mount(self) -> None:
        """Begin to read. Signals end the application as a key does, so that the terminal is restored."""
        loop = asyncio.get_running_loop()
        for number in _ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self.exit, int(number))
                signal.signal(number, self._end_at_last)
        self.set_interval(1.0, self._tell_stale)
        self.set_interval(1.0, self._see_terminal)

    def _end_at_last(self, number: int, _frame: object) -> None:
        """End the process if the loop cannot: a blocked terminal blocks the drawing, and then the loop."""

        def end() -> None:
            if self._attributes is not None:
                with suppress(termios.error):
                    termios.tcsetattr(0, termios.TCSANOW, self._attributes)
            os._exit(128 + number)

        timer = threading.Timer(_TO_END, end)
        timer.daemon = True
        timer.start()

    def on_unmount(self) -> None:
        """Read no more."""
        self._poller.stop()

    def _see_terminal(self) -> None:
        """End as at a hang-up if the terminal is gone."""
        if gone():
            self.exit(int(signal.SIGHUP))

    # -- reads, called by the poller

    def read_locks(self) -> Look:
        """The locks."""
        return look(self.client, self._asked)

    def read_gpus(self) -> DrawnGpus | str:
        """The GPUs of this host, or why nothing can be said about any."""
        try:
            if self._gpus is None:
                self._gpus = of_gpus("screen")(self.client, self._simulate)
            return self._gpus()
        except (DevicesUnavailable, ConfigError) as error:
            return "; ".join(filter(None, (error.message, error.hint)))

    def read_failures(self) -> list[dict[str, object]]:
        """The releases of this user on this host that failed and that nobody has resolved."""
        from lockkit.observe import journal

        records = journal.read(self.client.config.state_place(create=False).path)
        return [record for record in records if not record.get("resolved")]

    def _tell(self, answer: Answer) -> None:
        self.post_message(Answered(answer))

    # -- answers

    def watch_view(self) -> None:
        """Read from now on what the screen in front shows."""
        if self.is_running and isinstance(self.screen, Live) and self.screen.ready:
            self._poller.show(self.screen.view)

    def action_refresh_now(self) -> None:
        """Read at once."""
        self._poller.again()

    def on_answered(self, message: Answered) -> None:
        """Show an answer, unless another view is in front by now, or the widgets are being removed."""
        answer = message.answer
        if not self.is_running:
            return
        if answer.error is not None and not isinstance(answer.error, LockkitError):
            self.failure = answer.error
            self.exit()
            return
        screens = [one for one in self.screen_stack if isinstance(one, Live)]
        screen = next((one for one in reversed(screens) if one.view == answer.view), None)
        if screen is None or not screen.ready:
            return
        self._heard = time.monotonic()
        if answer.error is None:
            self._fresh_at, self._trouble = answer.at, ""
            answer.view.show(answer.found, answer.at)
        else:
            self._trouble = str(getattr(answer.error, "message", answer.error))
        self._tell_stale()

    def _tell_stale(self) -> None:
        """Say on every screen which store this is, and since when it has not answered."""
        if not self.is_running:
            return
        now = time.time()
        late = time.monotonic() - self._heard > max(_LATE, 2 * self._interval)
        words = ""
        if self._trouble or late:
            since = f"stale since {output.clock_time(self._fresh_at, now)}"
            words = f"{since}: {f'trying again: {self._trouble}' if self._trouble else 'no answer yet'}"
        place = (
            f"{self.client.url}, namespace {self.client.namespace}, {output.clock_time(self._fresh_at, now)}"
        )
        for screen in self.screen_stack:
            if isinstance(screen, Live) and screen.ready:
                screen.tell_place(place)
                screen.tell_stale(words)

    # -- interventions

    def intervene(self, act: Act, claim: ClaimInfo, reason: str) -> None:
        """Evict a claim, or ask its holder to release, on a thread of its own."""
        do: Callable[[], str] = (
            (lambda: self._evict(claim, reason)) if act == "evict" else (lambda: self._ask(claim, reason))
        )

        def run() -> None:
            try:
                told, failed = do(), False
            except LockkitError as error:
                told, failed = "; ".join(filter(None, (error.message, error.hint))), True
            self.post_message(Acted(told, failed=failed))

        threading.Thread(target=run, name="lockkit-top-act", daemon=True).start()

    def _evict(self, claim: ClaimInfo, reason: str) -> str:
        result = intervening.evict(self.client, claim.name, claim.claim_id, reason=reason)
        return intervening.evicted_words(claim.name, claim.claim_id, result)

    def _ask(self, claim: ClaimInfo, reason: str) -> str:
        self.client.ask_release(claim.name, claim.claim_id, reason)
        left = [one for one in self.client.inspect(claim.name).claims if one.claim_id == claim.claim_id]
        return intervening.asked_words(claim.name, claim.claim_id, left[0] if left else None)

    def on_acted(self, message: Acted) -> None:
        """Tell the result, and read anew."""
        self.notify(
            printable(message.words),
            severity="error" if message.failed else "information",
            timeout=15,
            markup=False,
        )
        self._poller.again()
