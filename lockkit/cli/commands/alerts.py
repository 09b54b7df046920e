"""``lockkit alerts``: the rules of alerts, the alerts of now, and what people decide about them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from lockkit.cli import completing, exits, output
from lockkit.cli.base import Group, Session, option
from lockkit.cli.base import command as make
from lockkit.cli.parameters import DURATION, Duration, Remark
from lockkit.values import durations

if TYPE_CHECKING:
    from lockkit.alerts.channels import Channel
    from lockkit.alerts.desk import Desk
    from lockkit.alerts.notification import Reason
    from lockkit.alerts.outcomes import Outcome

__all__ = ["command"]

command = Group(
    "alerts",
    help="""Show the rules of alerts and the alerts of now; silence and acknowledge them, and test the
    channels.

    An alert is told over the channels of the configuration by the process that runs the alert engine. These
    commands read and write the files of that engine, so they are for the same user on the same host. See:
    lockkit docs alerts
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
    from lockkit.values.identity import user_name

    return user_name()


@make(
    "rules",
    group=command,
    short="Show the rules in force.",
    examples="lockkit alerts rules\nlockkit alerts rules --json | jq .rules",
)
def _rules(session: Session) -> None:
    """Show the rules in force: the shipped ones, as changed by the configuration, and the configured ones."""
    from lockkit.alerts.in_force import of_config
    from lockkit.alerts.wording_of_rules import condition_words

    rules = of_config(session.config())
    if session.json:
        from lockkit.cli import documents, parts
        from lockkit.views import making

        shown = [
            making.made_of(
                parts.AlertRule,
                rule,
                rule=name,
                when=str(rule.__struct_config__.tag),
                condition=condition_words(rule),
                for_seconds=float(rule.hold),
            )
            for name, rule in rules.items()
        ]
        output.write_json(documents.AlertRules(rules=shown), indent=True)
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
        from lockkit.views import documents, making, parts

        shown = [making.made_of(parts.ShownAlert, one, one.alert) for one in alerts]
        output.print_json(documents.Alerts, alerts=shown, silences=silences, indent=True)
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
    """Mute one alert, or all that match, for a while.

    The end of an alert that was sent before is still sent. An alert that fires when the silence ends is
    sent then.
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
        from lockkit.views import documents

        output.print_json(documents.AlertSilence, silence=made, ended=end is not None)
    elif end is not None:
        output.say(f"silence {made.id} has ended")
    else:
        output.say(
            f"silence {made.id} for {durations.show(made.ends - made.starts)}; to end it: lockkit alerts "
            f"silence --end {made.id}"
        )


@make(
    "ack",
    group=command,
    short="Say that you deal with an alert.",
    examples="""
