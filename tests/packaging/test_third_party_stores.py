"""The two stores of *Write your own backend*, as third parties could publish them: wheels, public names."""

from __future__ import annotations

import ast
import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs/examples"
STORES = {
    "backend-template": "S1- or S2- or S7- or S8- or S12- or CAP-",
    "lockkit-postgres": "not mutex and not readers",
}
"""The tests of each store that run here, as pytest selects them. The template's whole kit takes two minutes,
and nobody uses that store; on PostgreSQL a mutex is a semaphore for one, and readers are one for many."""

MAY_IMPORT = re.compile(
    "|".join(
        allowed.partition(" -> ")[2].replace(".", r"\.").replace("*", r"\w+")
        for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
            "contracts"
        ]
        if contract["id"] == "backends-low"
        for allowed in contract["ignore_imports"]
    )
)
"""The modules of lockkit that a store may import."""


def imports(path):
    """The modules that a file imports, and the names that it takes from them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports name their module"
            yield from ((node.module, alias.name) for alias in node.names)


def private(module, name):
    return any(part.startswith("_") for part in (*module.split("."), name) if part != "__future__")


@pytest.mark.parametrize("store", STORES)
def test_a_store_imports_what_the_page_allows_and_nothing_private(store):
    package = next(path.parent for path in (EXAMPLES / store).glob("*/__init__.py"))
    used = {(module, name) for path in package.glob("*.py") for module, name in imports(path)}

    ours = {module for module, _ in used if module.split(".")[0] == "lockkit"}
    assert [module for module in ours if not MAY_IMPORT.fullmatch(module)] == []
    assert [each for each in used if private(*each)] == []


@pytest.mark.parametrize("store", STORES)
def test_its_tests_use_what_lockkit_has_for_tests_and_nothing_private(store):
    found = {pair for path in (EXAMPLES / store / "tests").glob("*.py") for pair in imports(path)}
    used = {pair for pair in found if pair[0].split(".")[0] == "lockkit"}

    ours = {module for module, _ in used if module != "lockkit" and not module.startswith("lockkit.testing.")}
    assert [module for module in ours if not MAY_IMPORT.fullmatch(module)] == []
    assert [each for each in used if private(*each)] == []


@pytest.fixture(
    scope="module", params=[pytest.param(store, marks=pytest.mark.xdist_group(store)) for store in STORES]
)
def installed(request, wheel, build, fresh_venv, tmp_path_factory):
    """A store's wheel, installed beside lockkit's, and a folder with only its tests."""
    work = tmp_path_factory.mktemp(request.param)
    source = work / "source"
    shutil.copytree(EXAMPLES / request.param, source, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    own = build(source, work / "dist")
    programs = fresh_venv(work / "venv", wheel, f"{own}[test]")
    alone = work / "alone"
    shutil.copytree(source / "tests", alone / "tests")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(source / name, alone)
    return request.param, programs, alone


@pytest.mark.full
@pytest.mark.timeout(600)
def test_its_wheel_passes_the_kit_and_its_own_tests(run, installed):
    store, programs, alone = installed
    options = ["-q", "-n", "3", "--dist", "worksteal", "-p", "no:cacheprovider", "-k", STORES[store]]

    told = run(programs / "python", "-m", "pytest", *options, cwd=alone)

    assert int(re.search(r"(\d+) passed", told)[1]) > 100


def test_lockkit_lists_it(run, installed):
    store, programs, alone = installed

    told = run(programs / "lockkit", "plugins", "--json", cwd=alone)

    name = {"backend-template": "template", "lockkit-postgres": "postgres"}[store]
    assert (name, None) in [(plugin["name"], plugin["error"]) for plugin in json.loads(told)["plugins"]]
