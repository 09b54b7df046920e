"""The rules in force, read from the tables of a configuration, and everything that is wrong in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import ValidationError, convert, structs

from lockkit.alerts.rules import Condition, Count, Missed, Seconds, Seen, Share
from lockkit.config.settings import allowed_hint, meant
from lockkit.errors import ConfigError
from lockkit.values import durations
from lockkit.values.events import ALERTS, COUNTERS, KINDS
from lockkit.values.redaction import redact_name

__all__ = ["SOURCES", "decode", "judged"]

SOURCES = (
    *(f"alert.{kind}" for kind in ALERTS),
    *(f"event.{kind}" for kind in KINDS),
    *(f"counter.{name}" for name in COUNTERS),
)
"""All that a rule can count: alerts and events by their kinds, and the counters of ``client.stats()``."""
PLACEHOLDERS = (
    "lock",
    "gpu",
    "host",
    "owner",
    "kind",
    "claim",
    "message",
    "count",
    "window",
    "share",
    "value",
    "period",
)
"""The words allowed in braces in the text and the command of a rule."""
TAGS = ("count", "share", "seen", "missed")
_KINDS: Mapping[str, type[Condition]] = dict(zip(TAGS, (Count, Share, Seen, Missed), strict=True))
_LEAST = 1.0
"""The shortest window, in seconds."""
_MOST_RULES = 500


def decode(
    shipped: Mapping[str, Condition],
    tables: Mapping[str, Mapping[str, object]],
    sources: Mapping[str, str] | None = None,
) -> dict[str, Condition]:
    """The rules in force, by name: shipped ones as configured, and own ones; without disabled ones.

    Args:
        shipped: The shipped rules.
        tables: The tables ``[alerts.rules.NAME]``, by name.
        sources: The file of each key, as :attr:`lockkit.config.Config.sources`, for errors.

    Raises:
        ConfigError: A table is wrong. The message names the file, the rule, the key, and what is allowed.
    """
    rules, problems = judged(shipped, tables, sources)
    if problems:
        raise problems[0]
    return {name: rule for name, rule in rules.items() if rule.enabled}


def judged(
    shipped: Mapping[str, Condition],
    tables: Mapping[str, Mapping[str, object]],
    sources: Mapping[str, str] | None = None,
) -> tuple[dict[str, Condition], list[ConfigError]]:
    """All readable rules, disabled ones too, and all errors. The arguments are those of :func:`decode`."""
    rules, problems = dict(shipped), list[ConfigError]()
    if len(tables) > _MOST_RULES:
        told = f"there are {len(tables)} tables [alerts.rules.NAME]; at most {_MOST_RULES} are allowed"
        return rules, [ConfigError(told)]
    for name, table in tables.items():
        where = (
            f"{(sources or {}).get(f'alerts.rules.{name}', 'configuration')}: "
            f"[alerts.rules.{redact_name(name)}]"
        )
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            problems.append(
                ConfigError(f"{where}: a rule's name has letters, digits, '_' and '-', at most 64")
            )
            continue
        try:
            rules[name] = _decoded(where, table, rules.get(name), shipped)
        except ConfigError as error:
            problems.append(error)
    for name, rule in rules.items():
        for other in rule.inhibits:
            if other not in rules and other not in tables:  # of a table that is wrong, the error is told
                where = (sources or {}).get(f"alerts.rules.{name}", "configuration")
                told = f"{where}: [alerts.rules.{name}] inhibits: there is no rule {redact_name(other)!r}"
                problems.append(ConfigError(told, hint=meant(other, rules) or "see: lockkit alerts rules"))
    for name in _circular(rules):
        where = (sources or {}).get(f"alerts.rules.{name}", "configuration")
        told = (
            f"{where}: [alerts.rules.{redact_name(name)}] inhibits: "
            "it inhibits itself, alone or through others, and would never be told"
        )
        problems.append(
            ConfigError(told, hint="take out the rule itself, or one of those that inhibit each other")
        )
    return rules, problems


def _circular(rules: Mapping[str, Condition]) -> list[str]:
    """The rules in force that inhibit themselves, alone or through others."""
    found = []
    for name, rule in rules.items():
        left, seen = list(rule.inhibits if rule.enabled else ()), set[str]()
        while left:
            other = left.pop()
            if other not in seen and other in rules and rules[other].enabled:
                seen.add(other)
                left += rules[other].inhibits
        if name in seen:
            found.append(name)
    return found


def _decoded(
    where: str, table: Mapping[str, object], known: Condition | None, shipped: Mapping[str, Condition]
) -> Condition:
    """One rule, from its known part and its table."""
    given = dict(table)
    tag = given.pop("when", None if known is None else known.__struct_config__.tag)
    kind = _KINDS.get(tag) if isinstance(tag, str) else None
    if kind is None:
        told = "when is missing" if tag is None else "when is none of the conditions"
        more = (
            f"; to change a shipped rule, use its name, such as {', '.join(list(shipped)[:2])}"
            if shipped
            else ""
        )
        raise ConfigError(f"{where}: {told}", hint=allowed_hint(tag, TAGS) + more)
    begin: dict[str, Any] = {}
    if isinstance(known, kind):
        begin = {one.encode_name: getattr(known, one.name) for one in structs.fields(kind)}
    try:
        rule: Condition = convert({**begin, **given}, kind, dec_hook=_seconds, from_attributes=False)
    except ValidationError as error:
        raise _told(where, kind, error) from None
    _check(where, rule)
    return rule


def _seconds(kind: type[object], value: object) -> object:
    """A duration of a file. msgspec makes a ValidationError of the ValueError, with the place."""
    if kind is not Seconds:
        raise NotImplementedError
    if isinstance(value, Seconds):
        return value
    try:
        return Seconds(
            durations.parse(value, what="it", zero=True)
            if isinstance(value, str)
            else durations.seconds(value, what="it", zero=True)
        )
    except ConfigError as error:
        raise ValueError(f'{error.message.removeprefix("it ")}; write "30s", "10m" or "2h"') from None


def _told(where: str, kind: type[Condition], error: ValidationError) -> ConfigError:
    told, _, place = str(error).partition(" - at `$")
    unknown = re.search(r"unknown field `(.*)`", told)
    missing = re.search(r"missing required field `(.*)`", told)
    named = unknown or missing
    key = ".".join(filter(None, (place.rstrip("`").strip("."), named[1] if named else "")))
    allowed = ["when", *(one.encode_name for one in structs.fields(kind))]
    what = "unknown key" if unknown else "it is missing" if missing else told
    hint = allowed_hint(unknown[1] if unknown else None, allowed) if named else None
    return ConfigError(f"{where} {redact_name(key)}: {what}", hint=hint)


def _check(where: str, rule: Condition) -> None:
    """Check what the types of a rule do not say."""

    def refuse(key: str, told: str, hint: str | None = None) -> None:
        raise ConfigError(f"{where} {key}: {told}", hint=hint)

    for key in ("of", "among"):
        named: Iterable[str] = getattr(rule, key, ())
        for source in named:
            if source not in SOURCES:
                refuse(
                    key,
                    f"nothing is called {redact_name(source)!r}",
                    meant(source, SOURCES) or "such as alert.lost, event.timeout, counter.busy",
                )
        if hasattr(rule, key) and not named:
            refuse(key, "it must name something", "such as alert.lost, event.timeout, counter.busy")
    if isinstance(rule, (Count, Share)) and rule.window < _LEAST:
        refuse("window", "it must be at least 1s")
    if isinstance(rule, Missed) and any(period < _LEAST for period in rule.periods.values()):
        refuse("periods", "a period must be at least 1s")
    for key, text in (("text", rule.text), ("command", rule.command)):
        for word in re.findall(r"\{(\w*)\}", text):
            if word not in PLACEHOLDERS:
                refuse(
                    key,
                    f"{{{word}}} is unknown",
                    allowed_hint(word, PLACEHOLDERS),
                )
    _check_steps(where, rule)


def _check_steps(where: str, rule: Condition) -> None:
    def refuse(key: str, told: str, hint: str | None = None) -> None:
        raise ConfigError(f"{where} {key}: {told}", hint=hint)

    before = 0.0
    for step in rule.escalate:
        if step.after is None and step.above is None:
            refuse("escalate", "a step needs after or above", '{to = "P1", after = "2h"}')
        if step.after is not None:
            if step.after <= before:
                refuse("escalate", "each step must come later than the one before it")
            before = step.after
        if step.above is not None and not isinstance(rule, Count):
            refuse("escalate", 'above is only for a rule with when = "count"')
