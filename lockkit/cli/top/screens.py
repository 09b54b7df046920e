"""The common part of ``lockkit top``'s screens: the store, "stale since", and interventions on entries."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias, cast

from rich.table import Table
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Static

from lockkit.cli.top.confirming import Act, Confirm
from lockkit.cli.top.live_table import LiveTable
from lockkit.cli.top.polling import View
from lockkit.lib.printable import printable

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo
    from lockkit.sync.client import Client
    from lockkit.views.looking import Look

__all__ = ["DrawnGpus", "Live", "Top"]

DrawnGpus: TypeAlias = Callable[[int], Table]
"""GPUs as they were seen at some time: a function that draws them in so many columns."""


class Top(Protocol):
    """The application, as its screens use it; see :class:`lockkit.cli.top.app.Top`."""

    client: Client
    suggested: tuple[str, str]
    first: Look | None

    def read_locks(self) -> Look: ...

    def read_gpus(self) -> DrawnGpus | str: ...

    def read_failures(self) -> list[dict[str, object]]: ...

    def watch_view(self) -> None: ...

    def intervene(self, act: Act, claim: ClaimInfo, reason: str) -> None: ...


class Live(Screen[None]):
    """A screen that shows a view of the store, and acts on the claim under the cursor of its table."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", "act('evict')", "Evict"),
        Binding("a", "act('ask-release')", "Ask release"),
    ]

    ready = False
    """Whether the widgets are there, so that an answer can be shown."""

    @property
    def top(self) -> Top:
        """The application."""
        return cast("Top", self.app)

    @property
    @abstractmethod
    def view(self) -> View:
        """The view that this screen shows now."""

    @property
    @abstractmethod
    def table(self) -> LiveTable | None:
        """The table with the cursor; None if there is none now."""

    def head(self) -> ComposeResult:
        """The rows on top of every screen."""
        yield Static("", id="place", markup=False)
        yield Static("", id="stale", markup=False)

    def on_mount(self) -> None:
        """Read this screen's view from now on, as soon as there are widgets to show it."""
        self.ready = True
        self.top.watch_view()

    def on_screen_resume(self) -> None:
        """Read this screen's view again."""
        self.top.watch_view()

    def tell_place(self, words: str) -> None:
        """Show the store, and the time of its last answer."""
        self.query_one("#place", Static).update(printable(words))

    def tell_stale(self, words: str) -> None:
        """Show since when the screen is stale; no words: it is fresh."""
        stale = self.query_one("#stale", Static)
        stale.display = bool(words)
        stale.update(printable(words))

    def action_act(self, act: Act) -> None:
        """Ask for a confirmation, then intervene on the claim that is seen now."""
        entry = self.table.entry if self.table is not None else None
        if entry is None or entry.claim is None:
            self.app.notify("no claim is selected", severity="warning")
            return
        info, claim = entry.info, entry.claim

        def confirmed(reason: str | None) -> None:
            if reason is not None:
                self.top.intervene(act, claim, reason)

        self.app.push_screen(Confirm(act, info, claim), confirmed)

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()
