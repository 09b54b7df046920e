"""docs/howto/test-code-that-locks.md: its tests pass, and fail when the program forgets what they are for."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from support.running_pytest import PYTEST


def pytest_in(folder, *options):
    """Run the tests of a folder; return the last row of the output."""
    command = [*PYTEST, *options, str(folder)]
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=100)
    return done.stdout.splitlines()[-1]


@pytest.fixture
def run(root, tmp_path):
    """Run the tests of the page beside a program that was changed."""
    for path in (root / "docs/examples/billing").rglob("*.py"):
        shutil.copy(path, tmp_path)

    def run(old="", new=""):
        program = tmp_path / "billing.py"
        text = program.read_text()
        assert old in text
        program.write_text(text.replace(old, new))
        return pytest_in(tmp_path, "-W", "error")

    return run


def test_its_tests_pass(run):
    assert run().startswith("5 passed")


@pytest.mark.full  # a whole run of pytest for each of them
@pytest.mark.parametrize(
    "old, new",
    [
        ("                lease.ensure_held()\n", ""),
        ('.lock(f"invoice:{number}")', '.lock(f"another:{number}")'),
        (", max_hold=3600", ""),
    ],
)
def test_its_tests_notice_a_mistake(run, old, new):
    assert "failed" in run(old, new)


@pytest.fixture
def program(pages, tmp_path):
    """A program that makes its client itself, with what the page tells its tests to have."""
    page = pages["docs/howto/test-code-that-locks.md"]
    replaced, nothing_stays = re.findall(
        r"^```\{code-block\} python\n(.*?)^```", page, re.DOTALL | re.MULTILINE
    )
    (tmp_path / "program.py").write_text(
        "import lockkit\nclient = lockkit.connect()\nkept = []\n"
        '@client.locked("a")\ndef job():\n    return 7\n'
    )
    (tmp_path / "conftest.py").write_text(
        f'import os\nos.environ["LOCKKIT_URL"] = "memory:"\n{nothing_stays}'
    )
    (tmp_path / "test_replaced.py").write_text(
        f"{replaced}    import program\n    assert program.client is lockkit_client\n"
    )
    return tmp_path


def test_a_client_that_the_program_made_is_replaced_or_kept(program):
    (program / "test_job.py").write_text(
        "import program\ndef test_it():\n"
        "    assert program.job() == 7\n    assert program.client.url == 'memory:'\n"
    )
    assert pytest_in(program).startswith("2 passed")


def test_a_lock_that_a_test_leaves_held_is_found(program):
    (program / "test_job.py").write_text(
        "import program\ndef test_it():\n    program.kept.append(program.client.lock('a').acquire())\n"
    )
    assert "2 passed, 2 errors" in pytest_in(program), "and so does the next"
