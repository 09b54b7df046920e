"""The units and the container file in docs/ops: correct, hardened, and their programs can be started."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import click
import pytest

from lockkit.cli.main import cli
from support.alone import can_be_alone, served
from support.pages import DOCS

ROOT = DOCS.parent
UNITS = sorted((DOCS / "ops/systemd").iterdir())
SERVICES = [path for path in UNITS if path.suffix == ".service"]
PROGRAM = "/opt/lockkit/bin/lockkit"
HERE = Path(sys.executable).with_name("lockkit")
LIVEZ = (
    sys.executable,
    "-c",
    "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8712/livez').read().decode())",
)
HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "PrivateTmp": "yes",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "SystemCallFilter": "@system-service",
    "UMask": "0077",
}
named = pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)


def unit(path):
    """The sections of a unit, each with its directives."""
    read = configparser.ConfigParser(
        interpolation=None, strict=True, delimiters=("=",), comment_prefixes=("#",)
    )
    read.optionxform = str
    read.read_string(path.read_text())
    return {section: dict(read[section]) for section in read.sections()}


def started(path):
    """The words after the program of a unit's command."""
    program, *words = shlex.split(unit(path)["Service"]["ExecStart"])
    assert program == PROGRAM
    return words


def parsed(words):
    """The command of the command line that takes these words, and its options."""
    command = cli.get_command(click.Context(cli), words[0])
    with command.make_context(words[0], list(words[1:]), parent=click.Context(cli)) as ctx:
        return command.name, ctx.params


def environ(tmp_path, **more):
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("LOCKKIT_", "XDG_"))}
    (tmp_path / "config.toml").write_text(f'url = "sqlite:{tmp_path}/state/locks.db"\n')
    return clean | {"HOME": str(tmp_path), "LOCKKIT_CONFIG": str(tmp_path / "config.toml")} | more


def test_there_are_units_for_the_server_recovery_and_metrics():
    commands = {started(path)[0] for path in SERVICES}

    assert commands == {"serve", "recover", "metrics"}


@named
def test_a_unit_starts_a_command_that_takes_these_words(path):
    name, _ = parsed(started(path))

    assert name == started(path)[0]


def test_a_recoverer_that_is_started_acts():
    for path in SERVICES:
        words = started(path)
        if words[0] == "recover":
            assert parsed(words)[1]["yes"]


@named
def test_a_unit_has_the_directives_of_a_hardened_service_and_hides_no_process(path):
    service = unit(path)["Service"]

    assert {name: service.get(name) for name in HARDENED} == HARDENED
    assert "CapabilityBoundingSet" in service
    assert {"ProtectProc", "ProcSubset", "PrivatePIDs"} & set(service) == set()
    assert service["StateDirectory"] != "lockkit"  # the store of all users, whose mode systemd would change
    assert f"LOCKKIT_STATE_DIR=/var/lib/{service['StateDirectory']}" == service["Environment"]


def test_only_a_recoverer_is_root():
    assert {started(path)[0] for path in SERVICES if "User" not in unit(path)["Service"]} == {"recover"}


@pytest.mark.parametrize(
    "path", [path for path in UNITS if path.suffix == ".timer"], ids=lambda path: path.name
)
def test_a_timer_starts_a_unit_that_ends(path):
    service = unit(path.with_name(unit(path)["Timer"]["Unit"]))["Service"]

    assert service["Type"] == "oneshot"


def analyze(*words):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not installed")
    return subprocess.run([program, *words], capture_output=True, text=True, check=False, timeout=60)


def test_systemd_understands_every_line(tmp_path):
    """The program is that of this environment, because systemd looks for it."""
    for path in UNITS:
        text = path.read_text().replace(PROGRAM, str(HERE))
        (tmp_path / path.name).write_text(text)

    done = analyze("verify", *[str(tmp_path / path.name) for path in UNITS])

    assert (done.returncode, done.stderr) == (0, "")


@named
def test_systemd_finds_little_that_a_unit_may_do_without_need(path):
    most = 20 if "User" in unit(path)["Service"] else 32

    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={most}", str(path))

    assert done.returncode == 0, done.stdout.splitlines()[-1]


