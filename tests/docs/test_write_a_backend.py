"""docs/howto/write-a-backend.md: its levels are the whole kit, and each mistake it warns of is caught by the scenario it names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lockkit.testing.machines import MACHINES
from lockkit.testing.stage import registered

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/howto/write-a-backend.md").read_text()
LEVELS = re.findall(r"^\| .* \| `-k \"?([^`\"]+)\"?` \|$", PAGE, re.MULTILINE)
MISTAKES = dict(re.findall(r"^\| ([^|]+) \| [^|]* \| `(\w+-[\w-]+)` \|$", PAGE, re.MULTILINE))

RULES = ("rowqueue.py", "rows.py")
"""The pieces of lockkit.store that the template uses; copied beside it here, so that a test can put a mistake into them."""

MADE = {
    "only the deadline of the first claim in the queue is checked": (
        "rowqueue.py",
        "in [row for row in self.rows.values() if row.deadline <= now]",
        "in [row for row in [*self.rows.values()][:1] if row.deadline <= now]",
    ),
    "a release removes the first holder, not the one with the token": (
        "rowqueue.py",
        "        row = self.rows.get(token)\n        if row is None:\n            return ABSENT",
        "        row = next(iter(self.rows.values()), None)\n        if row is None:\n            return ABSENT",
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
    "a refused `try_acquire` leaves its claim": (
        "rowqueue.py",
        "        self.remove(row, now)\n        self.offer(now)\n        head =",
        "        head =",
    ),
    "an absent claim is created again whatever `create` says": (
        "rowqueue.py",
        "if not create:",
        "if not claim.token:",
    ),
    "the fence is computed from the queue": (
        "document.py",
        "self.fence += 1",
        "self.fence = max((row.fence for row in self.queue.rows.values()), default=0) + 1",
    ),
    "names become part of a path or a key without encoding": (
        "document.py",
        "from lockkit.names import digest\n",
        'def digest(name: str) -> str:\n    return name.replace("/", "_")[:200]\n\n\n',
    ),
    "evict removes a holder at once": (
        "rowqueue.py",
        'if at_once or row.state in ("WAITING", "OFFERED")',
        "if row.token",
    ),
    "min_hold ends with the release": ("rows.py", "end = self.since + self.terms.min_hold", "end = now"),
    "abandon is just a release": ("backend.py", "            document.gone.bury(claim.token, now)\n", ""),
    "nobody is woken": ("watching.py", "if watch.worthwhile()", "if not watch"),
}
"""Each mistake, made in the template: in which file, what, and what it becomes."""


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

    def run(scenario, file=None, old="", new=""):
        package = tmp_path / "lockkit_template"
        for source in [
            *(template / "lockkit_template").glob("*.py"),
            *(ROOT / "lockkit/store" / name for name in RULES),
            ROOT / "docs/examples/backend-template/tests/harness.py",
        ]:
            target = tmp_path / source.name if source.name == "harness.py" else package / source.name
            target.parent.mkdir(exist_ok=True)
            text = source.read_text()
            if source.name == file:
                assert text.count(old) == 1, "the template has changed"
                text = text.replace(old, new)
            for name in RULES:
                module = name.removesuffix(".py")
                text = re.sub(rf"\blockkit\.store\.{module}\b", f"lockkit_template.{module}", text)
            target.write_text(text)
        (metadata,) = template.glob("*.dist-info")
        (tmp_path / metadata.name).mkdir()
        for name in ("METADATA", "entry_points.txt"):
            (tmp_path / metadata.name / name).write_text((metadata / name).read_text())
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--lockkit-kit", "harness:TemplateHarness", "-k", scenario],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )  # fmt: skip

    return run


def test_each_mistake_of_the_page_is_made_here():
    assert MISTAKES.keys() == MADE.keys()


@pytest.mark.parametrize("mistake", MADE)
def test_a_mistake_is_caught_by_the_scenario_that_the_page_names(play, mistake):
    done = play(f"{MISTAKES[mistake]} and not readers and not writer", *MADE[mistake])

    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert f"::{MISTAKES[mistake]}" in done.stdout


def test_without_a_mistake_they_all_pass(play):
    names = sorted(set(MISTAKES.values()))

    done = play(f"({' or '.join(names)}) and not readers and not writer")

    assert done.returncode == pytest.ExitCode.OK, done.stdout
