"""The command of an alert: safe to paste into a shell, whatever a lock is called, or not shown."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockkit.alerts.commands import command_of, shown
from lockkit.alerts.decoding import decode
from lockkit.alerts.engine import Engine
from lockkit.alerts.grouping import Timing
from lockkit.alerts.happenings import of_alert
from lockkit.alerts.shipped import SHIPPED
from lockkit.alerts.sinks import alertmanager, pagerduty
from lockkit.alerts.wording import as_html, as_markdown, as_text
from lockkit.facts import Alert
from support.notifications import notification

CHARACTERS = st.one_of(
    st.sampled_from("`'\"\\$;&|<>()!#*?[]{}~ -\u202e\u0085\u00a0"),
    st.characters(exclude_categories=["Cs", "Cc"]),
)
NAMES = st.text(CHARACTERS, min_size=1, max_size=30)
EVIL = "a`;echo PWNED;`b"


def told_about(lock):
    """The notification of a lost lock, by the shipped rule."""
    engine = Engine(decode(SHIPPED, {}), Timing(0.0, 300.0, 14_400.0, 60), now=1000.0)
    [told] = engine.step(1001.0, [of_alert(Alert("lost", "P1", "it is lost", lock, "c0ffee"))])
    return told


def next_of(told):
    """The command as the text and as the Markdown show it."""
    text = re.search(r"^  Next:   (.*)$", as_text(told), re.MULTILINE)
    markdown = re.search(r"^- Next: `([^`]*)`$", as_markdown(told), re.MULTILINE)
    return text and text[1], markdown and markdown[1]


def words_of(command):
    """The words that bash gives to the programs that a command runs."""
    script = "lockkit() { printf '%s\\0' \"$@\"; }\n" + command
    done = subprocess.run(["bash", "-c", script], capture_output=True, env={"LC_ALL": "C.UTF-8"}, check=True)
    assert done.stderr == b""
    return done.stdout.decode().split("\0")[:-1]


@settings(max_examples=60, deadline=None)
@given(NAMES)
@example(EVIL)
@example("-rf")
@example("a\u202eb")
@example("a&lt;b")
@example("it's")
@example("<!channel>")
def test_the_command_that_is_shown_is_about_that_lock_and_no_other(name):
    text, markdown = next_of(told_about(name))

    assert text == markdown
    assert words_of(text) == ["explain", *(["--"] if name.startswith("-") else []), name]


def test_a_usual_name_is_shown_as_it_is():
    assert next_of(told_about("nightly/report"))[0] == "lockkit explain nightly/report"


def test_a_long_command_is_left_out_and_never_cut():
    told = told_about("\u202e" * 160)

    assert next_of(told) == (None, None)
    assert "Next" not in as_html(told)
    assert pagerduty.event(told, "key")["payload"]["custom_details"]["alerts"][0]["next"] == ""
    assert "command" not in alertmanager.alerts(told, told.at)[0]["annotations"]


def test_the_longest_name_is_not_cut():
    name = "x" * 480
    assert words_of(next_of(told_about(name))[0]) == ["explain", name]
    assert next_of(told_about("x" * 512)) == (None, None)


@pytest.mark.parametrize("template", ["show '{lock}'", 'show "{lock}"', "show '{lock} and", "show {claim}"])
def test_a_command_that_cannot_be_filled_in_is_left_out(template):
    assert command_of(template, {"lock": EVIL, "claim": ""}) == ""


@pytest.mark.parametrize(
    "template, command",
    [
        ("show {lock}", "show -- -rf"),
        ("show --lock={lock} --all", "show --lock=-rf --all"),
        ("show --lock {lock}", ""),
        ("show {lock} --all", ""),
    ],
)
def test_a_name_that_begins_like_an_option_is_none(template, command):
    assert command_of(template, {"lock": "-rf"}) == command


def test_a_command_that_markdown_would_change_is_not_shown_there():
    command = "lockkit explain 'a`b'"
    assert next_of(notification(command=command)) == (command, None)


def test_markdown_ends_no_quotes_of_a_command_in_a_text():
    told = as_markdown(notification(text=f"see: lockkit explain '{EVIL}'", command=""))
    assert EVIL.replace("`", "'") not in told


def test_what_does_not_print_is_not_shown_as_a_command():
    assert shown("lockkit explain a\u202eb") == ""