@pytest.mark.skipif(not can_be_alone(), reason="may not make a network")
@named
def test_what_a_unit_starts_works_with_its_environment(path, tmp_path):
    """The state folder, which systemd makes, and the collector's folder are elsewhere."""
    service = unit(path)["Service"]
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    variable, _, folder = service["Environment"].partition("=")
    assert folder.startswith("/var/lib/")
    words = [word.replace("/var/lib/prometheus/node-exporter", str(tmp_path)) for word in started(path)]
    run = environ(tmp_path, **{variable: str(state)})
    if service["Type"] == "exec":
        check = LIVEZ if words[0] == "serve" else ("test", "-e", f"{state}/locks.db")
        done = served([str(HERE), *words], check, run)
        assert done["check"] == 0, done["err"]
        assert done["code"] == 0, done["err"]
        return
    done = subprocess.run(
        [str(HERE), *words], env=run, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_the_page_lists_every_unit():
    page = (DOCS / "ops/systemd.md").read_text()
    rows = re.findall(r"^\| (`lockkit-.*?) \| ", page, re.MULTILINE)
    names = [re.findall(r"`([^`]+)`", row) for row in rows]
    listed = {
        name if not name.startswith(".") else row[0].removesuffix(".service") + name
        for row in names
        for name in row
    }

    assert listed == {path.name for path in UNITS}


# -- the container file

CONTAINERFILE = DOCS / "ops/container/Containerfile"
KNOWN = {
    "FROM",
    "WORKDIR",
    "COPY",
    "RUN",
    "USER",
    "ENV",
    "VOLUME",
    "EXPOSE",
    "HEALTHCHECK",
    "ENTRYPOINT",
    "CMD",
}


def instructions():
    """The instructions of the container file, each as its word and the rest; no comments, lines joined."""
    text = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", CONTAINERFILE.read_text(), flags=re.MULTILINE))
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def of(word):
    return [rest for one, rest in instructions() if one == word]


def variables():
    return dict(pair.split("=", 1) for rest in of("ENV") for pair in shlex.split(rest))


def test_every_instruction_is_one_and_every_copied_file_exists():
    assert {word for word, _ in instructions()} <= KNOWN
    stages = {rest.split(" AS ")[1] for rest in of("FROM") if " AS " in rest}
    for rest in of("COPY"):
        words = shlex.split(rest)
        if words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in stages
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), source
            assert not source.startswith("/")


def test_what_the_build_copies_is_all_that_the_wheel_is_made_of():
    copied = {
        source for rest in of("COPY") for source in shlex.split(rest)[:-1] if not source.startswith("-")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["include"]
    needed = {path.strip("/").split("/")[0] for path in included} | {
        "pyproject.toml",
        project["project"]["readme"],
    }

    assert needed <= copied


def test_the_extras_are_those_of_the_project():
    (install,) = [rest for rest in of("RUN") if "pip install" in rest]
    extras = set(re.search(r"\.whl\)\[([\w,-]+)\]", install)[1].split(","))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert {"server", "redis", "zookeeper"} <= extras <= set(project["optional-dependencies"])


def test_it_runs_as_nobody_in_particular():
    users = [index for index, (word, _) in enumerate(instructions()) if word == "USER"]
    last_run = max(index for index, (word, _) in enumerate(instructions()) if word == "RUN")

    assert of("USER") == ["10001:10001"]
    assert users[0] > last_run
    assert "--uid 10001" in " ".join(of("RUN"))


def test_what_it_starts_is_a_command_that_takes_these_words():
    (entry,), (words,) = of("ENTRYPOINT"), of("CMD")

    assert json.loads(entry) == ["lockkit"]
    assert parsed(json.loads(words))[0] == "serve"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, made of a copy of what the file copies, and unpacked as an installer does."""
    folder = tmp_path_factory.mktemp("image")
    source = folder / "src"
    source.mkdir()
    for rest in of("COPY"):
        for name in shlex.split(rest)[:-1]:
            if name.startswith(("-", "/")):
                continue
            if (ROOT / name).is_dir():
                shutil.copytree(
                    ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "_build")
                )
            else:
                shutil.copy(ROOT / name, source / name)
    build = f"import hatchling.build; print(hatchling.build.build_wheel({str(folder)!r}))"
    made = subprocess.run(
        [sys.executable, "-c", build], cwd=source, check=True, capture_output=True, text=True
    )
    with zipfile.ZipFile(folder / made.stdout.split()[-1]) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.skipif(not can_be_alone(), reason="may not make a network")
def test_the_wheel_of_the_image_serves_and_its_health_check_finds_it_well(wheel, tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    tokens = tmp_path / "tokens"
    tokens.write_text(f"ann view {'t' * 43}\n")
    tokens.chmod(0o600)
    elsewhere = {"LOCKKIT_STATE_DIR": str(state), "LOCKKIT_SERVE_TOKEN_FILE": str(tokens)}
    assert set(elsewhere) <= set(variables())
    command = json.loads(of("CMD")[0])
    check = json.loads(of("HEALTHCHECK")[0].partition(" CMD ")[2])
    run = environ(tmp_path, **variables() | elsewhere | {"PYTHONPATH": str(wheel)})
    main = (
        "import sys; from lockkit.cli.script import main; "
        "assert sys.path[1] in sys.modules['lockkit'].__file__; main()"
    )

    done = served([sys.executable, "-c", main, *command], [sys.executable, *check[1:]], run)

    assert "/livez" in check[-1]
    assert (done["check"], done["code"]) == (0, 0), done["err"]
