"""``lockkit alerts``: the rules of alerts, the alerts of now, and what people decide about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lockkit import durations
from lockkit.cli import completing, exits, output
from lockkit.cli.base import Group, Session, option
from lockkit.cli.base import command as make
from lockkit.cli.parameters import DURATION, Remark

if TYPE_CHECKING:
    from lockkit.alerts.desk import Desk

__all__ = ["command"]

command = Group(
    "alerts",
    help="""Show the rules of alerts and the alerts of now; silence and acknowledge them, and test the channels.

    An alert is told over the channels of the configuration by the process that runs the alert engine. These commands read and write
    the files of that engine, so they are for the same user on the same host. See: lockkit docs alerts
    """,
    examples="""
lockkit alerts list
lockkit alerts ack 5f2c9a01b7de --comment "looking into it"
lockkit alerts silence --rule 'gpu_*' --for 2h --comment "new driver"
lockkit alerts test
""",
)


def _desk(session: Session) -> Desk:
    from lockkit.alerts.desk import Desk, folder_of

    return Desk(folder_of(session.config()))


def _me() -> str:
    from lockkit.identity import user_name

    return user_name()


@make(
    "rules",
    group=command,
    short="Show the rules in force.",
    examples="lockkit alerts rules\nlockkit alerts rules --json | jq .rules",
)
def _rules(session: Session) -> None:
    """Show the rules in force: the shipped ones with the changes of the configuration, and those of the configuration."""
    from lockkit.alerts.in_force import of_config
    from lockkit.alerts.wording_of_rules import condition_words

    rules = of_config(session.config())
    if session.json:
        from lockkit.cli import documents, parts

        output.write_json(
            documents.AlertRules(
                rules=[
                    parts.AlertRule(
                        rule=name,
                        when=str(rule.__struct_config__.tag),
                        condition=condition_words(rule),
                        for_seconds=float(rule.hold),
                        severity=rule.severity,
                        command=rule.command or None,
                        runbook=rule.runbook or None,
                    )
                    for name, rule in rules.items()
                ]
            ),
            indent=True,
        )
        return
    from lockkit.cli.tables import add, show, table

    made = table("rule", "severity", "condition", "next command")
    for name, rule in rules.items():
        add(made, name, rule.severity, condition_words(rule), rule.command or "-")
    show(made)


@make("list", group=command, examples="lockkit alerts list\nlockkit alerts list --json")
def _list(session: Session) -> None:
    """List the alerts of now, the most severe first, and the silences."""
    desk = _desk(session)
    alerts, silences = desk.alerts(), desk.silences()
    if session.json:
        from lockkit.views import alerts as views
        from lockkit.views import documents

        output.write_json(
            documents.Alerts(
                alerts=[views.alert(one) for one in alerts],
                silences=[views.silence(one) for one in silences],
            ),
            indent=True,
        )
        return
    from lockkit.cli.tables import add, show, table

    if not alerts:
        output.say("no alerts" if desk.state() is not None else "no alerts: no alert engine has run here")
    else:
        made = table("alert", "severity", "state", "since", "times", "text")
        for one in alerts:
            seen = one.alert
            state = ", ".join(
                filter(
                    None, (one.state, one.hidden, seen.acknowledged_by and f"{seen.acknowledged_by} has it")
                )
            )
            add(made, seen.fingerprint, seen.severity, state, _ago(seen.since), str(seen.times), seen.text)
        show(made)
    for each in silences:
        about = " ".join(
            filter(
                None, (each.fingerprint, each.rule, *(f"{key}={value}" for key, value in each.labels.items()))
            )
        )
        left = durations.show(max(each.ends - _now(), 0.0))
        output.say(
            f"silence {each.id} of {each.author}: {about}, for {left} more"
            + (f"; {each.comment}" if each.comment else "")
        )


@make(
    "silence",
    group=command,
    short="Tell nothing of some alerts for a time.",
    examples="""
