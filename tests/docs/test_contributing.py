"""CONTRIBUTING says of make, tox and pre-commit what they do."""

from __future__ import annotations

import re
from configparser import ConfigParser

import pytest


@pytest.fixture(scope="module")
def contributing(root):
    return (root / "CONTRIBUTING.md").read_text()


def targets(root):
    """The commands of each target of the Makefile."""
    text = (root / "Makefile").read_text()
    return dict(re.findall(r"^([a-z]+):.*\n((?:\t.*\n)*)", text, re.MULTILINE))


def commands(root, environment):
    tox = ConfigParser(interpolation=None)
    tox.read(root / "tox.ini")
    return tox[f"testenv:{environment}"]["commands"].split("\n")


def test_before_a_commit_runs_what_fmt_and_lint_run(root):
    hooks = re.findall(r"^ +entry: (.+)$", (root / ".pre-commit-config.yaml").read_text(), re.MULTILINE)

    assert hooks == ["make fmt", "make lint"]
    assert "-e fmt" in targets(root)["fmt"]
    assert "-e lint,type" in targets(root)["lint"]


def test_check_runs_all_of_lint_and_types_and_no_test_that_needs_a_server(root):
    run = commands(root, "check")

    assert "{[testenv:lint]commands}" in run
    assert [line.removesuffix(" {posargs}") in run for line in commands(root, "type") if line] == [True] * 2
    (tests,) = (line for line in run if line.startswith("pytest"))
    assert {
        path for path in (root / "tests/gpu").glob("test_*.py") if "support.servers" in path.read_text()
    } == {root / path for path in re.findall(r"--ignore=(\S+)", tests)}
    chosen = set(re.findall(r"(?<!=)tests/[\w/.]+", tests))
    assert chosen == {
        "tests/unit",
        "tests/protocol",
        "tests/gpu",
        "tests/backends/test_memory.py",
        "tests/backends/test_sqlite.py",
    }


def test_each_target_that_is_explained_exists(root, contributing):
    named = set(re.findall(r"(?:`|\$ )make ([a-z]+)\b", contributing))

    assert named <= set(targets(root))
