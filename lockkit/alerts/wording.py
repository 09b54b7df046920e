"""The words of a notification: a subject of one line, and a body as plain text, Markdown or HTML.

Names, owners and texts from outside are made printable, shortened and escaped, so that a lock called
``<!channel>`` alerts nobody. The Markdown is common to Slack, DingTalk, Teams and Discord: lists and code.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping

from lockkit.alerts import commands
from lockkit.alerts.notification import Member, Notification, Reason
from lockkit.lib.printable import printable
from lockkit.values.durations import utc

__all__ = ["REASONS", "as_html", "as_markdown", "as_text", "subject", "subject_markdown"]

REASONS: Mapping[Reason, str] = {
    "first": "This is new.",
    "new_member": "More has come to what was reported before.",
    "resolved_member": "A part of what was reported is over.",
    "all_resolved": "All of this is over. Nothing needs to be done.",
    "repeat": "This still lasts.",
    "escalated": "Nobody has acknowledged this, so it was raised to {severity} (step {step}).",
}
"""Why a notification comes, in words."""

_MOST_MEMBERS = 20
_MOST_SUBJECT = 160
_MOST_TEXT = 600
_WHERE = ("namespace", "host", "gpu", "store")
_WHO = ("owner", "user", "holder", "pid", "task")
_SUBJECT = ("lock", "gpu", "host", "channel")
_COMMANDS = ("Next", "Ack")
"""The rows that are commands."""


def subject(notification: Notification) -> str:
    """One line: severity, what it is about, and the text of the first alert."""
    first = notification.members[0] if notification.members else None
    over = notification.reason == "all_resolved"
    head = f"lockkit {'resolved' if over else notification.severity}"
    if first is None:
        return head
    what = _about(first)
    more = len(notification.members) - 1
    tail = f" (and {more} more)" if more else ""
    told = f"{head}: {f'{what}: ' if what else ''}{_short(first.text)}"
    return told[: _MOST_SUBJECT - len(tail)] + tail


def subject_markdown(notification: Notification) -> str:
    """The subject, so that neither Markdown nor Slack's mentions find anything in it."""
    return _plain(subject(notification))


def as_text(notification: Notification) -> str:
    """The body as plain text."""
    blocks = [_why(notification)]
    for member in _shown(notification):
        lines = [_heading(member)]
        lines += [f"  {label + ':':<7} {value}" for label, value in _rows(member, notification.at)]
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, *_rest(notification)]) + "\n"


def as_markdown(notification: Notification) -> str:
    """The body as Markdown."""
    blocks = [_why(notification)]
    for member in _shown(notification):
        lines = [_plain(_heading(member)), ""]
        for label, value in _rows(member, notification.at):
            if label not in _COMMANDS:
                lines.append(f"- {label}: {_plain(value)}")
            elif commands.in_markdown(value):
                lines.append(f"- {label}: `{value}`")
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, *_rest(notification)]) + "\n"


def as_html(notification: Notification) -> str:
    """The body as HTML, without scripts, styles or pictures from elsewhere."""
    parts = [f"<p>{html.escape(_why(notification))}</p>"]
    for member in _shown(notification):
        parts.append(f"<h3>{html.escape(_heading(member))}</h3>\n<table>")
        for label, value in _rows(member, notification.at):
            shown = html.escape(value)
            cell = f"<code>{shown}</code>" if label in _COMMANDS else shown
            if label == "Page":
                cell = f'<a href="{shown}">{shown}</a>'
            parts.append(f'<tr><th align="left">{label}</th><td>{cell}</td></tr>')
        parts.append("</table>")
    parts += [f"<p>{html.escape(line)}</p>" for line in _rest(notification)]
    return "\n".join(parts) + "\n"


def _why(notification: Notification) -> str:
    return REASONS[notification.reason].format(severity=notification.severity, step=notification.step)


def _about(member: Member) -> str:
    return next((_short(member.labels[key]) for key in _SUBJECT if member.labels.get(key)), "")


def _heading(member: Member) -> str:
    what = _about(member)
    return f"{member.severity} {f'{what}: ' if what else ''}{_short(member.text)}"


def _rows(member: Member, now: float) -> Iterator[tuple[str, str]]:
    """The rows of an alert: what, where, who, since when, what to type, where to look. Skips empty rows."""
    # Here, because msgspec comes with it: nothing heavy is imported before an alert.
    from lockkit.alerts.shipped import SHIPPED

    yield "Rule", _short(member.rule)
    told = {key: _short(value) for key, value in member.labels.items() if value}
    about = next((key for key in _SUBJECT if key in told), "")
    where = [f"{key} {told.pop(key)}" for key in _WHERE if key in told and key != about]
    who = [f"{key} {told.pop(key)}" for key in _WHO if key in told]
    told.pop(about, None)
    if where:
        yield "Where", ", ".join(where)
    if who:
        yield "Who", ", ".join(who).removeprefix("owner ")
    if told:
        yield "More", ", ".join(f"{key} {value}" for key, value in sorted(told.items()))
    if member.resolved is not None:
        yield "Over", f"since {utc(member.resolved)}"
    if member.acknowledged_by:
        yield "Taken", f"by {_short(member.acknowledged_by)}"
    if member.resolved is None and (command := commands.shown(member.command)):
        yield "Next", command
    if member.acknowledge:
        yield "Ack", _short(member.acknowledge)
    if member.link:
        yield "Page", _short(member.link)
    end = now if member.resolved is None else member.resolved
    seen = f", seen {member.times} times" if member.times > 1 else ""
    yield (
        "Alert",
        f"{_short(member.fingerprint)}, since {utc(member.since)} ({_span(end - member.since)}{seen})",
    )
    if member.rule in SHIPPED and member.resolved is None:
        yield "Read", f"lockkit docs runbook, {member.rule}"


def _shown(notification: Notification) -> tuple[Member, ...]:
    return notification.members[:_MOST_MEMBERS]


def _rest(notification: Notification) -> list[str]:
    more = len(notification.members) - _MOST_MEMBERS
    return [f"And {more} more: lockkit alerts list"] if more > 0 else []


def _span(seconds: float) -> str:
    whole = max(int(seconds), 0)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if whole >= 2 * size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def _short(text: str) -> str:
    told = printable(text)
    return told if len(told) <= _MOST_TEXT else f"{told[: _MOST_TEXT - 3]}..."


# Not by an apostrophe: a text may have a command in it, whose quotes that would end.
_PLAIN = str.maketrans({"<": "\u2039", ">": "\u203a", "`": "\u02cb", "*": "\u2217", "[": "(", "]": ")"})


def _plain(text: str) -> str:
    """A text that Markdown, and Slack's mentions, leave alone."""
    return text.translate(_PLAIN)
