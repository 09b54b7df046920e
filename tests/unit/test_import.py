"""Modules that `import lockkit` loads: few, because every program that might take a lock pays for them."""

import os
import subprocess
import sys

import pytest

HEAVY = (
    "asyncio",
    "click",
    "hashlib",
    "importlib.metadata",
    "inspect",
    "json",
    "logging",
    "msgspec",
    "pathlib",
    "pluggy",
    "secrets",
    "socket",
    "sqlite3",
    "ssl",
    "urllib.parse",
)
FIRST_LOCK = "import lockkit; lockkit.connect('memory:').lock('a').acquire().release()"
LATER = (
    "lockkit.cli",
    "lockkit.config.config",
    "lockkit.drivers",
    "lockkit.observe",
    "lockkit.testing",
    "lockkit_memory",
    "lockkit_sqlite",
)


def printed_by(script):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout


def modules_after(code):
    script = f"import sys; before = set(sys.modules); {code}; print(*sorted(set(sys.modules) - before))"
    return set(printed_by(script).split())


@pytest.mark.parametrize("name", [*HEAVY, *LATER])
def test_an_import_brings_nothing_that_only_its_use_needs(name):
    assert name not in modules_after("import lockkit")


def test_the_first_lock_brings_no_other_store_and_no_command_line():
    seen = modules_after(FIRST_LOCK)

    assert "lockkit_memory" in seen
    assert not seen & {"lockkit_sqlite", "sqlite3", "click", "rich", "asyncio"}


@pytest.mark.parametrize("name", ["inspect", "pluggy"])
def test_a_program_without_plugins_does_not_import(name):
    code = f"import os; os.environ['LOCKKIT_DISABLE_PLUGINS'] = 'all'; {FIRST_LOCK}"
    assert name not in modules_after(code)


def test_the_journal_of_failures_is_at_hand_before_it_is_needed():
    assert "lockkit.observe.journal" in modules_after("import lockkit; lockkit.connect('memory:').driver()")


def test_an_import_compiles_no_annotation():
    script = """
import sys
texts = []
def hook(event, args):
    if event == "compile" and sys._getframe(1).f_globals["__name__"] == "typing":
        texts.append(args[0])
sys.addaudithook(hook)
import lockkit
print(*texts)
"""

    assert printed_by(script).strip() == ""
