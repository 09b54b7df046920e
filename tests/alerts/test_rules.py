"""Rules as data: what a table may say, and what an error of one says."""

from __future__ import annotations

import re
import tomllib

import pytest

from lockkit.alerts.decoding import decode
from lockkit.alerts.in_force import of_config
from lockkit.alerts.rules import Count, Missed, Share, Step
from lockkit.alerts.shipped import SHIPPED
from lockkit.alerts.wording_of_rules import heard_words
from lockkit.config.config import load
from lockkit.errors import ConfigError
from lockkit.values.events import ALERTS


def test_every_alert_kind_has_a_shipped_rule():
    had = {source for rule in SHIPPED.values() for source in getattr(rule, "of", ())}
    assert {f"alert.{kind}" for kind in ALERTS} - had == set()


def test_every_shipped_rule_is_on_is_right_and_says_what_to_do():
    tables = {name: {"enabled": True} for name in SHIPPED}  # read and checked like those of a file
    assert decode(SHIPPED, tables) == dict(SHIPPED)
    for rule in SHIPPED.values():
        assert rule.command
        assert rule.runbook.endswith(".")


def test_the_rules_that_the_old_system_had_are_shipped():
    assert (SHIPPED["emergency_releases"].above, SHIPPED["emergency_releases"].severity) == (10, "P0")
    assert (SHIPPED["emergency_share"].above, SHIPPED["emergency_share"].severity) == (0.05, "P0")
    assert (SHIPPED["timeouts"].above, SHIPPED["timeouts"].severity) == (0.1, "P2")
    assert SHIPPED["ownership_violation"].escalate == (Step("P1", above=100),)
    for name in ("critical_failure", "script_errors", "zombie", "store_unreachable", "gpu_unhealthy"):
        assert SHIPPED[name].severity == "P0", name
    for name in ("recovered", "missed_run", "gpu_idle"):
        assert SHIPPED[name].severity == "P2", name


def test_a_shipped_rule_is_changed_key_by_key():
    got = decode(SHIPPED, tomllib.loads('[timeouts]\nabove = 0.2\nwindow = "20m"\nfor = "1m"'))
    shipped = SHIPPED["timeouts"]
    assert isinstance(shipped, Share)
    changed = got.pop("timeouts")
    assert (changed.above, changed.window, changed.hold, changed.text) == (0.2, 1200.0, 60.0, shipped.text)
    assert got == {name: rule for name, rule in SHIPPED.items() if name != "timeouts"}


def test_a_rule_is_silenced_by_enabled_false():
    assert SHIPPED.keys() - decode(SHIPPED, {"timeouts": {"enabled": False}}).keys() == {"timeouts"}


@pytest.mark.parametrize(
    "inhibits",
    [
        {"lost": ["lost"]},
        {"lost": ["timeouts"], "timeouts": ["lost"]},
        {"lost": ["zombie"], "zombie": ["old_hold", "lost"]},
    ],
)
def test_no_rule_inhibits_itself(inhibits):
    tables = {name: {"inhibits": others} for name, others in inhibits.items()}
    with pytest.raises(ConfigError, match=r"\[alerts.rules.lost\] inhibits: it inhibits itself"):
        decode(SHIPPED, tables)
    assert decode(SHIPPED, {**tables, "lost": {"enabled": False, "inhibits": inhibits["lost"]}})


def test_a_rule_of_ones_own():
    table = {"when": "count", "of": ["event.evicted"], "above": 3, "escalate": [{"to": "P1", "after": "2h"}]}
    rule = decode(SHIPPED, {"evictions": table})["evictions"]
    assert rule == Count(of=("event.evicted",), above=3, escalate=(Step("P1", after=7200.0),))


def test_a_period_of_a_missed_run():
    rule = decode(SHIPPED, {"missed_run": {"periods": {"nightly/report": "25h"}}})["missed_run"]
    assert isinstance(rule, Missed)
    assert rule.periods == {"nightly/report": 90_000.0}


@pytest.mark.parametrize(
    "text, told",
    [
        (
            "[lost]\naboove = 1",
            "[alerts.rules.lost] aboove: unknown key (did you mean above? allowed: when, ",
        ),
        ("[x]\nabove = 1", "[alerts.rules.x]: when is missing (allowed: count, share, seen, missed"),
        ('[x]\nwhen = "cont"', "when is none of the conditions (did you mean count?"),
        ('[x]\nwhen = "count"', "[alerts.rules.x] of: it is missing"),
        ('[lost]\nof = ["alert.lots"]', "of: nothing is called 'alert.lots' (did you mean alert.lost?)"),
        ("[lost]\nof = []", "of: it must name something"),
        ('[lost]\nwindow = "1 week"', "window: must be a duration, not '1 week'; write \"30s\""),
        ('[lost]\nwindow = "1ms"', "window: it must be at least 1s"),
        ("[lost]\nwindow = true", "window: must be a number of seconds, not True"),
        ("[timeouts]\nabove = 5", "above: Expected `float` <= 1.0"),
        ('[lost]\nseverity = "P3"', "severity: Invalid enum value 'P3'"),
        ('[lost]\ntext = "{lockk}"', "text: {lockk} is unknown (did you mean lock?"),
        ('[lost]\nescalate = [{to = "P0"}]', "escalate: a step needs after or above"),
        (
            '[lost]\nescalate = [{to = "P1", after = "2h"}, {to = "P0", after = "1h"}]',
            "each step must come later",
        ),
        ('[timeouts]\nescalate = [{to = "P0", above = 3}]', "above is only for a rule with when"),
        ("[lost]\nrounds = 11", "rounds: Expected `int` <= 10"),
        ('[lost]\ninhibits = ["zombi"]', "inhibits: there is no rule 'zombi' (did you mean zombie?)"),
        ('[missed_run]\nperiods.x = "0s"', "periods: a period must be at least 1s"),
        ('["a b"]\nabove = 1', "a rule's name has letters"),
    ],
)
def test_what_is_wrong_in_a_rule_is_told_with_file_rule_and_key(text, told):
    tables = tomllib.loads(text)
    sources = {f"alerts.rules.{name}": "/etc/x.toml" for name in tables}
    with pytest.raises(ConfigError, match=re.escape(told)) as raised:
        decode(SHIPPED, tables, sources)
    assert str(raised.value).startswith("/etc/x.toml: [alerts.rules.")


def test_rules_are_read_from_the_configuration(tmp_path):
    file = tmp_path / "lockkit.toml"
    file.write_text("[alerts.rules.timeouts]\nabove = 0.3\n[alerts.rules.lost]\nenabled = false")
    got = of_config(load(config=file, environ={}))
    assert got["timeouts"].above == 0.3
    assert "lost" not in got


def test_the_rules_that_hear_all_processes_are_those_that_need_a_look_alone():
    hears_all = {name for name, rule in SHIPPED.items() if heard_words(rule) == "all"}
    assert hears_all == {"store_unreachable", "zombie", "old_hold", "held_but_idle", "missed_run"}
