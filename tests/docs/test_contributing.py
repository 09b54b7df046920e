"""CONTRIBUTING says of make, tox and pre-commit what they do."""

from __future__ import annotations

import re
import shlex
from configparser import ConfigParser
from fnmatch import fnmatch

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


def environments(root):
    """The names of the environments that a change passes: those of `make test` and of `make full`."""
    tox = ConfigParser(interpolation=None)
    tox.read(root / "tox.ini")
    listed = tox["tox"]["env_list"].replace("{env:FULL_SUITE:py311}", "py311").split(", ")
    full = [name.removeprefix("testenv:") for name, section in tox.items() if section.get("labels") == "full"]
    return [*listed, *full]


def runs(root, environment):
    """The words of each run of pytest in an environment, where it is given none."""
    tox = ConfigParser(interpolation=None)
    tox.read(root / "tox.ini")
    section = tox[f"testenv:{environment}"]
    for line in section.get("commands", tox["testenv"]["commands"]).splitlines():
        if line.startswith("pytest "):
            plain = re.sub(r"{posargs:?([^}]*)}", r"\1", line)
            while "{[" in plain:
                plain = re.sub(r"{\[(\S+?)](\w+)}", lambda found: tox[found[1]][found[2]], plain)
            yield shlex.split(plain)


def files(root, words):
    """The files of tests that such a run chooses, by its paths."""
    found = set()
    for path in (root / word for word in words if word.startswith("tests")):
        found |= {path} if path.is_file() else {*path.rglob("test_*.py")}
    found -= {*(root / "tests/bench").iterdir()}  # among `norecursedirs`
    ignored = [root / word.partition("=")[2] for word in words if word.startswith("--ignore=")]
    globs = [str(root / word.partition("=")[2]) for word in words if word.startswith("--ignore-glob=")]
    return {
        path
        for path in found
        if not any(path.is_relative_to(other) for other in ignored)
        and not any(fnmatch(str(path), glob) for glob in globs)
    }


def test_every_test_is_in_an_environment_that_a_change_passes(root):
    """The mark `full` divides a file's tests: marked ones are run in one environment, others in another."""
    played = {"full": set(), "not full": set()}
    for environment in {*environments(root)} - {"py313"}:  # skipped where there is no such Python
        for words in runs(root, environment):
            if "-m" in words:
                played[words[words.index("-m") + 1]] |= files(root, words)
            elif "-k" not in words:
                played = {mark: known | files(root, words) for mark, known in played.items()}

    every = files(root, ["tests"])
    assert played == {"full": every, "not full": every}


@pytest.mark.parametrize("target", ["test", "full"])
def test_what_a_target_chooses_by_the_mark_is_not_chosen_by_the_other(root, target):
    tox = ConfigParser(interpolation=None)
    tox.read(root / "tox.ini")
    in_full = [name for name in environments(root) if tox[f"testenv:{name}"].get("labels") == "full"]
    of_target = in_full if target == "full" else {*environments(root)} - {*in_full}
    marks = {
        words[words.index("-m") + 1] for name in of_target for words in runs(root, name) if "-m" in words
    }

    assert marks == (
        {"full", "not full"} if target == "full" else {"not full"}
    )  # py313 repeats a part of `make test`


def test_what_a_change_passes_is_make_test_and_make_full(root):
    run = (root / ".ci/run").read_text()
    assert re.findall(r"^(make \w+) \|\| \.ci/again (\S+)$", run, re.MULTILINE) == [
        ("make test", ".tox/test.json"),
        ("make full", ".tox/full.json"),
    ]
    for name, choice in (("test", ""), ("full", " -m full")):
        assert f"$(SIDE_BY_SIDE){choice} --result-json .tox/{name}.json" in targets(root)[name]


def test_each_environment_that_a_change_passes_is_explained(root, contributing):
    rows = re.findall(r"^\| (`.*?) \|", contributing, re.MULTILINE)
    assert {*environments(root)} <= {*re.findall(r"`(\w+)`", " ".join(rows))}


def test_each_target_that_is_explained_exists(root, contributing):
    named = set(re.findall(r"(?:`|\$ )make ([a-z]+)\b", contributing))

    assert named <= set(targets(root))
