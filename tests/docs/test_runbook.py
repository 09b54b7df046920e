"""docs/ops/runbook.md: a section for each symptom and each rule, all of one form, with commands that run."""

from __future__ import annotations

import os
import re
import shlex
import sys

import pytest

import lockkit
from lockkit.alerts.shipped import SHIPPED
from lockkit.alerts.wording import as_markdown, as_text
from lockkit.cli.topics import text, topics
from support.forked import completed
from support.notifications import notification
from support.pages import DOCS

PAGE = (DOCS / "ops/runbook.md").read_text()
RULES = (DOCS / "ops/prometheus/lockkit.rules.yml").read_text()
PARTS = ("You see", "It means", "Look", "Do", "Do not", "It is over")
SYMPTOMS = (
    *("Nothing moves on a lock", "Two ran at once", "Redis was restored from a backup"),
    "etcd or ZooKeeper was restored from a backup",
    *("Roll back the library", "Move to another store without a double hold"),
    *("A card is held and idle", "A card is quarantined", "The disk of a journal is full"),
    *("The store is down", "Too many waiters", "The server says warning or unhealthy"),
)


def sections(part):
    """The sections of a part of the page, by their headings."""
    body = PAGE.partition(f"\n## {part}\n")[2].partition("\n## ")[0]
    _, *found = re.split(r"^### (.+)\n", body, flags=re.MULTILINE)
    return dict(zip(found[::2], found[1::2], strict=True))


def prometheus():
    """The alerts of Prometheus' rules, each with its text."""
    _, *found = re.split(r"^ +- alert: (\w+)\n", RULES, flags=re.MULTILINE)
    return dict(zip(found[::2], found[1::2], strict=True))


def told(rule, reason="first"):
    """A notification about one alert of a rule."""
    made = notification(reason=reason)
    return made._replace(members=tuple(member._replace(rule=rule) for member in made.members))


def test_every_symptom_has_a_section():
    assert tuple(sections("By symptom")) == SYMPTOMS


def test_every_rule_has_a_section_and_every_section_a_rule():
    named = [rule for heading in sections("By alert") for rule in heading.split(", ")]

    assert sorted(named) == sorted([*SHIPPED, *prometheus()])


@pytest.mark.parametrize("heading", [*sections("By symptom"), *sections("By alert")])
def test_a_section_says_all_that_somebody_needs_at_night(heading):
    body = {**sections("By symptom"), **sections("By alert")}[heading].replace("\n", " ")

    places = [re.search(rf"\*\*{part}\b(?! not\*\*)|\*\*{part}\*\*", body) for part in PARTS]
    assert None not in places, f"{heading} lacks a part"
    assert [place.start() for place in places] == sorted(place.start() for place in places)


@pytest.mark.parametrize("rule", prometheus())
def test_a_rule_of_prometheus_names_its_section(rule):
    assert f"runbook: lockkit docs runbook, {rule}\n" in prometheus()[rule]


@pytest.mark.parametrize("rule", SHIPPED)
def test_what_people_get_names_the_section_of_the_rule(rule):
    assert f"lockkit docs runbook, {rule}\n" in as_text(told(rule))
    assert f"lockkit docs runbook, {rule}\n" in as_markdown(told(rule))


def test_an_alert_that_is_over_or_of_a_rule_of_ones_own_names_no_section():
    assert "runbook" not in as_text(told("lost", "all_resolved")) + as_text(told("mine"))


def test_the_page_is_a_topic_of_the_command_line():
    assert topics()["runbook"].place == "ops/runbook.md"
    assert "### missed_run, LockkitMissedRun" in text("runbook")


# -- the commands


COMMANDS = sorted(
    {
        line
        for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
        for line in re.findall(r"^\$ (lockkit .*)$", block, re.MULTILINE)
    }
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A home in which somebody holds `backup`, and which has two simulated cards and a journal."""
    home = tmp_path_factory.mktemp("night")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("LOCKKIT_", "XDG_"))}
    environ |= {"HOME": str(home), "LOCKKIT_STATE_DIR": str(home / "state"), "LOCKKIT_JOURNAL": "1"}
    environ |= {"LOCKKIT_CONFIG": "/dev/null", "LOCKKIT_GPU_SIMULATE": "2"}
    (home / "state").mkdir(mode=0o700)
    url = f"sqlite:{home}/state/lockkit.db"
    with lockkit.connect(url) as client, client.lock("backup").acquire(reason="nightly") as lease:
        yield environ, lease


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_runs_and_changes_nothing(scene, line):
    environ, lease = scene
    done = completed([sys.executable, "-m", *shlex.split(line)], env=environ)

    # 1: something is found; 65: the journal is not enough for the audit to tell.
    assert done.returncode in {0, 1, 65}, done.stderr
    assert "Traceback" not in done.stderr
    lease.confirm()
