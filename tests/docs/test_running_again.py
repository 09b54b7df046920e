"""The end of `.ci/run` after a failure, in a project of three environments; the list of unstable tests."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from datetime import date
from types import SimpleNamespace

import pytest

TOX = f"""#!{sys.executable}
import subprocess, sys
how, _, environment, *words = sys.argv[1:]
if how == "run":
    raise SystemExit(subprocess.call([sys.executable, "build.py"]))
assert words[:4] == ["-x", f"testenv:{{environment}}.recreate=false", "--", "pytest"]
raise SystemExit(subprocess.call([sys.executable, "-m", *words[3:], "-p", "no:cacheprovider"]))
"""
"""Runs in this environment what tox would run in one of its own."""
TESTS = """
from pathlib import Path
def test_red(): assert False
def test_flaky(): print("the second time")
def test_flaky_too(): pass
def test_flaky_as_well(): pass
def test_last(): pass
def test_not_red():
    raise SystemExit("only what was red is run")
"""


@pytest.fixture
def again(root, tmp_path):
    """Run it on what an environment left: its red tests, by name."""
    for path in (".ci/again", "tests/unstable.md"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(root / path, tmp_path / path)
    (tmp_path / "tests/unstable.md").write_text("# Unstable\n")
    (tmp_path / "tests/test_a.py").write_text(TESTS)
    (tmp_path / "pytest.ini").touch()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/tox").write_text(TOX)
    (tmp_path / ".venv/bin/tox").chmod(0o755)
    (tmp_path / "build.py").write_text("print('built')")

    def run(red=None, *, command=("/bin/pytest", "-n", "4", "--ignore=tests", "--timeout=50"), name="one"):
        failed = {"command": command, "retcode": 1, "output": "the first time", "err": ""}
        result = {"testenvs": {name: {"test": [failed]}, "fine": {"test": [failed | {"retcode": 0}]}}}
        (tmp_path / "result.json").write_text(json.dumps(result))
        if red is not None:
            (tmp_path / ".tox" / name).mkdir(parents=True, exist_ok=True)
            left = {f"tests/test_a.py::test_{each}": "the first time" for each in red}
            (tmp_path / ".tox" / name / "red.json").write_text(json.dumps(left))
        done = subprocess.run(
            [sys.executable, tmp_path / ".ci/again", tmp_path / "result.json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, (tmp_path / "tests/unstable.md").read_text().splitlines()[1:]

    return run


def test_a_run_of_pytest_leaves_the_names_of_its_red_tests_with_their_outputs(root, tmp_path):
    for path in ("tests/conftest.py", "pyproject.toml"):
        shutil.copy(root / path, tmp_path)
    (tmp_path / "test_b.py").write_text(
        "import pytest\n@pytest.fixture\ndef broken(): print('a fixture'); 1 / 0\n"
        "def test_error(broken): pass\n"
        "@pytest.mark.parametrize('x', ['a - b'])\ndef test_red(x): assert x == ''\n"
        "def test_green(): pass\n"
    )
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "1", "test_b.py"],
        cwd=tmp_path,
        env=os.environ | {"RED_TESTS": str(tmp_path / "red.json"), "PYTHONPATH": str(root / "tests")},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    red = json.loads((tmp_path / "red.json").read_text())

    assert red.keys() == {"test_b.py::test_error", "test_b.py::test_red[a - b]"}
    assert "ZeroDivisionError" in red["test_b.py::test_error"]
    assert "a fixture" in red["test_b.py::test_error"]


def entry(name, landing=1, environment="one"):
    return f"- {time.strftime('%Y-%m-%d')}, landing {landing}: `{environment}` `{name}`"


def test_what_is_red_twice_fails_the_run(again):
    code, said, listed = again(["red"])

    assert code == 1
    assert "RED TWICE: one: tests/test_a.py::test_red" in said
    assert listed == []


def test_what_passes_alone_is_shown_and_listed(again):
    code, said, listed = again(["flaky"])

    assert code == 0, said
    assert listed == [entry("tests/test_a.py::test_flaky")]
    assert "UNSTABLE: one: tests/test_a.py::test_flaky" in said
    assert said.index("the first time") < said.index("1 passed")
    assert "-n 0 --timeout=50 tests/test_a.py::test_flaky" in said
    assert said.splitlines()[-1] == listed[0]


@pytest.mark.full
def test_one_that_is_red_twice_fails_the_run_beside_one_that_is_unstable(again):
    code, said, listed = again(["red", "flaky"])

    assert code == 1
    assert "RED TWICE: one: tests/test_a.py::test_red" in said
    assert listed == [entry("tests/test_a.py::test_flaky")]


def test_an_environment_that_failed_without_a_red_test_is_run_again_whole(again, tmp_path):
    code, said, listed = again(command=("sphinx-build", "docs"), name="docs")
    assert code == 0, said
    assert listed == [entry("docs", environment="docs")]

    (tmp_path / "build.py").write_text("raise SystemExit(3)")
    code, said, _ = again(command=("sphinx-build", "docs"), name="docs")
    assert code == 1
    assert "RED TWICE: docs: docs" in said


@pytest.mark.full
def test_a_third_landing_with_the_same_test_is_refused(again):
    assert again(["flaky"])[::2] == (0, [entry("tests/test_a.py::test_flaky")])
    assert again(["flaky"])[::2] == (0, [entry("tests/test_a.py::test_flaky", 2)])
    code, said, _ = again(["flaky"])
    assert code == 1
    assert "REFUSED: tests/test_a.py::test_flaky is unstable" in said


@pytest.mark.full
def test_a_fourth_is_refused(again):
    assert again(["flaky", "flaky_too", "flaky_as_well"])[0] == 0
    code, said, _ = again(["last"])
    assert code == 1
    assert "REFUSED: 4 tests are unstable" in said


def test_many_red_tests_are_not_run_again(again):
    code, said, _ = again([str(number) for number in range(11)])
    assert code == 1
    assert "11 tests and environments failed" in said


def test_a_run_that_left_no_result_stays_failed(again, tmp_path):
    done = subprocess.run([sys.executable, tmp_path / ".ci/again", tmp_path / "none.json"], check=False)
    assert done.returncode == 1


def test_the_list_keeps_its_form_and_its_length(root):
    ours = SimpleNamespace(**runpy.run_path(str(root / ".ci/again")))
    text = (root / "tests/unstable.md").read_text()
    entries = [
        ours.ENTRY.fullmatch(line) for line in text.splitlines() if re.match(r"- \d|- .*landing \d+:", line)
    ]

    assert all(entries), "an entry has another form"
    assert len(entries) <= ours.ROOM
    for each in entries:
        date.fromisoformat(each["since"])
        assert 1 <= int(each["landing"]) <= ours.LANDINGS
        assert each["name"] == each["environment"] or (root / each["name"].partition("::")[0]).exists()
