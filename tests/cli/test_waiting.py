"""Waiting lines: when they come, and what they say."""

from __future__ import annotations

import json
import re
import sys
import time
from types import SimpleNamespace

import pytest

from lockkit.cli import waiting
from lockkit.cli.signals import Signals
from lockkit.facts import ClaimInfo, LockInfo, Owner, Waiting
from lockkit.gpu.cli.cards import CardAnnouncer

HOLDER = ClaimInfo("backup", "0" * 12, "HELD", Owner("ann", "box", 4711, program="sleep"), 7, 0, since=1.0)
ME = Owner("bob", "box", 42, started=3.0)


class Client(SimpleNamespace):
    """A client that knows one queue."""

    def inspect(self, name: str) -> LockInfo:
        mine = ClaimInfo(name, "1" * 12, "WAITING", ME, 9, 2)
        other = ClaimInfo(name, "2" * 12, "WAITING", Owner("cat", "box", 43), 8, 1)
        return LockInfo(name, (HOLDER, other, mine))


@pytest.fixture
def client() -> Client:
    return Client(url="sqlite:/run/x.db", url_source="default", namespace="default", owner=ME)


@pytest.fixture
def heard():
    with Signals() as signals:
        yield signals


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(waiting, "TOLD_AT", (0.0, 0.2, 0.4))


class Ticks:
    """A clock, and the end of a wait, which comes when the given time has passed."""

    def __init__(self, end: float) -> None:
        self.at, self.end = 0.0, end

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at + 100

    def wait(self, pause: float) -> bool:
        self.at += pause
        return self.at > self.end

    def is_set(self) -> bool:
        return self.at > self.end

    def set(self) -> None:
        self.at = self.end + 1


@pytest.fixture
def wait(monkeypatch):
    def wait(announcer: waiting.Announcer, seconds: float) -> None:
        """Have the announcer follow a wait that takes this long by a clock of its own."""
        announcer._began, announcer._over = 0.0, Ticks(seconds)
        monkeypatch.setattr(waiting, "SYSTEM", announcer._over)
        announcer._follow(Waiting("backup", 2, HOLDER, 0.0))

    return wait


def test_lines_come_at_the_start_and_then_ever_more_rarely(client, heard, capsys, at_once, wait):
    wait(waiting.Announcer(client, quiet=False, as_json=False, signals=heard), 1.0)
    store, first, *later = capsys.readouterr().err.splitlines()
    assert store == "store: sqlite:/run/x.db (from default)"
    assert re.fullmatch(
        r"waiting for 'backup': you are 2nd; held by ann@box pid 4711 \(sleep\), [\w ]+", first
    )
    assert [line.rpartition("; ")[2] for line in later] == ["waited 0.2 s", "waited 0.4 s"]


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("end, lines", [(0.4, 0), (0.6, 1)])
def test_requests_for_cards_that_are_served_within_half_a_second_are_told_of_no_wait(
    client, heard, capsys, wait, end, lines, live
):
    class First(waiting.Announcer):
        _soon, _first = CardAnnouncer._soon, CardAnnouncer._first

    announcer = First(client, quiet=False, as_json=False, signals=heard, limit=10)
    announcer._live = live
    wait(announcer, end)
    told = capsys.readouterr().err
    assert bool(told) == bool(lines)
    assert told.count("; for at most 10 s") == lines


def test_the_times_are_those_of_the_manual():
    assert waiting.TOLD_AT == (0.0, 60.0, 300.0, 900.0)


def test_json_lines_instead(client, heard, capsys, at_once, wait):
    wait(waiting.Announcer(client, quiet=False, as_json=True, signals=heard), 1.0)
    documents = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [one["position"] for one in documents] == [2, 2, 2]


def test_quiet_says_nothing_and_starts_nothing(client, heard, capsys, at_once):
    announcer = waiting.Announcer(client, quiet=True, as_json=False, signals=heard)
    announcer(Waiting("backup", 2, HOLDER, 0.0))
    time.sleep(0.3)
    announcer.done()
    assert capsys.readouterr().err == ""
    assert announcer.waits == 1


@pytest.mark.parametrize(
    "words",
    [["run", "x", "-q", "--timeout", "3s", "--", "true"], ["acquire", "x", "--ttl", "9s", "--timeout", "3s"]],
)
def test_the_log_of_a_long_wait_does_not_come_beside_the_lines_for_people(lockkit, words):
    holder = lockkit.start("run", "x", "--", "sleep", "60")
    lockkit.until(lambda: lockkit.claims("x"))
    soon = (
        "import sys; from lockkit.protocol import attempt; attempt.FIRST_WARNING = 0.01; "
        "from lockkit.cli import main; sys.exit(main.run(sys.argv[1:]))"
    )
    done = lockkit.run([sys.executable, "-c", soon, *lockkit.line(*words)[len(lockkit.line()) :]])
    assert done.returncode == 124
    assert "still waiting" not in done.stderr
    assert (len(done.stderr.splitlines()) == 1) is ("-q" in words)
    assert ("; for at most 3 s" in done.stderr) is ("-q" not in words)
    assert re.search(r"timed out after [\d.]+ s waiting for 'x'", done.stderr)
    holder.terminate()
    holder.wait(40)


@pytest.mark.parametrize(
    "number, text",
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (21, "21st"), (112, "112th")],
)
def test_ordinals(number, text):
    assert waiting.ordinal(number) == text


@pytest.mark.parametrize(
    "text, columns, shown",
    [
        ("as long", 7, "as long"),
        ("too long", 7, "too ..."),
        ("日本語です", 10, "日本語です"),
        ("日本語です", 9, "日本語..."),
        ("日本語です", 8, "日本..."),
        ("e\u0301" * 5, 5, "e\u0301" * 5),
        ("", 5, ""),
    ],
)
def test_a_line_is_cut_to_the_columns_that_it_takes(text, columns, shown):
    assert waiting.cut(text, columns) == shown
