"""A wrong command line is refused with the line that was probably meant, which works when it is pasted."""

from __future__ import annotations

import shlex
from importlib import import_module

import click
import pytest

from lockkit.cli import main
from lockkit.cli.card_options import OF_CARDS, SECTION
from lockkit.cli.guessing import OPTIONS


@pytest.fixture
def said(capsys, monkeypatch, tmp_path):
    """The last line of stderr for a command line that is wrong."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program = tmp_path / "prog"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    def say(line: str, code: int = 64) -> str:
        assert main.run(shlex.split(line)) == code
        out, err = capsys.readouterr()
        assert out == ""
        return err.splitlines()[-1]

    return say


@pytest.mark.parametrize(
    "line, meant",
    [
        # NAME, -- or both are missing
        ("run prog train.py", "run NAME -- prog train.py"),
        ("run prog -n 3 train.py", "run NAME -- prog -n 3 train.py"),
        ("run prog --json train.py", "run NAME -- prog --json train.py"),
        ("run prog", "run NAME -- prog"),
        ("run prog -c 'a b'", "run NAME -- prog -c 'a b'"),
        ("run 'rsync -a /x'", "run NAME -- sh -c 'rsync -a /x'"),
        ("run -- prog", "run NAME -- prog"),
        ("run x prog -a", "run x -- prog -a"),
        ("run x --ttl 5s nobody-has-this -a", "run x --ttl 5s -- nobody-has-this -a"),
        ("run x 'a b'", "run x -- sh -c 'a b'"),
        ("run 'my job' prog 'a b' '$x'", "run 'my job' -- prog 'a b' '$x'"),
        # flock(1), lockf(1)
        ("run -n x -- prog", "run x --no-wait -- prog"),
        ("run -n x prog", "run x --no-wait -- prog"),
        ("run x -n -- prog", "run x --no-wait -- prog"),
        ("run -w 5 x -- prog", "run x --timeout 5 -- prog"),
        ("run -w5 x -- prog", "run x --timeout 5 -- prog"),
        ("run --wait=5 x -- prog", "run x --timeout=5 -- prog"),
        ("run -timeout=5s x -- prog", "run x --timeout=5s -- prog"),
        ("run -n -w 5 x -- prog", "run x --no-wait -- prog"),
        ("run -x x -- prog", "run x --exclusive -- prog"),
        ("run -s x -- prog", "run x --shared -- prog"),
        ("run -xn x -- prog", "run x --exclusive --no-wait -- prog"),
        ("run -o x -- prog", "run x -- prog"),
        ("run -n -E 0 x prog -n", "run x --no-wait -E 0 -- prog -n"),
        ("run x -c 'echo hi; echo you'", "run x -- sh -c 'echo hi; echo you'"),
        ("run -w 5 x -c 'echo hi'", "run x --timeout 5 -- sh -c 'echo hi'"),
        ("acquire x -n --ttl 5m", "acquire x --no-wait --ttl 5m"),
        ("wait x -w 5", "wait x --timeout 5"),
        # GPUs, as with Slurm and others
        ("run --gres=gpu:1 -- prog", "run --gpu 1 -- prog"),
        ("run --gres=gpu:h100:2 -- prog", "run --gpu 2 -- prog"),
        ("run --gpus all -- prog", "run --gpu 1 -- prog"),
        ("run --gpus=all prog", "run --gpu 1 -- prog"),
        ("run --gpu all -- prog", "run --gpu 1 -- prog"),
        ("run -g 1 -- prog", "run --gpu 1 -- prog"),
        ("run -g 1 prog", "run --gpu 1 -- prog"),
        ("run --gpu=1 prog", "run --gpu 1 -- prog"),
        ("run --gpu-id 3 -- prog", "run --gpu 1 --gpu-id 3 -- prog"),
        ("gpu run -- prog", "run --gpu 1 -- prog"),
        ("gpu run prog -a", "run --gpu 1 -- prog -a"),
        ("gpu unquarantine 3", "gpu clear 3"),
        ("gpu status", "gpu ls"),
        ("gpu top", "gpu ls --watch"),
        ("gpu ls --interval 5s", "gpu ls --interval 5s --watch"),
        ("status x --interval=5s", "status x --interval=5s --watch"),
        ("gpu attach 4711", "gpu adopt 4711"),
        ("run backup --gpu 1 -- prog", "run --gpu 1 -- prog"),
        ("run --gpu -- prog", "run --gpu 1 -- prog"),
        ("run --gpu --min-free 1GiB -- prog", "run --gpu 1 --min-free 1GiB -- prog"),
        ("run -- --gpu 1 prog", "run --gpu 1 -- prog"),
        ("run -- prog --gpu 1 -a", "run NAME -- prog --gpu 1 -a"),
        # a misspelt option, value or command
        ("run x --tiemout=5 -- prog", "run x --timeout=5 -- prog"),
        ("run x --nowait -- prog", "run x --no-wait -- prog"),
        ("status --wach", "status --watch"),
        ("status -f", "status --watch"),
        ("evict x --id abc --why 'hung again'", "evict x --claim abc --reason 'hung again'"),
        ("status --watch=yes", "status --watch"),
        ("staus backup", "status backup"),
        ("hist backup", "history backup"),
        ("hist", "history"),
        ("force-release x", "explain x"),
        ("force-unlock x", "explain x"),
        ("force-release x --claim 0123456789ab", "explain --help"),
        ("config chek", "config check"),
        ("config help", "config --help"),
        ("config get ttl", "config show ttl"),
        ("config ttl", "config show ttl"),
        ("failures 1f9a03c2", "failures show 1f9a03c2"),
        # commands of other programs
        ("ls", "status"),
        ("unlock x", "release x"),
        ("lock x -- prog", "run x -- prog"),
        ("lock x", "acquire --ttl 1h x"),
        ("kill x", "explain x"),
        ("version", "--version"),
        ("lock x prog -a", "run x -- prog -a"),
        ("flock -n x prog -a", "run x --no-wait -- prog -a"),
        ("exec x prog", "run x -- prog"),
        ("ls --format=json", "status --json"),
        ("unlock x -f", "release --help"),
        ("rm x -f", "explain --help"),
        ("prog train.py", "run NAME -- prog train.py"),
        ("backup -- prog -a", "run backup -- prog -a"),
        # an option before the command
        ("--json status", "status --json"),
        ("--no-wait run x -- prog", "run --no-wait x -- prog"),
        ("-n run x -- prog", "run x --no-wait -- prog"),
        ("--url sqlite: run x -- prog", "run --url sqlite: x -- prog"),
        ("--json config show", "config show --json"),
        ("help rnu", "help run"),
        ("help config chek", "help config check"),
    ],
)
def test_the_line_that_was_meant_is_suggested_and_would_be_accepted(said, line, meant):
    last = said(line)
    if "--json" in line:
        assert f"did you mean: lockkit {meant}" in last
    else:
        assert last.startswith("lockkit: ")
        assert last.endswith(f"; did you mean: lockkit {meant}")


VALUES = {
    "--min-free": "20GiB", "--gpu-mem": "8GiB", "--gpu-name": "H100", "--gpu-id": "0", "--settle": "30s",
    "--preflight-python": "/usr/bin/python3", "--visible": "uuid", "--gpu-sim": "2",
}  # fmt: skip
OF_GPUS = [
    flag
    for param in import_module("lockkit.cli.commands.run").command.params
    if getattr(param, "section", None) == SECTION and param.name != "gpu"
    for flag in (*param.opts, *param.secondary_opts)
]


@pytest.mark.parametrize("flag", OF_GPUS)
def test_an_option_about_gpus_without_gpu_is_refused_with_the_line_that_asks_for_one(said, flag):
    words = f"{flag} {VALUES[flag]}" if flag in VALUES else flag
    meant = f"; did you mean: lockkit run --gpu 1 {words} -- prog -a"
    assert (
        said(f"run backup {words} -- prog -a")
        == f"lockkit: {flag} needs --gpu: add --gpu 1, in place of the name{meant}"
    )
    assert said(f"run a {words} b -- prog -a").endswith(meant)
    assert said(f"run {words} -- prog -a") == f"lockkit: {flag} needs --gpu: add --gpu 1{meant}"
    assert said(f"run -- {words} prog -a").endswith(meant)
    moved = f"(did you mean: lockkit run --gpu 1 {words} -- prog -a)"
    assert moved in said(f"run --gpu 1 -- {words} prog -a", 127)
    assert moved in said(f"run backup -- {words} prog -a", 127)


def test_every_option_about_gpus_is_in_the_test_above():
    assert {"--min-free", "--no-affinity", "--gpu-sim"} < {*OF_GPUS}
    assert len(OF_GPUS) == len(OF_CARDS) + 1


def test_nothing_runs_by_guess(lockkit):
    for line in (
        ["run", "-n", "x", "touch", "ran"],
        ["run", "touch", "ran"],
        ["touch", "ran"],
        ["lock", "x", "--", "touch", "ran"],
    ):
        done = lockkit(*line)
        assert (done.returncode, "did you mean: lockkit run " in done.stderr) == (64, True)
    assert not (lockkit.folder / "ran").exists()
    assert lockkit.json("status")["locks"] == []


def test_a_guess_runs_no_code_of_a_plugin_empties_no_file_and_asks_nobody(monkeypatch, capsys, tmp_path):
    ran, kept = [], tmp_path / "kept"
    kept.write_text("kept")

    class Word(click.ParamType):
        name = "word"

        def convert(self, value, param, ctx):
            ran.append(value)
            return value

    options = {
        "--purge": click.Option(["--purge"], is_flag=True, callback=lambda *words: ran.append(words)),
        "--out": click.Option(["--out"], type=click.File("w", lazy=False)),
        "--word": click.Option(["--word"], type=Word()),
        "--made": click.Option(["--made"], type=ran.append),
        "--today": click.Option(["--today"], default=lambda: ran.append("default")),
        "--sure": click.Option(["--sure"], prompt=True),
    }
    for name, option in options.items():
        plugged = click.Command("greet", params=[option], callback=lambda **words: ran.append(words))
        monkeypatch.setattr(main.cli, "plugged", True)
        monkeypatch.setitem(main.cli.commands, "greet", plugged)
        assert main.run(["greetx", *([name] if name == "--purge" else [name, str(kept)])]) == 64
        out, err = capsys.readouterr()
        assert (ran, out, kept.read_text()) == ([], "", "kept"), name
        assert err.endswith("; did you mean: lockkit greet --help\n"), name


def test_a_suggestion_works_when_it_is_pasted(lockkit):
    done = lockkit("run", "-n", "it's $HOME", "sh", "-c", "printf '%s\\n' \"$LOCKKIT_LEASE_NAME\"")
    line = done.stderr.strip().partition("did you mean: lockkit ")[2]
    pasted = lockkit.run(["sh", "-c", f"{shlex.join(lockkit.line())} {line}"])
    assert (pasted.returncode, pasted.stdout) == (0, "it's $HOME\n")


@pytest.mark.parametrize(
    "line, meant",
    [
        ("run prog checkout -- nobody-has-this", "run NAME -- prog checkout -- nobody-has-this"),
        ("run a prog -- nobody-has-this", "run a -- prog -- nobody-has-this"),
    ],
)
def test_dashes_that_come_too_late_are_moved(said, line, meant):
    assert f"(did you mean: lockkit {meant})" in said(line, 127)


def test_options_after_the_dashes_are_moved(said):
    last = said("run x -- --no-wait -w 5 prog -a", 127)
    assert "(did you mean: lockkit run x --no-wait -- prog -a)" in last


@pytest.mark.parametrize("script, code", [("apply.py", 127), ("./train.py", 126)])
def test_a_command_whose_first_word_stands_before_the_dashes_is_suggested_whole(
    said, monkeypatch, tmp_path, script, code
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()
    last = said(f"run prog -- {script} 'a b'", code)
    assert f"(did you mean: lockkit run NAME -- prog {script} 'a b')" in last


@pytest.mark.parametrize(
    "line, told",
    [
        ("run x --frob -- prog", "there is no option --frob (for example: lockkit run backup -- "),
        ("run --gpu 1 --frob -- prog", "no option --frob (for example: lockkit run --gpu 1 "),
        ("run x --frob prog", "-- is missing before the command"),
        ("run x --ttl -- prog", "--ttl needs a value"),
        ("status --watch=no", "--watch takes no value"),
        ("resize x 3 4", "'4' is one word too many"),
        ("run x", "the command is missing, which goes after --"),
        ("run", "NAME and the command are missing"),
        ("explain", "NAME is missing (for example: lockkit explain backup; see: lockkit explain --help)"),
        ("acquire x", "--ttl is missing"),
        ("frobnicate", "there is no command lockkit frobnicate (see: lockkit --help)"),
        ("config frobnicate", "the commands are check, init, show"),
        ("serve --host 0.0.0.0", "there is no option --host"),
        ("serve --host=0.0.0.0 --port 80", "there is no option --host"),
        ("serve --port 80", "there is no option --port"),
        ("evict-all x", "there is no command lockkit evict-all"),
        ("completion tcsh", "SHELL: 'tcsh' is not one of 'bash', 'zsh', 'fish'"),
        ("run x --on-lost trem -- prog", "'trem' is not one of 'term', 'kill', 'warn'"),
        ("explain my job", "'job' is one word too many"),
        ("explain redis://u:hunter2@h/0 x", "'x' is one word too many"),
        ("run x --timeout soon -- prog", "lockkit: --timeout must be a duration, not 'soon'"),
    ],
)
def test_where_nothing_is_guessed_the_error_says_what_is_wrong_and_shows_an_example(said, line, told):
    last = said(line)
    assert told in last
    assert "did you mean" not in last
    assert "--help)" in last


@pytest.mark.parametrize(
    "line", ["status --url redis://u:hunter2@h --jsno", "staus --url=redis://u:hunter2@h"]
)
def test_a_suggestion_contains_no_password(said, line):
    last = said(line)
    assert "hunter2" not in last
    assert (
        "did you mean (first set LOCKKIT_URL to the store's URL, "
        "which is not repeated here because it has a secret): lockkit status" in last
    )


@pytest.mark.parametrize(
    "line",
    [
        "run x sleep --url redis://u:hunter2@h/0",
        "run redis://u:hunter2@h/0 sleep 1",
        "lock x redis://u:hunter2@h/0",
    ],
)
def test_a_line_with_a_password_in_an_odd_place_is_not_suggested(said, line):
    told = str(said(line))
    assert "hunter2" not in told
    assert "lockkit help" in told


def test_every_habit_leads_to_an_option_that_exists():
    names = sorted(name for section in main.COMMANDS.values() for name in section)
    commands = [main.cli.get_command(click.Context(main.cli), name) for name in names]
    flags = {flag for command in commands for param in command.params for flag in param.opts}
    assert set(OPTIONS.values()) - {""} <= flags
    assert not set(OPTIONS) & {flag for flag in flags if flag in ("-E", "-q")}


@pytest.mark.parametrize("words", [[], ["run"], ["config", "check"]])
def test_help_is_a_command(said, capsys, words):
    assert main.run(["help", *words]) == 0
    page = capsys.readouterr().out
    assert main.run([*words, "--help"]) == 0
    assert page == capsys.readouterr().out
