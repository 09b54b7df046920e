"""The state of the alert engine, and the decisions of people about alerts, as stored on disk."""

from __future__ import annotations

from msgspec import Struct, field

from lockkit.alerts.notification import Severity

__all__ = ["Acknowledgement", "Active", "Decisions", "Group", "Silence", "State", "Window"]


class Silence(Struct):
    """A silence: matching alerts are not sent from ``starts`` to ``ends``, in seconds of the wall clock.

    Attributes:
        id: The name by which it is ended.
        author: The person who made it.
        comment: Why.
        rule: A rule, or a pattern of rules (``*``, ``?``, ``[ab]``).
        labels: Labels that an alert must have, each a value or a pattern.
        fingerprint: The one alert that it is about; empty: any.
    """

    id: str
    author: str
    starts: float
    ends: float
    comment: str = ""
    rule: str = "*"
    labels: dict[str, str] = {}
    fingerprint: str = ""


class Acknowledgement(Struct):
    """A person's promise to deal with an alert, valid until the alert ends.

    Attributes:
        by: The person.
        at: When, in seconds of the wall clock.
        comment: Why.
        instance: The instance of the alert; 0 if that is not known.
    """

    by: str
    at: float
    comment: str = ""
    instance: int = 0


class Decisions(Struct):
    """People's decisions, in their own file: a command can write it while the engine runs elsewhere."""

    v: int = 1
    silences: list[Silence] = []
    acknowledged: dict[str, Acknowledgement] = {}


class Window(Struct):
    """The counts of one subject of a rule: for each moment the number of ``of`` and of ``among``.

    Attributes:
        labels: The labels of the subject.
        moments: Times in seconds, with both numbers, in order.
        message: The last message.
        claim: The last claim.
        severity: The worst severity that an alert in the window said.
        fresh: The number counted since the last step.
    """

    labels: dict[str, str]
    moments: list[tuple[float, int, int]] = []
    message: str = ""
    claim: str = ""
    severity: Severity | None = None
    fresh: int = 0


class Active(Struct):
    """An alert whose condition is true, or whose end is still to be sent.

    Attributes:
        rule: The rule.
        labels: The labels.
        text: The sentence.
        command: The command to type next.
        severity: The severity after escalation.
        since: When the condition became true.
        fired: When it had been true for as long as the rule wants; None before.
        times: The number of events or looks that showed it.
        count: The number of events in the window; of looks, 0.
        resolved: When it ended; None while it is true.
        step: The steps of escalation that were taken.
        escalated: When the last of them was taken; 0 if none was.
        raised: The number of steps that had to be sent to people.
        hidden: Why it is not sent now: ``silenced``, ``inhibited`` or nothing.
        acknowledged_by: The person who acknowledged it.
        instance: The number that distinguishes it from earlier alerts with the same fingerprint.
        began: The severity with which it began; None if an earlier lockkit did not keep it.
        locks: The locks in which looks have seen it, less those read since without it.
    """

    rule: str
    labels: dict[str, str]
    text: str
    command: str
    severity: Severity
    since: float
    fired: float | None = None
    times: int = 0
    count: int = 0
    resolved: float | None = None
    step: int = 0
    escalated: float = 0.0
    raised: int = 0
    hidden: str = ""
    acknowledged_by: str = ""
    instance: int = 0
    began: Severity | None = None
    locks: list[str] = []


class Group(Struct):
    """The part of a group's alerts that was sent, and since when there is news.

    Attributes:
        told: By fingerprint, alerts with a start sent but no end, and how often each had been raised then.
        last: When something was sent; None before the first time.
        news: Since when the alerts differ from what was sent; None while they do not.
        escalations: The number of notifications because of an escalation.
        shared: Whether the rule looks at the store, so that any of its engines may send the group.
    """

    told: dict[str, int] = {}
    last: float | None = None
    news: float | None = None
    escalations: int = 0
    shared: bool = False


class State(Struct):
    """All that the engine knows.

    Attributes:
        v: The version of the form.
        at: The time of the last step, in seconds of the wall clock.
        alerts: The alerts, by fingerprint.
        groups: The groups, by key.
        windows: The counts, by rule and subject.
        held: When each lock of a `missed` rule was last known to be held, or first waited for.
        sent: The times of the notifications of the last hour.
        begun: The number of alerts so far.
        elsewhere: Since when another engine has been the one that looks at the locks; None while this one is.
        looked: When this engine was last the one that looks.
        origin: The name of this engine, and of the one that continues its state, on whatever host.
    """

    v: int = 1
    at: float = 0.0
    alerts: dict[str, Active] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    windows: dict[str, dict[str, Window]] = field(default_factory=dict)
    held: dict[str, float] = field(default_factory=dict)
    sent: list[float] = field(default_factory=list)
    begun: int = 0
    elsewhere: float | None = None
    looked: float = 0.0
    origin: str = ""
