"""The conditions of rules: from happenings, looks and earlier counts to the current problems. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lockkit.alerts.commands import command_of
from lockkit.alerts.happenings import Happening, Look, Subject
from lockkit.alerts.notification import Severity
from lockkit.alerts.rules import Condition, Count, Missed, Rule, Seen, Share, worse
from lockkit.alerts.state import State, Window
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable
from lockkit.values import durations

__all__ = ["MOST", "Found", "Matter", "count", "find", "fingerprint", "jobs"]

MOST = 500
"""The most subjects of one rule with their own alerts; all further ones share one alert."""
OTHERS = {"others": "all beyond the first 500"}
"""The labels of that one alert."""
_MOMENTS = 128
"""The most moments kept in a window. Beyond it, neighbours merge in pairs, at the later of their times."""
_WORD = re.compile(r"\{(\w+)\}")
"""A word in braces in a text of a rule. One that is not known becomes `?`."""
_HELD_BY = ("event.acquired", "event.released")
"""The events that show that a lock was held."""


class Matter(NamedTuple):
    """One thing that is the matter, by a rule.

    Attributes:
        labels: The labels that make its fingerprint.
        text: The sentence.
        command: The command to type next.
        severity: The severity by the rule and by the alerts that came.
        fresh: The number of events or looks since the last step that showed it.
        number: The number of events in the window; 0 for all that is seen in looks.
        locks: The locks in which a look has seen it.
    """

    labels: Mapping[str, str]
    text: str
    command: str
    severity: Severity
    fresh: int = 1
    number: int = 0
    locks: frozenset[str] = frozenset()


class Found(NamedTuple):
    """The findings of a rule.

    Attributes:
        matters: The current problems, by fingerprint.
        unread: Locks of unknown state: earlier findings about them may still be true. None: all locks.
    """

    matters: Mapping[str, Matter]
    unread: frozenset[str] | None = frozenset()


_NOTHING_KNOWN = Found({}, None)


def fingerprint(rule: str, labels: Mapping[str, str]) -> str:
    """The name of an alert: 12 hex digits from its rule and its labels."""
    return hashlib.sha256(json.dumps([rule, sorted(labels.items())]).encode()).hexdigest()[:12]


def jobs(rules: Mapping[str, Condition]) -> frozenset[str]:
    """The locks of regular jobs."""
    return frozenset(lock for rule in rules.values() if isinstance(rule, Missed) for lock in rule.periods)


def count(rules: Mapping[str, Condition], state: State, happenings: Iterable[Happening], now: float) -> None:
    """Count happenings in the windows of the rules, and forget what is older than them."""
    wanted: dict[str, list[tuple[str, Count | Share, bool, bool]]] = {}
    missed = jobs(rules)
    for name, rule in rules.items():
        if isinstance(rule, (Count, Share)):
            all_of_them = rule.among if isinstance(rule, Share) else ()
            for source in {*rule.of, *all_of_them}:
                wanted.setdefault(source, []).append((name, rule, source in rule.of, source in all_of_them))
    for happening in happenings:
        for name, rule, of, among in wanted.get(happening.source, ()):
            _note(state.windows.setdefault(name, {}), rule, happening, now, (of, among))
        lock = happening.labels.get("lock", "")
        if lock in missed and happening.source in _HELD_BY:
            state.held[lock] = now
    _expire(rules, state, now)


def _note(
    windows: dict[str, Window],
    rule: Count | Share,
    happening: Happening,
    now: float,
    counts: tuple[bool, bool],
) -> None:
    of, among = counts
    labels: dict[str, str] = {key: happening.labels[key] for key in rule.by if key in happening.labels}
    key = json.dumps(labels, sort_keys=True)
    if key not in windows and len(windows) >= MOST:
        labels, key = OTHERS, "others"
    window = windows.setdefault(key, Window(labels))
    window.moments.append((now, of * happening.number, among * happening.number))
    if len(window.moments) > _MOMENTS:
        pairs = zip(window.moments[::2], window.moments[1::2], strict=False)
        last = window.moments[len(window.moments) // 2 * 2 :]
        window.moments = [(b[0], a[1] + b[1], a[2] + b[2]) for a, b in pairs] + last
    if of:
        window.fresh += happening.number
        window.message = happening.message
        window.claim = happening.labels.get("claim", "")
        if happening.severity is not None:
            window.severity = worse(happening.severity, window.severity or "P2")


def _expire(rules: Mapping[str, Condition], state: State, now: float) -> None:
    for name in list(state.windows):
        rule = rules.get(name)
        if not isinstance(rule, (Count, Share)):
            del state.windows[name]
            continue
        for key, window in list(state.windows[name].items()):
            window.moments = [moment for moment in window.moments if moment[0] > now - rule.window]
            if not window.moments:
                del state.windows[name][key]
    wanted = jobs(rules)
    for lock in state.held.keys() - wanted:
        del state.held[lock]


def find(
    name: str, rule: Condition, state: State, look: Look | None, now: float, labels: Mapping[str, str]
) -> Found:
    """Find the current problems by a rule.

    Args:
        name: The name of the rule.
        rule: The rule.
        state: The windows and held locks, as :func:`count` leaves them.
        look: The findings of a look just now; None if there was none.
        now: The time.
        labels: The labels of everything that this engine sees.
    """
    match rule:
        case Count() | Share():
            return Found(dict(_counted(name, rule, state, labels)))
        case Missed():
            return _missed(name, rule, state, look, now, labels)
        case Seen(what="unreachable"):
            if look is None:
                return _NOTHING_KNOWN
            return _seen(name, rule, [Subject({}, look.unreachable)] if look.unreachable else (), labels)
        case Seen():
            if look is None or look.unreachable or not look.elected:
                return _NOTHING_KNOWN
            found = _seen(name, rule, look.subjects.get(rule.what, ()), labels)
            return found._replace(unread=frozenset(look.unread))


def _counted(
    name: str, rule: Count | Share, state: State, labels: Mapping[str, str]
) -> Iterator[tuple[str, Matter]]:
    for window in state.windows.get(name, {}).values():
        fresh, window.fresh = window.fresh, 0
        number = sum(moment[1] for moment in window.moments)
        among = sum(moment[2] for moment in window.moments)
        if isinstance(rule, Count):
            matters, share = number > rule.above, 1.0
        else:
            share = min(number / among, 1.0) if among else 0.0
            matters = among >= rule.least and share > rule.above
        if matters:
            words = {
                "message": window.message,
                "claim": window.claim,
                "count": str(number),
                "share": f"{share:.1%}",
                "window": durations.show(rule.window),
            }
            severity = (window.severity or "P2") if rule.severity == "alert" else rule.severity
            yield _matter(name, rule, window.labels, labels, words, severity, fresh, number)


def _seen(name: str, rule: Rule, subjects: Sequence[Subject], labels: Mapping[str, str]) -> Found:
    matters: dict[str, Matter] = {}
    for subject in subjects:
        own: dict[str, str] = {key: subject.labels[key] for key in rule.by if key in subject.labels}
        words = {**subject.labels, "message": subject.message}
        key, matter = _matter(name, rule, own, labels, words, rule.severity_alone)
        if key not in matters and len(matters) >= MOST:
            key, matter = _matter(name, rule, OTHERS, labels, words, rule.severity_alone)
        seen = matters[key].locks if key in matters else frozenset()
        locks = {subject.labels["lock"]} if "lock" in subject.labels else set()
        matters[key] = matter._replace(locks=seen | locks)
    return Found(matters)


def _missed(
    name: str, rule: Missed, state: State, look: Look | None, now: float, labels: Mapping[str, str]
) -> Found:
    """The jobs that did not run. A lock of unknown past counts as just held, such as when the rule is new."""
    for lock in rule.periods:
        last = None if look is None else look.last.get(lock)
        if look is not None and lock in look.held:
            state.held[lock] = now
        elif last is not None:
            state.held[lock] = max(min(last, now), state.held.get(lock, 0.0))
        elif lock not in state.held:
            state.held[lock] = now
    if look is None or look.unreachable or not look.elected:
        return _NOTHING_KNOWN
    matters = {}
    for lock, period in rule.periods.items():
        since = now - state.held[lock]
        if since > period:
            value = f"{durations.show(since)} (since {durations.utc(state.held[lock])})"
            words = {"lock": lock, "value": value, "period": durations.show(period)}
            key, matter = _matter(name, rule, {"lock": lock}, labels, words, rule.severity_alone)
            matters[key] = matter
    return Found(matters)


def _matter(
    name: str,
    rule: Rule,
    own: Mapping[str, str],
    everywhere: Mapping[str, str],
    words: Mapping[str, str],
    severity: Severity,
    fresh: int = 1,
    number: int = 0,
) -> tuple[str, Matter]:
    labels = {**everywhere, **rule.labels, **own}
    known = {**labels, **words}
    text = printable(_WORD.sub(lambda found: known.get(found[1]) or "?", rule.text))
    command = command_of(rule.command, known)
    return fingerprint(name, labels), Matter(labels, text, command, severity, fresh, number)
