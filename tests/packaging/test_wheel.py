"""Users install the wheel, so the wheel is examined: its files, its metadata, and how it works."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from configparser import ConfigParser
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BACKENDS = sorted(path.parent.name for path in ROOT.glob("backends/lockkit_*/__init__.py"))
PACKAGES = ["lockkit", *BACKENDS]
PAGES = "lockkit/_docs/"

pytestmark = pytest.mark.xdist_group("wheel")  # one environment for all of them


@pytest.fixture(scope="module")
def contents(wheel):
    """Each file of the wheel with its bytes, those about the wheel under `dist-info/`."""
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        return {
            f"dist-info/{name.partition('/')[2]}" if ".dist-info/" in name else name: archive.read(name)
            for name in names
        }


@pytest.fixture(scope="module")
def metadata(contents):
    return message_from_bytes(contents["dist-info/METADATA"])


@pytest.fixture(scope="module")
def installed(wheel, fresh_venv, tmp_path_factory):
    return fresh_venv(tmp_path_factory.mktemp("installed") / "venv", wheel)


def source_files():
    """Every file of the packages in this tree, under the name that it has in the wheel."""
    for package in PACKAGES:
        parent = ROOT if package == "lockkit" else ROOT / "backends"
        for path in (parent / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(parent).as_posix()


def test_the_wheel_holds_every_module_and_data_file_and_nothing_else(contents):
    held = {name for name in contents if not name.startswith("dist-info/")}

    assert {name for name in held if not name.startswith(PAGES)} == set(source_files())


def test_the_wheel_holds_the_pages_that_lockkit_docs_shows_and_no_other(contents):
    held = {name.removeprefix(PAGES) for name in contents if name.startswith(PAGES)}
    of_the_checkout = (
        "from lockkit.cli.topics import topics; print(*(each.place for each in topics().values()))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", of_the_checkout], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert held == set(shown.stdout.split())


def test_the_installed_command_shows_a_page(run, installed, tmp_path):
    assert "all-users" in run(installed / "lockkit", "docs", cwd=tmp_path)
    assert "install -d -m 2770" in run(installed / "lockkit", "docs", "all-users", cwd=tmp_path)


def test_the_wheel_holds_the_conformance_kit_and_nothing_of_lockkits_own_tests(contents, wheel):
    """Print the wheel's size as well, which nothing limits but a reader's eye: pytest -rP."""
    own = {"simulation", "mutants", "servers", "harnesses", "support", "tests"}
    parts = {part for name in contents for part in name.removesuffix(".py").split("/")}

    assert not own & parts
    assert not [part for part in parts if part.endswith("_contenders")]
    lines = {name: text.count(b"\n") for name, text in contents.items() if name.endswith(".py")}
    kit = sum(count for name, count in lines.items() if name.startswith("lockkit/testing/"))
    print(
        f"{wheel.stat().st_size:,} bytes; {sum(lines.values()):,} lines of Python, "
        f"{kit:,} of them lockkit.testing"
    )


def test_every_module_of_the_kit_imports_from_the_wheel_alone(run, contents, wheel, fresh_venv, tmp_path):
    """Nothing that stays in the checkout is needed: neither the tests' own package nor other libraries."""
    python = fresh_venv(tmp_path / "venv", f"{wheel}[testing]") / "python"
    modules = [
        name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for name in contents
        if name.startswith(("lockkit/testing/", "lockkit/cli/demo/")) and name.endswith(".py")
    ]
    names = [name for name in modules if not name.endswith((".__main__", ".collected"))]

    run(python, "-c", f"from importlib import import_module\nfor name in {names!r}: import_module(name)")


def test_the_demo_and_the_benchmark_run_from_the_wheel(run, installed, tmp_path):
    assert "ok" in run(installed / "lockkit", "demo", cwd=tmp_path)
    assert "lockkit, SQLite" in run(installed / "lockkit", "bench", "uncontended", "--quick", cwd=tmp_path)


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_marked_as_typed(contents, package):
    assert f"{package}/py.typed" in contents


def test_the_licence_is_in_the_wheel(contents, metadata):
    assert metadata["License-Expression"] == "Apache-2.0"
    assert contents["dist-info/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()


def test_the_entry_points_lead_to_the_command_the_stores_the_gpus_and_the_conformance_kit(contents):
    entry_points = ConfigParser()
    entry_points.read_string(contents["dist-info/entry_points.txt"].decode())

    assert dict(entry_points["console_scripts"]) == {"lockkit": "lockkit.cli.script:main"}
    stores = {name.removeprefix("lockkit_"): name for name in BACKENDS}
    assert dict(entry_points["lockkit"]) == stores | {"gpu": "lockkit.gpu.plugin"}
    assert dict(entry_points["pytest11"]) == {"lockkit_kit": "lockkit.testing.plugin"}


def test_every_backend_stands_under_the_import_contracts():
    linter = PYPROJECT["tool"]["importlinter"]
    contracts = {contract["id"]: contract for contract in linter["contracts"]}

    assert sorted(linter["root_packages"]) == sorted(PACKAGES)
    assert sorted(contracts["backends-low"]["source_modules"]) == BACKENDS
    assert sorted(contracts["core-blind"]["forbidden_modules"]) == BACKENDS
    assert sorted(contracts["backends-apart"]["modules"]) == BACKENDS


def test_without_extras_only_small_libraries_are_required(metadata):
    required = [Requirement(text) for text in metadata.get_all("Requires-Dist")]

    assert {each.name for each in required if each.marker is None} == {
        "click",
        "msgspec",
        "pluggy",
        "psutil",
        "rich",
    }


def test_each_optional_part_has_its_extra(metadata):
    assert set(metadata.get_all("Provides-Extra")) == {
        "alerts",
        "all",
        "celery",
        "django",
        "etcd",
        "gpu",
        "metrics",
        "python-etcd3",
        "redis",
        "server",
        "testing",
        "top",
        "zookeeper",
    }


def test_all_means_every_extra_of_a_deployment_that_can_coexist():
    extras = PYPROJECT["project"]["optional-dependencies"]
    (everything,) = map(Requirement, extras["all"])

    assert everything.extras == set(extras) - {"all", "python-etcd3", "testing"}


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_imports_once_installed(run, installed, package):
    run(installed / "python", "-c", f"import {package}")


def test_importing_lockkit_loads_no_backend_and_nothing_of_the_command_line(run, installed):
    loaded = run(installed / "python", "-c", "import lockkit, sys; print(*sys.modules)").split()

    assert not {*BACKENDS, "click", "psutil", "rich"} & set(loaded)


def test_the_command_tells_the_version_of_the_wheel(run, installed, metadata):
    assert metadata["Version"] in run(installed / "lockkit", "--version")


def test_an_editable_install_finds_the_core_and_every_backend_in_the_tree(run, fresh_venv, tmp_path):
    python = fresh_venv(tmp_path / "venv", "--editable", ROOT) / "python"

    for package in PACKAGES:
        assert Path(run(python, "-c", f"import {package}; print({package}.__file__)")).is_relative_to(ROOT)
