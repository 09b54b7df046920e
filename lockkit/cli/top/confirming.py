"""The confirmation before an intervention: what will happen to which claim, and why."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, Literal

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from lockkit import durations, remarks
from lockkit.cli import output
from lockkit.errors import ConfigError
from lockkit.printable import printable
from lockkit.protocol.denials import because

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo, LockInfo

__all__ = ["Act", "Confirm", "consequences"]

Act = Literal["evict", "ask-release"]
_BUTTONS: dict[Act, str] = {"evict": "Evict", "ask-release": "Ask"}


def consequences(act: Act, info: LockInfo, claim: ClaimInfo, now: float) -> list[str]:
    """Sentences about what an intervention will do.

    Args:
        act: The intervention.
        info: The lock, as it was seen.
        claim: The claim that was seen.
        now: The current time, in seconds since the epoch.
    """
    waits = claim.state in ("WAITING", "OFFERED")
    since = f"{'has waited' if waits else 'has held it'} for {durations.show(max(now - claim.since, 0.0))}"
    told = [
        f"{'Evict' if act == 'evict' else 'Ask the holder of'} claim {claim.claim_id} of {claim.name!r}?",
        f"{claim.owner} {since}{because(claim)}.",
    ]
    if act == "ask-release":
        told.append(
            f"Nothing is forced. The holder hears of the request with its next renewal, within {durations.show(claim.ttl / 3)}, "
            "and may go on."
        )
    elif waits:
        told.append("It is removed from the queue. Its process queues again, at the end, unless it ends.")
    else:
        until = (
            "" if claim.deadline is None else f", at {output.clock_time(claim.deadline, now)} at the latest"
        )
        count = len(info.waiters)
        behind = {0: "Nobody waits for it", 1: "The one that waits gets it"}.get(
            count, f"The first of the {count:,} that wait gets it"
        )
        told.append(
            f"The holder is told that its lock is lost. {behind}; the lock is free only when the holder must have stopped{until}."
        )
    return [
        *told,
        f"Only this claim is {'evicted' if act == 'evict' else 'asked'}: if another has the lock by then, nothing happens to that one.",
    ]


class Confirm(ModalScreen[str | None]):
    """Asks for the reason and for a confirmation. The answer is the reason; None: nothing is to be done.

    Args:
        act: The intervention.
        info: The lock, as it was seen.
        claim: The claim that was seen.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave it")]

    def __init__(self, act: Act, info: LockInfo, claim: ClaimInfo) -> None:
        super().__init__()
        self._act = act
        self._told = consequences(act, info, claim, time.time())

    def compose(self) -> ComposeResult:
        """The sentences, the reason and the buttons."""
        with VerticalScroll(id="confirm"):
            yield Static(printable("\n".join(self._told), lines=True), markup=False)
            who = "The evicted user" if self._act == "evict" else "The holder"
            yield Input(placeholder=f"Why? {who} sees it.", max_length=remarks.LONGEST, id="reason")
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