lockkit alerts ack 5f2c9a01b7de
lockkit alerts ack 5f2c9a01b7de --comment 'ticket 4711'
lockkit alerts ack 5f2c9a01b7de --undo
""",
)
@click.argument("fingerprint", shell_complete=completing.alerts)
@option("--comment", type=Remark(), help="A remark.")
@option("--undo", is_flag=True, help="Nobody deals with it any more: it is repeated and escalated again.")
def _ack(session: Session, *, fingerprint: str, comment: str | None, undo: bool) -> None:
    """Say that you deal with an alert. It is neither repeated nor escalated any more, until it ends."""
    desk = _desk(session)
    if undo:
        member = desk.take_back(fingerprint)
    else:
        member = desk.acknowledge(fingerprint, author=_me(), comment=comment or "")
    if member is None:
        raise exits.CommandFailed(
            f"there is no alert {fingerprint!r}{' that somebody deals with' if undo else ''}",
            code=exits.FAILED,
            kind="absent",
            hint="see: lockkit alerts list",
        )
    if session.json:
        from lockkit.views import documents

        output.print_json(documents.AlertAck, member)
    elif undo:
        output.say(f"nobody deals with it any more: {member.text}")
    else:
        output.say(f"acknowledged by {member.acknowledged_by}: {member.text}")


@make(
    "test",
    group=command,
    short="Send a test alert over the channels, and then its end.",
    examples="lockkit alerts test\nlockkit alerts test pager --for 5m",
)
@click.argument("channels", nargs=-1, metavar="[CHANNEL]...")
@option(
    "--for",
    "seconds",
    type=Duration(zero=True),
    default="1m",
    help="How long the alert fires at services that keep it, such as PagerDuty.  [default: 1m]",
)
def _test(session: Session, *, channels: tuple[str, ...], seconds: float) -> int:
    """Send a test alert over each channel, or over those named, whatever their limits, and then its end.

    The alert has the worst severity of its channel, so it wakes those whom a real one would. PagerDuty and
    Alertmanager get its end after --for, or at once on Ctrl-C, so that there is time to page: Alertmanager
    ignores an alert that ends within its group_wait.

    Exit code: 0 each has taken both, 1 one has not; 78 there is no such channel.
    """
    from lockkit.alerts.linking import address
    from lockkit.alerts.notification import Member, Notification
    from lockkit.alerts.opening import channels_of, deliver_once, sink_of
    from lockkit.errors import ConfigError
    from lockkit.values.identity import this_process

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
    link = address(config.serve_public_url)
    tested = [known[name] for name in dict.fromkeys(channels) or sorted(known)]

    def send(one: Channel, ended: float | None) -> Outcome:
        severity = one.severities[0]
        member = Member(
            "0" * 12, "test", severity, labels, text, now, 1, "lockkit alerts list", ended, link=link
        )
        reason: Reason = "first" if ended is None else "all_resolved"
        group = f"test {labels['host']} {now:.0f}"  # so that the end of one test is not that of another
        return deliver_once(one, Notification(group, reason, severity, (member,), ended or now))

    taken: dict[str, Outcome] = {}
    ends: dict[str, Outcome] = {}
    try:
        for one in tested:
            outcome = taken[one.name] = send(one, None)
            if not session.json:
                took = (
                    f"{_service(one)} has taken the alert as {one.severities[0]} in "
                    f"{durations.show(outcome.seconds)}"
                )
                output.say(f"{one.name}: {took if outcome.delivered else f'failed: {outcome.error}'}")
        if any(taken[one.name].delivered and getattr(sink_of(one), "keeps_state", False) for one in tested):
            time.sleep(seconds)
    finally:  # also where it is not known whether the service has taken it
        for one in tested:
            ends[one.name] = send(one, _now())
    if session.json:
        _write_test(tested, taken, ends)
    else:
        for one in tested:
            if taken[one.name].delivered and not ends[one.name].delivered:
                output.say(f"{one.name}: it has not taken that the alert is over: {ends[one.name].error}")
        reached = [f"{one.name} ({_service(one)})" for one in tested if taken[one.name].delivered]
        output.say(f"reached: {', '.join(reached) or 'nobody'}; ask there whether the alert and its end came")
    both = all(each.delivered for each in (*taken.values(), *ends.values()))
    return exits.OK if both else exits.FAILED


def _write_test(tested: Sequence[Channel], taken: Mapping[str, Outcome], ends: Mapping[str, Outcome]) -> None:
    from lockkit.cli import documents, parts

    channels = [
        parts.AlertDelivery(
            channel=one.name,
            service=_service(one),
            severity=one.severities[0],
            delivered=taken[one.name].delivered,
            ended=ends[one.name].delivered,
            error=taken[one.name].error or ends[one.name].error or None,
            duration_seconds=taken[one.name].seconds,
        )
        for one in tested
    ]
    output.write_json(documents.AlertTest(channels=channels))


def _service(one: Channel) -> str:
    """The service of a channel, without anything that may be secret."""
    from urllib.parse import urlsplit

    from lockkit.alerts.channels import secret
    from lockkit.errors import ConfigError

    try:
        parts = urlsplit(secret(one.url))
    except (ConfigError, ValueError):
        return one.type
    if one.type == "apprise":
        return f"{parts.scheme}://"
    return f"{one.type} at {parts.hostname}" if parts.hostname else one.type


def _now() -> float:
    from lockkit.lib.clock import SYSTEM

    return SYSTEM.wall()


def _ago(at: float) -> str:
    return durations.age(max(_now() - at, 0.0))
