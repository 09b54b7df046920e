"""The confirmation before an intervention: what will happen to which claim, and why."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from lockkit.cli import output
from lockkit.errors import ConfigError
from lockkit.lib import noted
from lockkit.lib.printable import printable
from lockkit.notes import remarks
from lockkit.views.consequences import Act, consequences

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo, LockInfo

__all__ = ["Act", "Confirm"]

_BUTTONS: dict[Act, str] = {"evict": "Evict", "ask-release": "Ask"}


class Confirm(ModalScreen[str | None]):
    """Asks for the reason and for a confirmation. The answer is the reason; None: nothing is to be done."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave it")]

    def __init__(self, act: Act, info: LockInfo, claim: ClaimInfo) -> None:
        super().__init__()
        self._act = act
        now = time.time()
        self._told = consequences(act, info, claim, now, lambda at: output.clock_time(at, now))

    def compose(self) -> ComposeResult:
        """The sentences, the reason and the buttons."""
        with VerticalScroll(id="confirm"):
            yield Static(printable("\n".join(self._told), lines=True), markup=False)
            who = "The evicted user" if self._act == "evict" else "The holder"
            yield Input(placeholder=f"Why? {who} sees it.", max_length=noted.LONGEST, id="reason")
            yield Static("", id="refused", markup=False)
            with Horizontal(id="buttons"):
                yield Button(_BUTTONS[self._act], id="do", variant="error", compact=True)
                yield Button("Leave it", id="leave", compact=True)

    def on_mount(self) -> None:
        """Begin at the reason."""
        self.query_one("#reason").focus()

    def on_input_submitted(self) -> None:
        """Go on to the button, which must be pressed as well."""
        if self._reason() is not None:
            self.query_one("#do").focus()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Say what the next key does."""
        if event.widget.id == "do":
            self.query_one("#refused", Static).update(f"Enter: {self._act}. Escape: leave it.")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Do it, or leave it."""
        if event.button.id == "leave":
            self.dismiss(None)
        elif (reason := self._reason()) is not None:
            self.dismiss(reason)

    def action_leave(self) -> None:
        """Leave everything as it is."""
        self.dismiss(None)

    def _reason(self) -> str | None:
        try:
            return remarks.checked(self.query_one("#reason", Input).value, "the reason")
        except ConfigError as error:
            self.query_one("#refused", Static).update(f"{error.message[0].upper()}{error.message[1:]}.")
            return None
