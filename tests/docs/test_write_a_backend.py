"""docs/howto/write-a-backend.md: its levels are the whole kit; the named scenario catches each mistake."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lockkit.testing.machines import MACHINES
from lockkit.testing.stage import registered
from support.running_pytest import PYTEST

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/howto/write-a-backend.md").read_text()
LEVELS = re.findall(r"^\| .* \| `-k \"?([^`\"]+)\"?` \|$", PAGE, re.MULTILINE)
MISTAKES = dict(re.findall(r"^\| ([^|]+) \| [^|]* \| `(\w+-[\w-]+)` \|$", PAGE, re.MULTILINE))

RULES = ("rowqueue.py", "rows.py", "document.py", "documents.py", "polling.py")
"""The pieces of lockkit.store that the template uses; copied, so that a test can put mistakes into them."""

MADE = {
    "only the deadline of the first claim in the queue is checked": (
        "rowqueue.py",
        "in [row for row in self.rows.values() if row.deadline <= now]",
        "in [row for row in [*self.rows.values()][:1] if row.deadline <= now]",
    ),
    "a release removes the first holder, not the one with the token": (
        "rowqueue.py",
        "        row = self.rows.get(token)\n        if row is None:\n            return ABSENT",
        (
            "        row = next(iter(self.rows.values()), None)\n"
            "        if row is None:\n            return ABSENT"
        ),
    ),
    "a renewal does not compare the fence": (
        "rowqueue.py",
        'row.state != "HELD" or row.fence != fence',
        'row.state != "HELD"',
    ),
    "a renewal extends an offer": (
        "rowqueue.py",
        'if row.state == "WAITING":\n                row.wait(now)',
        'if row.state != "HELD":\n                row.wait(now)',
    ),
    "a renewal without a fence extends a hold": (
        "rowqueue.py",
        '            return Renewal("OFFERED", requests=row.requests)',
        '            row.extend(now)\n            return Renewal("OFFERED", requests=row.requests)',
    ),
    "a refused `try_acquire` leaves its claim": [
        (
            "rowqueue.py",
            "        self.remove(row, now)\n        self.offer(now)\n        head =",
            "        head =",
        ),
        ("documents.py", "document.kept = known or not isinstance(answer, Busy)", "document.kept = True"),
    ],
    "an absent claim is created again whatever `create` says": (
        "rowqueue.py",
        "if not create:",
        "if not claim.token:",
    ),
    "the fence is computed from the queue": (
        "document.py",
        'self._loaded.get("fence", 0)',
        'max((row["fence"] for row in self._loaded.get("rows", ())), default=0)',
    ),
    "names become part of a path or a key without encoding": (
        "backend.py",
        "    def _run(",
        """    def change(self, name, budget, step):
        return super().change(name.replace("/", "_")[:200], budget, step)

    def _run(""",
    ),
    "a transaction is open while Python code runs": (
        "backend.py",
        """                cursor = connection.execute(statement, words)
                return cursor.fetchall(), cursor.rowcount
""",
        """                if statement.startswith(("INSERT", "UPDATE")):
                    connection.execute("BEGIN IMMEDIATE")
                cursor = connection.execute(statement, words)
                found = cursor.fetchall(), cursor.rowcount
                if connection.in_transaction:
                    connection.execute("COMMIT")
                return found
""",
    ),
    "`ask_again_at` is a time of the server's clock": (
        "rowqueue.py",
        "ask_again_at=None if soonest == NEVER else soonest",
        (
            "ask_again_at=None if soonest == NEVER"
            " else soonest + self.context.clock.wall() - self.context.clock.now()"
        ),
    ),
    "evict removes a holder at once": (
        "rowqueue.py",
        'if at_once or row.state in ("WAITING", "OFFERED")',
        "if row.token",
    ),
    "min_hold ends with the release": ("rows.py", "end = self.since + self.terms.min_hold", "end = now"),
    "min_hold goes on after a claim that nobody used": ("rows.py", ' or how == "unused":', ":"),
    "abandon is just a release": (
        "documents.py",
        "            document.context.gone.bury(claim.token, now)\n",
        "",
    ),
    "an annotation replaces the note, or no renewal brings it": (
        "rowqueue.py",
        "row.note, row.asked = patched(row.note or {}, patch), True",
        "row.note, row.asked = patched({}, patch), True",
    ),
    "the answer to a claim that waits shows the holder without its note": (
        "rowqueue.py",
        "holder=self.info(rows[0], 0)",
        "holder=self.info(rows[0], 0)._replace(note={})",
    ),
    "nobody is woken": ("polling.py", "if watch.moved(queue)", "if not watch"),
}
"""Each mistake in the template: the file, the old text and the new; a list where it takes several changes."""


ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "lockkit.testing.plugin"}
"""The environment of a pytest with the kit and no other plugins, which would take half of its time."""

COPIED = [("rowqueue.py", '"""A queue of rows', '"""A queue of rows')]
"""No change, but the rules are copied as they are for the mistakes."""


def test_the_levels_are_the_whole_kit():
    assert len(LEVELS) == 7
    ids = [*(scenario.id for scenario in registered()), *MACHINES]
    chosen = [
        {each for each in ids if any(word.lower() in each.lower() for word in level.split(" or "))}
        for level in LEVELS
    ]

    assert set().union(*chosen) == set(ids)
    assert all(chosen)


@pytest.fixture(scope="session")
def template(installed):
    return installed("backend-template")


@pytest.fixture
def play(template, tmp_path):
    """Run a scenario of the kit on the template, with a part of it replaced."""

    def run(scenario, edits=()):
        edits = [edits] if isinstance(edits, tuple) and edits else edits
        package = tmp_path / "lockkit_template"
        rules = RULES if any(file in RULES for file, _, _ in edits) else ()
        for source in [
            *(template / "lockkit_template").glob("*.py"),
            *(ROOT / "lockkit/store" / name for name in rules),
            ROOT / "docs/examples/backend-template/tests/harness.py",
        ]:
            target = tmp_path / source.name if source.name == "harness.py" else package / source.name
            target.parent.mkdir(exist_ok=True)
            text = source.read_text()
            for file, old, new in edits:
                if source.name == file:
                    assert text.count(old) == 1, "the template has changed"
                    text = text.replace(old, new)
            for name in rules:
                module = name.removesuffix(".py")
                text = re.sub(rf"\blockkit\.store\.{module}\b", f"lockkit_template.{module}", text)
            target.write_text(text)
        (metadata,) = template.glob("*.dist-info")
        (tmp_path / metadata.name).mkdir()
        for name in ("METADATA", "entry_points.txt"):
            (tmp_path / metadata.name / name).write_text((metadata / name).read_text())
        return subprocess.run(
            [*PYTEST, "--lockkit-kit", "harness:TemplateHarness", "-k", scenario],
            cwd=tmp_path,
            env={
                **os.environ,
                **ALONE,
                "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
            },
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )  # fmt: skip

    return run


FIVE = """
import five_calls
from lockkit.values.names import claim_id
from lockkit.testing.clocks import ShiftedClock
from lockkit.testing.harness import Harness, StoredClaim


class FiveHarness(Harness):
    name = "five"
    virtual = True
    ttl = 30.0
    short_ttl = 0.4

    def __init__(self, scratch):
        super().__init__(scratch)
        self.clock = ShiftedClock()
        self.plugins = [five_calls]
        self.url = f"five:{scratch}"
        self.store = self.open()

    url = ""

    def advance(self, seconds):
        self.clock.advance(seconds)

    def stored(self, name):
        rows = self.store._queue(name).rows.values()
        return [
            StoredClaim(
                claim_id(row.token), row.fence, row.state, row.weight, row.capacity, row.deadline, row.evicted
            )
            for row in rows
        ]
"""


def test_five_calls_are_enough_for_the_level_that_says_so(tmp_path):
    (level,) = re.findall(r'^\| basic: five calls suffice \|.*-k "([^"]+)"', PAGE, re.MULTILINE)
    (tmp_path / "harness.py").write_text(FIVE)
    paths = [tmp_path, ROOT / "docs/examples/five-calls", os.environ.get("PYTHONPATH", "")]

    done = subprocess.run(
        [
            *PYTEST,
            "-rs",
            "--lockkit-kit",
            "harness:FiveHarness",
            "-k",
            f"({level}) and not (machine or semaphore or readers or writer)",
        ],
        cwd=tmp_path,
        env={**os.environ, **ALONE, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )  # fmt: skip

    assert done.returncode == pytest.ExitCode.OK, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20
    assert "this store has no evict (five_calls.FiveCalls leaves it out)" in done.stdout


def test_the_template_is_short():
    folder = ROOT / "docs/examples/backend-template"
    files = [path for path in folder.rglob("*") if path.suffix in {".py", ".md", ".toml"}]

    assert sum(len(path.read_text().splitlines()) for path in files) < 400


CREATING = """
import sqlite3, sys, threading
from lockkit.store.spi import OpenOptions
from lockkit_template.backend import TemplateBackend

other = sqlite3.connect(sys.argv[1], isolation_level=None, check_same_thread=False)
other.execute("BEGIN IMMEDIATE")
opening = threading.Thread(target=lambda: print(
    TemplateBackend(f"template:{sys.argv[1]}", OpenOptions(budget=30.0)).names("", 5.0)))
opening.start()
opening.join(0.5)
print("waits" if opening.is_alive() else "has ended")
other.execute("ROLLBACK")
opening.join()
"""


def test_the_template_waits_for_another_program_that_creates_the_file(template, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CREATING, str(tmp_path / "locks.db")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(template), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout == "waits\n[]\n", done.stderr


def test_each_mistake_of_the_page_is_made_here():
    assert MISTAKES.keys() == MADE.keys()


@pytest.mark.full  # a whole run of pytest for each of them
@pytest.mark.parametrize("mistake", MADE)
def test_a_mistake_is_caught_by_the_scenario_that_the_page_names(play, mistake):
    done = play(f"{MISTAKES[mistake]} and not readers and not writer", MADE[mistake])

    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert f"::{MISTAKES[mistake]}" in done.stdout


@pytest.mark.full  # a control of the mistakes
def test_without_a_mistake_they_all_pass(play):
    names = sorted(set(MISTAKES.values()))

    done = play(f"({' or '.join(names)}) and not readers and not writer", COPIED)

    assert done.returncode == pytest.ExitCode.OK, done.stdout


def test_what_a_store_may_import_is_documented():
    """Each name in pyproject.toml's list, from which the interface's page has its table, is on a page."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (listed,) = [each["ignore_imports"] for each in contracts if each["id"] == "backends-low"]
    allowed = {each.partition(" -> ")[2] for each in listed}
    pages = "".join(path.read_text() for path in (ROOT / "docs/reference").glob("*.md"))
    spi = (ROOT / "docs/reference/spi.md").read_text()

    assert "lockkit.store.*" in allowed
    for module in allowed - {"lockkit.store.*"}:
        assert re.search(rf"^\.\. (auto|py:)\w+:: {re.escape(module)}\b", pages, re.MULTILINE), module
    for path in (ROOT / "lockkit/store").glob("[!_]*.py"):
        assert f".. automodule:: lockkit.store.{path.stem}\n" in spi, path