lockkit alerts silence 5f2c9a01b7de --for 2h --comment "known"
lockkit alerts silence --rule 'gpu_*' --for 2h
lockkit alerts silence --label 'lock=nightly/*' --for 1d
lockkit alerts silence --end 9c01d2aa
""",
)
@click.argument("fingerprint", required=False, shell_complete=completing.alerts)
@option("--for", "seconds", type=DURATION, help="How long.")
@option("--rule", metavar="PATTERN", help="Only alerts of these rules; * stands for any text.")
@option(
    "--label",
    "labels",
    metavar="KEY=PATTERN",
    multiple=True,
    help="Only alerts with this label; may be repeated.",
)
@option("--comment", type=Remark(), help="Why; shown in lists.")
@option("--end", metavar="ID", help="End this silence.")
def _silence(
    session: Session,
    *,
    fingerprint: str | None,
    seconds: float | None,
    rule: str | None,
    labels: tuple[str, ...],
    comment: str | None,
    end: str | None,
) -> None:
    """Tell nothing of one alert, or of all that match, for a time.

    What was told before is still told to be over. An alert that still fires when the silence ends is told then.
    """
    desk = _desk(session)
    if end is not None:
        if fingerprint or rule or labels or seconds is not None:
            raise click.UsageError("--end stands alone")
        made = desk.end_silence(end)
        if made is None:
            raise exits.CommandFailed(
                f"there is no silence {end!r}",
                code=exits.FAILED,
                kind="absent",
                hint="see: lockkit alerts list",
            )
    else:
        if seconds is None:
            raise click.UsageError("--for is missing: how long the silence lasts, such as --for 2h")
        pairs = [label.partition("=") for label in labels]
        if not all(key and sign for key, sign, _ in pairs):
            raise click.UsageError("--label is written KEY=PATTERN, such as --label 'lock=nightly/*'")
        made = desk.silence(
            author=_me(),
            seconds=seconds,
            comment=comment or "",
            rule=rule or "*",
            labels={key: value for key, _, value in pairs},
            fingerprint=fingerprint or "",
        )
    if session.json:
        from lockkit.views import alerts as views
        from lockkit.views import documents

        output.write_json(documents.AlertSilence(silence=views.silence(made), ended=end is not None))
    elif end is not None:
        output.say(f"silence {made.id} has ended")
    else:
        output.say(
            f"silence {made.id} for {durations.show(made.ends - made.starts)}; to end it: lockkit alerts silence --end {made.id}"
        )


@make(
    "ack",
    group=command,
    short="Say that you deal with an alert.",
    examples="lockkit alerts ack 5f2c9a01b7de\nlockkit alerts ack 5f2c9a01b7de --comment 'ticket 4711'",
)
@click.argument("fingerprint", shell_complete=completing.alerts)
@option("--comment", type=Remark(), help="A remark.")
def _ack(session: Session, *, fingerprint: str, comment: str | None) -> None:
    """Say that you deal with an alert. It is neither repeated nor escalated any more, until it ends."""
    member = _desk(session).acknowledge(fingerprint, author=_me(), comment=comment or "")
    if member is None:
        raise exits.CommandFailed(
            f"there is no alert {fingerprint!r}",
            code=exits.FAILED,
            kind="absent",
            hint="see: lockkit alerts list",
        )
    if session.json:
        from lockkit.views import documents

        output.write_json(
            documents.AlertAck(
                fingerprint=fingerprint,
                rule=member.rule,
                text=member.text,
                acknowledged_by=member.acknowledged_by,
            )
        )
    else:
        output.say(f"acknowledged by {member.acknowledged_by}: {member.text}")


@make(
    "test",
    group=command,
    short="Send a test message over the channels, at once.",
    examples="lockkit alerts test\nlockkit alerts test pager",
)
@click.argument("channels", nargs=-1, metavar="[CHANNEL]...")
def _test(session: Session, *, channels: tuple[str, ...]) -> int:
    """Send a test message over each channel, or over those named, whatever their severities and limits.

    Exit code: 0 each has taken it, 1 one has not; 78 there is no such channel.
    """
    from lockkit.alerts.notification import Member, Notification
    from lockkit.alerts.opening import channels_of, deliver_once
    from lockkit.errors import ConfigError
    from lockkit.identity import this_process

    config, now = session.config(), _now()
    known = {one.name: one for one in channels_of(config.alerts.get("channels", {}), config.sources)}
    missing = [name for name in channels if name not in known]
    if missing or not known:
        there = f"there are {', '.join(sorted(known))}" if known else "write a table [alerts.channels.NAME]"
        raise ConfigError(
            f"there is no channel {missing[0]!r}" if missing else "no channel is configured", hint=there
        )
    text = f"This is a test of lockkit's alerts by {_me()}. Nothing is the matter."
    labels = {"host": this_process().host, "namespace": config.namespace}
    member = Member("0" * 12, "test", "P2", labels, text, now, 1, "lockkit alerts list", now)
    about = Notification("test", "all_resolved", "P2", (member,), now)
    outcomes = [deliver_once(known[name], about) for name in channels or sorted(known)]
    if session.json:
        from lockkit.cli import documents, parts

        output.write_json(
            documents.AlertTest(
                channels=[
                    parts.AlertDelivery(
                        channel=one.channel,
                        delivered=one.delivered,
                        error=one.error or None,
                        duration_seconds=one.seconds,
                    )
                    for one in outcomes
                ]
            )
        )
    else:
        for one in outcomes:
            output.say(
                f"{one.channel}: "
                + (f"taken in {durations.show(one.seconds)}" if one.delivered else f"failed: {one.error}")
            )
    return exits.OK if all(one.delivered for one in outcomes) else exits.FAILED


def _now() -> float:
    from lockkit.clock import SYSTEM

    return SYSTEM.wall()


def _ago(at: float) -> str:
    return durations.age(max(_now() - at, 0.0))
