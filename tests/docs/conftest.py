"""Fixtures of the documentation's tests: the places of pages, and examples installed from their wheels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import lockkit
from support.holders import HOLD
from support.programs import programs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root():
    """The top of the source tree."""
    return ROOT


@pytest.fixture(scope="session")
def pages():
    """The text of every page that people read, by its path under the top folder."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {
        str(path.relative_to(ROOT)): path.read_text()
        for path in found
        if not {"_build", "schema", ".pytest_cache"} & set(path.parts)
    }


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """Build an example's wheel and unpack it, as an installer does; returns the folder for the path."""

    def install(example):
        work = tmp_path_factory.mktemp(example)
        source = shutil.copytree(
            ROOT / "docs/examples" / example, work / "source", ignore=shutil.ignore_patterns("__pycache__")
        )
        made = subprocess.run(
            [
                sys.executable,
                "-c",
                f"import hatchling.build; print(hatchling.build.build_wheel({str(work)!r}))",
            ],
            cwd=source,
            check=True,
            capture_output=True,
            text=True,
        )
        with zipfile.ZipFile(work / made.stdout.split()[-1]) as wheel:
            wheel.extractall(work / "site")
        return work / "site"

    return install


@pytest.fixture
def program(tmp_path):
    """Run a Python program as a user would, in an empty home with the given configuration and packages."""

    def run(text, *, config="", site=None, check=True):
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        state = tmp_path / "state"
        state.mkdir(mode=0o700, exist_ok=True)
        file = tmp_path / "config.toml"
        file.write_text(config)
        environ = {key: value for key, value in os.environ.items() if not key.startswith("LOCKKIT_")}
        environ |= {"HOME": str(home), "LOCKKIT_STATE_DIR": str(state), "LOCKKIT_CONFIG": str(file)}
        if site is not None:
            environ["PYTHONPATH"] = str(site)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", text],
            cwd=home,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def started():
    """Start processes that are gone when the test is."""
    with programs(stdin=subprocess.PIPE, stderr=subprocess.PIPE) as start:
        yield start


@pytest.fixture
def client(url):
    with lockkit.connect(url) as client:
        yield client


@pytest.fixture
def holder(started, url):
    """A Python program that holds `job` in the module's store, and answers expressions about its lease."""

    def hold(terms="", connect="", **options):
        process = started(sys.executable, "-c", HOLD.format(url=url, terms=terms, connect=connect), **options)
        process.fence = int(process.stdout.readline())
        return process

    return hold


@pytest.fixture
def wrapper(started, url, client):
    """`lockkit run job -- ...` on the module's store, once its command has printed a line."""

    def run(*command, options=()):
        process = started(
            sys.executable,
            "-m",
            "lockkit",
            "run",
            "--url",
            url,
            *options,
            "job",
            "--",
            *command,
            start_new_session=True,
        )
        process.first = process.stdout.readline().strip()
        return process

    return run
