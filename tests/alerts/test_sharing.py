"""The share of a channel: for every alert that it was sent, it is sent the end; it gets nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockkit.alerts import grouping
from lockkit.alerts.sharing import merged, remember, share
from lockkit.alerts.state import Active, Group
from support.notifications import notification

SEVERITIES = ("P0", "P1", "P2")
TIMING = grouping.Timing(group_wait=0.0, group_interval=0.0, repeat_interval=5.0, most_per_hour=60)


def alert(name, severity="P2", *, over=False):
    return (
        notification()
        .members[0]
        ._replace(fingerprint=name, severity=severity, resolved=2000.0 if over else None)
    )


def about(*members, reason="first", group="old_hold"):
    severity = min([one.severity for one in members if one.resolved is None] or ["P2"])
    return notification(group=group, reason=reason)._replace(severity=severity, members=members)


def heard(one):
    return one and (
        one.reason,
        one.severity,
        {each.fingerprint: each.resolved is None for each in one.members},
    )


def test_a_channel_hears_only_of_its_alerts_and_when_all_of_them_are_over():
    told = {}

    def tell(*members, reason):
        part = share(about(*members, reason=reason), told, ("P0",))
        if part is not None:
            remember(told, part)
        return heard(part)

    assert tell(alert("q"), reason="first") is None
    assert tell(alert("p", "P0"), alert("q"), reason="escalated") == ("escalated", "P0", {"p": True})
    assert tell(alert("p", "P0"), alert("q"), alert("r"), reason="new_member") is None
    assert tell(alert("q"), alert("r"), alert("p", "P0", over=True), reason="resolved_member") == (
        "all_resolved",
        "P0",
        {"p": False},
    )
    assert tell(alert("q", over=True), alert("r", over=True), reason="all_resolved") is None
    assert told == {}


def test_a_channel_hears_the_end_of_an_alert_that_has_left_its_severities():
    told = {}
    remember(told, about(alert("p", "P2")))

    over = share(about(alert("p", "P0", over=True), reason="all_resolved"), told, ("P2",))
    assert heard(over) == ("all_resolved", "P2", {"p": False})
    # Also if it left without a word, when another process tells it.
    assert heard(share(about(reason="all_resolved"), told, ("P2",))) == ("all_resolved", "P2", {})


class Listener:
    """A channel and its service, which knows for each group what fires, as Alertmanager does."""

    def __init__(self, severities):
        self.severities = severities
        self.told = {}
        self.waiting = []
        self.fires = {}
        self.reasons = []

    def put(self, one):
        part = share(one, self.told, self.severities)
        if part is not None:
            remember(self.told, part)
            self.waiting.append(part)

    def take(self):
        if self.waiting:
            one = merged(self.waiting)
            self.fires |= {each.fingerprint: each.resolved is None for each in one.members}
            self.reasons.append(one.reason)
            self.waiting = []


STEPS = st.lists(
    st.tuples(st.sampled_from(["fire", "raise", "end", "hide", "show", "tell", "take"]), st.integers(0, 3)),
    max_size=60,
)


@given(STEPS, st.sampled_from([("P0",), ("P1",), ("P2",), ("P0", "P2"), SEVERITIES]))
def test_whatever_goes_on_all_is_over_for_a_channel_once_all_is_over(steps, severities):
    listener = Listener(severities)
    group, alerts = Group(), {}
    now = 0.0

    def tell():
        grouping.settle(group, alerts, now)
        due = grouping.due(group, alerts, TIMING)
        if due is not None and due[0] <= now:
            listener.put(grouping.notification("old_hold", group, alerts, due[1], now))
            grouping.after_sending(group, alerts, now)

    for kind, number in [*steps, *(("end", number) for number in range(4)), ("tell", 0), ("take", 0)]:
        now += 1.0
        one = alerts.get(str(number))
        if kind == "fire" and one is None:
            alerts[str(number)] = Active("old_hold", {}, "", "", "P2", now, now)
        elif kind == "raise" and one is not None and one.severity != "P0":
            one.severity, one.raised = "P1" if one.severity == "P2" else "P0", one.raised + 1
        elif kind == "end" and one is not None:
            one.resolved = now
        elif kind in ("hide", "show") and one is not None:
            one.hidden = "silenced" if kind == "hide" else ""
        elif kind == "tell":
            tell()
        elif kind == "take":
            listener.take()

    assert listener.told == {}
    assert not any(listener.fires.values()), "on a service that knows each alert"
    assert listener.reasons[-1:] in ([], ["all_resolved"]), "on a service that knows the group alone"


def test_the_property_can_fail(monkeypatch):
    # An end that another notification replaces is lost.
    monkeypatch.setitem(globals(), "merged", lambda many: many[-1])
    steps = [("fire", 0), ("tell", 0), ("take", 0), ("end", 0), ("fire", 1), ("tell", 0)]

    with pytest.raises(AssertionError, match="each alert"):
        test_whatever_goes_on_all_is_over_for_a_channel_once_all_is_over.hypothesis.inner_test(steps, ("P2",))
