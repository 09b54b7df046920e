"""The alert engine: from happenings and looks to notifications. Pure: no I/O, and one time for a whole step.

Each step counts, evaluates conditions, starts and ends alerts, hides inhibited and silenced ones, escalates
those that nobody acknowledged, and notifies about the groups for which that is due.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from lockkit.alerts import conditions, grouping, turns
from lockkit.alerts.conditions import Found, Matter
from lockkit.alerts.escalating import escalate
from lockkit.alerts.grouping import Timing
from lockkit.alerts.happenings import Happening, Look
from lockkit.alerts.notification import Notification
from lockkit.alerts.rules import Condition, Count, Share, worse
from lockkit.alerts.state import Acknowledgement, Active, Decisions, Group, Silence, State
from lockkit.facts import NOTHING

__all__ = ["HOUR", "Engine", "acknowledged", "matches"]

HOUR = 3600.0
_MOST = 2 * conditions.MOST
"""Alerts of one rule that are kept apart; all further ones are one alert together."""
_AHEAD = 1.0
"""Seconds by which the clock may go back before the state is moved with it."""


class Engine:
    """The state of all alerts of one namespace.

    After a restart with earlier state, nothing is sent for one ``group_wait``: a look shows what still holds.

    Args:
        rules: The rules in force, by name.
        timing: When notifications are due.
        state: The state that an earlier engine left; None for a new one.
        now: The time of the start, in seconds of the wall clock.
        labels: The labels of every alert, such as the namespace.
        store: The name of the store, the same for all of its engines; empty if it has none for other hosts.
        origin: The name of this engine, if it begins without a state.

    Attributes:
        state: All that the engine knows, to be saved after each step, when its notifications are handed over.
        rules: The rules; may be replaced between two steps.
        timing: May be replaced, too.
    """

    def __init__(
        self,
        rules: Mapping[str, Condition],
        timing: Timing,
        state: State | None = None,
        *,
        now: float,
        labels: Mapping[str, str] = NOTHING,  # type: ignore[assignment]  # nothing is in it
        store: str = "",
        origin: str = "",
    ) -> None:
        self.rules = rules
        self.timing = timing
        self.state = State(at=now) if state is None else state
        self.state.origin = self.state.origin or origin
        self._labels = labels
        self._store = store
        self._quiet_until = 0.0
        if state is not None:
            self._resume(now)

    def step(
        self,
        now: float,
        happenings: Iterable[Happening] = (),
        look: Look | None = None,
        decisions: Decisions | None = None,
    ) -> list[Notification]:
        """Take in the news, and decide which notifications are sent now.

        Args:
            now: The time, in seconds of the wall clock.
            happenings: The happenings since the last step.
            look: The findings of a look at the store since then; None if there was none.
            decisions: The silences and acknowledgements as they are now.
        """
        state, decisions = self.state, decisions or Decisions()
        self._follow_the_clock(now)
        conditions.count(self.rules, state, happenings, now)
        if look is not None and not look.unreachable:
            turns.take_turns(self.rules, state, now, self.timing.group_wait, elected=look.elected)
        for name, rule in self.rules.items():
            found = conditions.find(name, rule, state, look, now, self._labels)
            self._take(name, rule, found, now)
        for one in state.alerts.values():
            if one.rule not in self.rules and one.resolved is None:
                one.resolved = now  # the rule was silenced or removed
        self._hide(decisions, now)
        self._acknowledge(decisions)
        for one in state.alerts.values():
            if one.rule in self.rules and escalate(one, self.rules[one.rule], now):
                one.raised += 1
                state.groups.setdefault(one.rule, Group()).escalations += 1
        return self._tell(now)

    # -- time

    def _resume(self, now: float) -> None:
        """Continue from an earlier state. Missed runs do not count the time in which no engine looked."""
        gap = max(now - self.state.at, 0.0)
        self._follow_the_clock(now)
        self.state.held = {lock: at + gap for lock, at in self.state.held.items()}
        self.state.elsewhere = None if self.state.elsewhere is None else self.state.elsewhere + gap
        self._quiet_until = now + self.timing.group_wait

    def _follow_the_clock(self, now: float) -> None:
        """If the wall clock was set back, move all times back equally, to keep the intervals between them."""
        state = self.state
        by = state.at - now
        if by > _AHEAD:
            for one in state.alerts.values():
                one.since -= by
                one.fired = None if one.fired is None else one.fired - by
                one.resolved = None if one.resolved is None else one.resolved - by
                one.escalated -= by
            for group in state.groups.values():
                group.last = None if group.last is None else group.last - by
                group.news = None if group.news is None else group.news - by
            for windows in state.windows.values():
                for window in windows.values():
                    window.moments = [(at - by, of, among) for at, of, among in window.moments]
            state.held = {lock: at - by for lock, at in state.held.items()}
            state.elsewhere = None if state.elsewhere is None else state.elsewhere - by
            state.looked -= by
            state.sent = [at - by for at in state.sent]
            self._quiet_until -= by
        state.at = now

    # -- alerts

    def _take(self, name: str, rule: Condition, found: Found, now: float) -> None:
        """Start, continue and end the alerts of a rule."""
        alerts = self.state.alerts
        room = _MOST - sum(one.rule == name for one in alerts.values())
        there: dict[str, frozenset[str]] = {}
        for key, matter in found.matters.items():
            room -= key not in alerts
            # Unsent alerts pile up if few notifications an hour are allowed.
            one = (key, matter) if key in alerts or room >= 0 else self._with_others(name, rule, matter)
            self._go_on(name, rule, *one, now)
            there[one[0]] = there.get(one[0], frozenset()) | matter.locks
        if found.unread is None:
            return
        told = self.state.groups.get(name, Group()).told
        for key, gone in [(key, one) for key, one in alerts.items() if one.rule == name]:
            gone.locks = sorted(there.get(key, frozenset()) | found.unread.intersection(gone.locks))
            if key in there or gone.locks or gone.resolved is not None:
                continue
            happened = isinstance(rule, (Count, Share)) and not gone.hidden
            if key in told:
                gone.resolved = now
            elif gone.fired is None or not happened:
                del alerts[key]
            # A late event is still sent; a state seen by a look is sent only if it lasts.

    def _with_others(self, name: str, rule: Condition, matter: Matter) -> tuple[str, Matter]:
        matter = matter._replace(labels={**self._labels, **rule.labels, **conditions.OTHERS})
        return conditions.fingerprint(name, matter.labels), matter

    def _go_on(self, name: str, rule: Condition, key: str, matter: Matter, now: float) -> None:
        one = self.state.alerts.get(key)
        if one is None:
            self.state.begun += 1
            one = Active(name, dict(matter.labels), "", "", matter.severity, now, instance=self.state.begun)
            one.began = matter.severity
            self.state.alerts[key] = one
        one.text, one.command, one.count, one.resolved = matter.text, matter.command, matter.number, None
        one.severity = worse(one.severity, matter.severity)
        one.times += matter.fresh
        if one.fired is None and now - one.since >= rule.hold:
            one.fired = now

    def _hide(self, decisions: Decisions, now: float) -> None:
        """Mark inhibited and silenced alerts. An alert inhibits before it fires: others may be effects."""
        alerts = self.state.alerts
        sources = [
            (self.rules[one.rule], one)
            for one in alerts.values()
            if one.rule in self.rules and self.rules[one.rule].inhibits and one.resolved is None
        ]
        for key, one in alerts.items():
            one.hidden = ""
            if any(
                one.rule in rule.inhibits
                and one.rule != other.rule  # it would hide itself, for good
                and all(one.labels.get(label) == other.labels.get(label) for label in rule.equal)
                for rule, other in sources
            ):
                one.hidden = "inhibited"
            elif any(matches(silence, key, one.rule, one.labels, now) for silence in decisions.silences):
                one.hidden = "silenced"

    def _acknowledge(self, decisions: Decisions) -> None:
        for key, one in self.state.alerts.items():
            one.acknowledged_by = acknowledged(one, decisions.acknowledged.get(key))

    # -- notifying

    def _tell(self, now: float) -> list[Notification]:
        state, timing = self.state, self.timing
        state.sent = [at for at in state.sent if at > now - HOUR]
        names = dict.fromkeys([*state.groups, *(one.rule for one in state.alerts.values())])
        ready = []
        for name in names:
            group = state.groups.setdefault(name, Group())
            alerts = {key: one for key, one in state.alerts.items() if one.rule == name}
            grouping.settle(group, alerts, now)
            when = grouping.due(group, alerts, timing)
            rule = self.rules.get(name)
            group.shared = group.shared if rule is None else turns.looks(rule)  # as it was, if it was removed
            if turns.leaving(rule, state, now, timing.group_wait):  # the other tells what begins
                alerts = {key: one for key, one in alerts.items() if key in group.told}
                when = (now, grouping.ended(group, alerts)) if grouping.over(group, alerts) else None
            elif turns.undecided(rule, state, now, timing.group_wait):
                when = None
            if when is not None and when[0] <= now and now >= self._quiet_until:
                notification = grouping.notification(name, group, alerts, when[1], now)
                origin = (group.shared and self._store) or state.origin
                ready.append((when[0], name, notification._replace(origin=origin), alerts))
        told = []
        ready.sort(key=lambda one: (*_rank(one[2]), one[0], one[1]))
        for _, name, notification, alerts in ready:
            if not self._allowed(notification):
                continue
            told.append(notification)
            state.sent.append(now)
            left = dict(alerts)
            grouping.after_sending(state.groups[name], left, now)
            for key in alerts.keys() - left.keys():
                del state.alerts[key]
        self._forget_groups(now)
        return told

    def _allowed(self, notification: Notification) -> bool:
        """Whether the hour has room. The last quarter of it is for P0 alone."""
        most = self.timing.most_per_hour
        return len(self.state.sent) < (most if notification.severity == "P0" else most - most // 4)

    def _forget_groups(self, now: float) -> None:
        """Forget a group without alerts once its last notification no longer delays the next one."""
        used = {one.rule for one in self.state.alerts.values()}
        for name, group in list(self.state.groups.items()):
            rested = group.last is None or now >= group.last + self.timing.group_interval
            if name not in used and not group.told and rested:
                del self.state.groups[name]


def _rank(notification: Notification) -> tuple[bool, bool, str]:
    """The order in which notifications use an hour's limit: P0, then news, then repeats and ends."""
    late = notification.reason in ("repeat", "resolved_member", "all_resolved")
    return notification.severity != "P0", late, notification.severity


def acknowledged(one: Active, word: Acknowledgement | None) -> str:
    """The person who acknowledged an alert, or "". An earlier alert's acknowledgement does not count."""
    # After a clock was put back, a word for an alert that is over has a later time than a new alert.
    if word is None or word.at < one.since or word.instance not in (0, one.instance):
        return ""
    return word.by


def matches(silence: Silence, key: str, rule: str, labels: Mapping[str, str], now: float) -> bool:
    """Whether a silence is about an alert, and holds now."""
    return (
        silence.starts <= now < silence.ends
        and silence.fingerprint in ("", key)
        and fnmatchcase(rule, silence.rule)
        and all(fnmatchcase(labels.get(label, ""), pattern) for label, pattern in silence.labels.items())
    )
