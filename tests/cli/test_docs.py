"""``lockkit docs``: the pages as texts, on a terminal by way of a pager, and never in a pipe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lockkit.cli import topics

ROOT = Path(__file__).parents[2]
TOPICS = topics.topics()


def test_without_a_topic_the_topics_are_listed_with_a_line_each(lockkit):
    rows = lockkit("docs").stdout.splitlines()

    assert len(rows) == len(TOPICS) > 20
    assert ["all-users", "One lock for all users of a host"] in [row.split(maxsplit=1) for row in rows]
    assert all(len(row) <= 80 for row in rows)
    assert [row["topic"] for row in lockkit.json("docs")["topics"]] == list(TOPICS)


def test_a_page_is_written_as_it_is_and_as_json(lockkit):
    page = lockkit("docs", "all-users").stdout

    assert page.startswith("# One lock for all users of a host\n\nBy default")
    document = lockkit.json("docs", "all-users")
    assert (document["title"], document["text"]) == ("One lock for all users of a host", page)


def test_examples_are_shown_as_python(lockkit):
    assert "```python\n>>> client" in lockkit("docs", "concepts").stdout
    page = lockkit("docs", "test-code-that-locks").stdout
    assert "```python\ndef test_the_program(lockkit_client, monkeypatch):\n" in page
    assert "code-block" not in page


@pytest.mark.parametrize(
    "wanted, meant",
    [
        ("al-users", "all-users"),
        ("users", "all-users"),
        ("docs/ops/redis-acl.md", "redis-acl"),
        ("SQLite", "sqlite"),
        ("exit", "exit-codes"),
    ],
)
def test_an_unknown_topic_suggests_near_ones(lockkit, wanted, meant):
    done = lockkit("docs", wanted)

    assert done.returncode == 64
    assert f"there is no topic '{wanted}'; did you mean: " in done.stderr
    assert f"lockkit docs {meant}" in done.stderr


def test_a_topic_that_is_like_no_other_is_refused_with_the_list(lockkit):
    done = lockkit("docs", "qqqq")

    assert (done.returncode, done.stdout) == (64, "")
    assert "there is no topic 'qqqq'; to list the topics: lockkit docs" in done.stderr


# -- the pager


def test_a_terminal_gets_a_page_by_way_of_the_pager(lockkit, tty):
    terminal = tty(*lockkit.line("docs", "all-users"), PAGER="sed 's/^/paged: /'")

    terminal.expect("paged: # One lock for all users of a host")
    assert terminal.wait() == 0


def test_a_pipe_gets_no_pager(lockkit):
    assert "paged: " not in lockkit("docs", "all-users", env={"PAGER": "sed 's/^/paged: /'"}).stdout


@pytest.mark.parametrize(
    "env", [{"PAGER": "no-such-pager"}, {"PAGER": ""}, {"TERM": "dumb", "PAGER": "false"}]
)
def test_where_no_pager_can_run_the_page_is_written(lockkit, tty, env):
    terminal = tty(*lockkit.line("docs", "all-users"), **env)

    terminal.expect("# One lock for all users of a host")
    assert terminal.wait() == 0


def test_ctrl_c_is_for_the_pager(lockkit, tty):
    pager = "trap 'echo caught; exit 0' INT; echo ready; while :; do sleep 0.05; done"
    terminal = tty(*lockkit.line("docs", "all-users"), PAGER=pager)
    terminal.expect("ready")

    terminal.type("\x03")

    terminal.expect("caught")
    assert terminal.wait() == 0


# -- the pages as texts


def test_each_topic_is_one_page():
    stems = [
        path.stem
        for folder in (".", "backends", "howto", "ops", "reference")
        for path in (ROOT / "docs" / folder).glob("*.md")
    ]

    assert len(stems) == len(set(stems))


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_has_no_directives_and_its_references_are_topics(topic):
    text = topics.text(topic)

    assert text.startswith(f"# {TOPICS[topic].title}\n")
    assert not re.search(r"^```\{|<!-- |\]\([^)]*\.md", text, re.MULTILINE)
    assert set(re.findall(r"`lockkit docs ([\w-]+)`", text)) <= TOPICS.keys()
    named = re.findall(r"\(the file (\S+) of the source distribution\)", text)
    assert [name for name in named if not (ROOT / name).is_file()] == []
