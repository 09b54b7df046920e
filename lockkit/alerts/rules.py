"""Rules of alerts: when to notify a person, how urgently, and what to do then.

A rule is data: one of four conditions with its figures, and words. The shipped rules are in
:data:`lockkit.alerts.shipped.SHIPPED`; a table ``[alerts.rules.NAME]`` changes one key by key, or adds one.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from msgspec import Meta, Struct, field

from lockkit.alerts.notification import Severity

__all__ = [
    "WORST",
    "Condition",
    "Count",
    "Label",
    "Missed",
    "Rule",
    "Seconds",
    "Seen",
    "Share",
    "Step",
    "worse",
]

WORST: tuple[Severity, ...] = ("P0", "P1", "P2")
"""The severities, the most severe first."""
Label: TypeAlias = Literal["lock", "gpu", "host", "owner", "kind"]
"""A label by which a rule may separate its alerts."""


def worse(one: Severity, other: Severity) -> Severity:
    """The more severe of two severities."""
    return min(one, other, key=WORST.index)


class Seconds(float):
    """A duration in seconds, which a file may write as ``"10m"``."""

    __slots__ = ()


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """One step of an escalation. Whichever of ``after`` and ``above`` comes first takes it.

    Attributes:
        to: The severity to which the alert is raised.
        after: How long the alert has fired without an acknowledgement, in seconds.
        above: The number of events within the rule's window, above which the step is taken at once.
    """

    to: Severity
    after: Seconds | None = None
    above: Annotated[int, Meta(ge=0)] | None = None


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="when"):
    """The keys that all rules have. The subclass is the condition: the key ``when``.

    Attributes:
        severity: P0, P1 or P2; ``alert`` for that of the alert that came, P2 if none did.
        text: A sentence for people; ``{lock}`` and other words in braces are filled in.
        command: The command to type next; filled-in words are quoted for a shell.
        runbook: The remedy, in a sentence or two.
        hold: The key ``for``: how long the condition must be true before the alert fires, in seconds.
        labels: Further labels of all alerts of the rule.
        by: The labels that make separate alerts; none: all is one alert.
        escalate: The steps of an escalation, in order.
        rounds: How often the steps repeat while nobody acknowledges the alert.
        inhibits: Rules whose alerts are not sent while this rule has one, even if it does not fire yet.
        equal: The labels in which the two alerts must agree for that.
        enabled: Whether the rule counts at all.
    """

    conditions: ClassVar[str] = ""

    severity: Literal["P0", "P1", "P2", "alert"] = "P2"
    text: str = "{message}"
    command: str = ""
    runbook: str = ""
    hold: Seconds = field(name="for", default=Seconds(0))
    labels: dict[str, str] = {}
    by: tuple[Label, ...] = ("lock",)
    escalate: tuple[Step, ...] = ()
    rounds: Annotated[int, Meta(ge=1, le=10)] = 1
    inhibits: tuple[str, ...] = ()
    equal: tuple[Label, ...] = ()
    enabled: bool = True

    @property
    def severity_alone(self) -> Severity:
        """The severity of an alert of the rule before anything is known of it."""
        return "P2" if self.severity == "alert" else self.severity


class Count(Rule, frozen=True, kw_only=True, tag="count"):
    """More than ``above`` of ``of`` within ``window`` seconds."""

    of: tuple[str, ...]
    above: Annotated[int, Meta(ge=0)] = 0
    window: Seconds = Seconds(3600)


class Share(Rule, frozen=True, kw_only=True, tag="share"):
    """In ``window`` seconds, ``of`` exceed the share ``above`` of at least ``least`` of ``among``."""

    of: tuple[str, ...]
    among: tuple[str, ...]
    above: Annotated[float, Meta(ge=0, le=1)]
    window: Seconds = Seconds(600)
    least: Annotated[int, Meta(ge=1)] = 20
    by: tuple[Label, ...] = ()


class Seen(Rule, frozen=True, kw_only=True, tag="seen"):
    """A look at the store shows ``what``: no answer, a dead owner's claim, an idle held card, an old hold."""

    what: Literal["unreachable", "zombie", "idle", "old"]


class Missed(Rule, frozen=True, kw_only=True, tag="missed"):
    """A lock was not held for longer than its period; ``periods`` maps locks to their periods in seconds."""

    periods: dict[str, Seconds] = {}


Condition: TypeAlias = Count | Share | Seen | Missed
