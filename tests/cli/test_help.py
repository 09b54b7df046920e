"""Help teaches, completion completes, and a run starts without what it does not need."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from lockkit.cli import main, script
from lockkit.cli.main import COMMANDS, cli

NAMES = sorted(name for section in COMMANDS.values() for name in section)
OF_STORES = ("--url", "--profile", "--namespace")
WITHOUT_STORE = ("host",)  # it works on a folder and a file; an option that chose a store would say nothing


def leaves() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name in NAMES:
        command = cli.get_command(click.Context(cli), name)
        if isinstance(command, click.Group):
            found += [(name, sub) for sub in command.commands]
        else:
            found.append((name,))
    return found


@pytest.mark.parametrize("path", leaves(), ids=" ".join)
def test_every_command_has_examples_and_the_common_options(path, capsys):
    assert main.run([*path, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: lockkit {' '.join(path)}")
    assert "Examples:" in out
    assert f"lockkit {' '.join(path)}" in out[out.index("Examples:") :]
    assert all(option in out for option in ("--json", "--help"))
    assert all((option in out) is (path[0] not in WITHOUT_STORE) for option in OF_STORES)
    assert "Traceback" not in out
    assert "\\b" not in out
    assert "[default: (" not in out
    assert max(map(len, out[out.index("Examples:") :].splitlines())) <= 80


@pytest.mark.parametrize("group", [(), *sorted({path[:1] for path in leaves() if path[1:]})], ids=" ".join)
def test_a_list_of_commands_cuts_no_sentence_off(group, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main.run([*group, "--help"]) == 0

    _usage, *rows = capsys.readouterr().out.splitlines()
    assert [row for row in rows if row.endswith("...")] == []


def test_exit_codes_stand_in_lines_of_their_own(capsys):
    main.run(["run", "--help"])
    rows = capsys.readouterr().out.splitlines()
    at = rows.index("  Exit codes: that of the command, 128 + N if signal N ended it;")
    assert rows[at + 1].split()[:2] == ["75", "busy"]


@pytest.mark.parametrize("path", [(), *leaves()], ids=" ".join)
def test_help_stands_among_the_common_options(path, capsys):
    # click has called this option by another name since 8.2, and the page must not depend on its version.
    main.run([*path, "--help"])
    out = capsys.readouterr().out
    assert "--help" in out[out.index("Common options:") :]


def test_there_is_a_file_for_every_command_and_no_other():
    folder = Path(import_module("lockkit.cli.commands").__file__).parent
    assert (
        sorted(path.stem.replace("_", "-") for path in folder.glob("*.py") if path.stem != "__init__")
        == [name for name in NAMES if name != "gpu"]  # a plugin's: lockkit.gpu.plugin
    )


def test_the_list_of_commands_is_on_the_front_page(capsys):
    main.run(["--help"])
    out = capsys.readouterr().out
    for section in COMMANDS.values():
        for name, summary in section.items():
            assert re.search(rf"^  {name} +{re.escape(summary)}$", out, re.MULTILINE)


def test_no_arguments_show_the_front_page(lockkit):
    done = lockkit()
    assert (done.returncode, "Guard a command" in done.stdout, done.stderr) == (64, True, "")
    group = lockkit("failures")
    assert (group.returncode, "resolve" in group.stdout, group.stderr) == (64, True, "")


def test_the_version_is_told(lockkit):
    assert re.fullmatch(r"lockkit \d+\.\d+.*\n", lockkit("--version").stdout)


@pytest.mark.parametrize("shell, check", [("bash", ["-n"]), ("zsh", ["-n"]), ("fish", ["--no-execute"])])
def test_completion_scripts_parse(lockkit, shell, check):
    script = lockkit("completion", shell).stdout
    assert "_LOCKKIT_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, *check, "/dev/stdin"], input=script, text=True, check=True)


def test_completion_knows_commands_options_and_lock_names(lockkit):
    lockkit.holder("backup")

    def complete(line: str) -> list[str]:
        words = {"_LOCKKIT_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        done = lockkit.run(lockkit.patient_line(), env=lockkit.env | words)
        return [row.partition(",")[2] for row in done.stdout.split()]

    assert {"run", "status", "demo"} <= set(complete("lockkit "))
    assert complete("lockkit sta") == ["status"]
    assert "--no-wait" in complete("lockkit run --no")
    assert complete("lockkit explain ba") == ["backup"]


def test_a_run_imports_nothing_that_it_does_not_need(lockkit):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *lockkit.line("run", "x", "--", "true")[1:]],
        env=lockkit.env,
        cwd=lockkit.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {row.rpartition("|")[2].strip().partition(".")[0] for row in done.stderr.splitlines()}
    assert not imported & {
        "rich",
        "psutil",
        "asyncio",
        "subprocess",
        "email",
        "dataclasses",
        "msgspec",
        "random",
        "lockkit_memory",
    }
    unused = r"importlib\.metadata|urllib\.request|lockkit\.store\.rows|lockkit_sqlite\.health|unicodedata"
    assert not re.search(unused, done.stderr)


def test_the_garbage_collector_waits_while_the_command_line_is_imported(lockkit):
    count = "import atexit, gc; seen = []; gc.callbacks.append(lambda *_: seen.append(1))"
    code = (
        f"from lockkit.cli import script; {count}; atexit.register(lambda: print(len(seen))); script.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], env=lockkit.env, capture_output=True, text=True, check=True
    )
    version, collections = done.stdout.splitlines()
    assert version.startswith("lockkit ")
    assert collections == "0"


def test_a_missing_benchmark_is_explained(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lockkit.testing.bench.command", None)
    assert main.run(["bench"]) == 69
    assert "lockkit[testing]" in capsys.readouterr().err


def test_an_internal_error_has_a_traceback_and_code_70(capsys, monkeypatch):
    command = import_module("lockkit.cli.commands.completion").command
    monkeypatch.setattr(command, "callback", lambda **_: 1 / 0)
    assert main.run(["completion", "bash"]) == 70
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("lockkit: internal error: ZeroDivisionError")


def test_the_group_knows_its_commands_without_plugins():
    assert set(NAMES) <= set(cli.list_commands(click.Context(cli)))


def test_the_console_script_puts_off_what_few_commands_use(lockkit):
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules)); "
        "from lockkit.cli import script; script.main()"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, "--version"],
        env=lockkit.env | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )

    seen = set(done.stdout.split())
    assert "click" in seen
    assert not seen & {
        "gettext", "inspect", "ipaddress", "locale", "ntpath", "platform", "textwrap", "tokenize", "uuid",
    }  # fmt: skip


def test_the_options_that_lockkit_says_every_command_takes_are_taken():
    told = " ".join(main.cli.help.split())
    assert "Every command takes --json. Those that use a store take --url, --profile and --namespace." in told
    without = set()
    for path in leaves():
        command = cli.get_command(click.Context(cli), path[0])
        for sub in path[1:]:
            command = command.commands[sub]
        flags = {flag for param in command.params for flag in param.opts}
        assert "--json" in flags, path
        if not {"--url", "--profile", "--namespace"} <= flags:
            without.add(path[0])
    assert without == {"host"}


@pytest.mark.parametrize("path", leaves(), ids=" ".join)
def test_the_help_of_an_option_has_no_indentation(path):
    command = cli.get_command(click.Context(cli), path[0])
    for sub in path[1:]:
        command = command.commands[sub]
    texts = [param.help for param in command.params if isinstance(param, click.Option)]
    assert texts == [inspect.cleandoc(text) for text in texts]


@pytest.fixture
def small_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "lockkit_small.py").write_text("ANSWER = 42\ndef square(n): return n * n\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield "lockkit_small"
    sys.modules.pop("lockkit_small", None)


def test_a_module_that_was_put_off_is_imported_when_it_is_used(small_module):
    with script.putting_off({small_module: ()}):
        early = import_module(small_module)
    assert small_module not in sys.modules

    assert early.ANSWER == 42
    assert sys.modules[small_module].__file__
    assert import_module(small_module) is not early


def test_a_module_that_was_put_off_may_be_used_at_once(small_module):
    with script.putting_off({small_module: ()}):
        assert import_module(small_module).ANSWER == 42
    assert sys.modules[small_module].ANSWER == 42


def test_what_is_imported_from_a_module_that_was_put_off_may_be_put_off_too(small_module):
    with script.putting_off({small_module: ("square",)}):
        square = import_module(small_module).square
    assert small_module not in sys.modules

    assert square(3) == 9
    assert small_module in sys.modules


def test_a_module_that_is_there_is_not_put_off(small_module):
    there = import_module(small_module)
    with script.putting_off({small_module: ()}):
        assert import_module(small_module) is there
    assert import_module(small_module) is there


def test_ctrl_c_while_the_command_line_is_imported_shows_no_traceback():
    program = """
import sys
from lockkit.cli.script import main

class Struck:
    def find_spec(self, name, *_):
        if name == "lockkit.cli.main":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Struck())
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")
