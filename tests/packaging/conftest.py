"""Fixtures that the packaging tests share: lockkit's wheel, and fresh environments to install wheels into."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

from support.locked import MAIN

ROOT = Path(__file__).parents[2]

# Neither this project's settings nor its source tree may affect a wheel. Packages beside it, and those that
# build it, are locked.
CLEAN_ENV = {k: v for k, v in os.environ.items() if not k.startswith(("LOCKKIT_", "PYTHON"))}
CLEAN_ENV |= {"UV_CONSTRAINT": str(MAIN), "UV_BUILD_CONSTRAINT": str(MAIN)}


def _run(*command, cwd=None):
    done = subprocess.run(
        [str(part) for part in command], env=CLEAN_ENV, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def _uv(*arguments):
    return _run(find_uv_bin(), "--no-config", *arguments)


def _fresh_venv(folder, *install):
    _uv("venv", "--python", sys.executable, folder)
    _uv("pip", "install", "--python", folder, *install)
    return folder / "bin"


def _build(source, folder):
    _uv("build", "--wheel", "--out-dir", folder, source)
    (only,) = Path(folder).glob("*.whl")
    return only


@pytest.fixture(scope="session")
def run():
    """Return what a command printed; show all of it if the command fails."""
    return _run


@pytest.fixture(scope="session")
def fresh_venv():
    """Return the folder of programs of a new environment that holds only what it is told to install."""
    return _fresh_venv


@pytest.fixture(scope="session")
def build():
    """Return the wheel of a source tree, built into a folder that is empty."""
    return _build


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """lockkit's wheel: named by `LOCKKIT_WHEEL`, alone in the folder it names, or built from this tree."""
    given = os.environ.get("LOCKKIT_WHEEL")
    if given is None:
        return _build(ROOT, tmp_path_factory.mktemp("dist"))
    if Path(given).is_file():
        return Path(given)
    (only,) = Path(given).glob("*.whl")
    return only
