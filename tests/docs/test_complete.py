"""Everything that a user can meet is in the documentation, and the documentation claims nothing else."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
from pathlib import Path
from typing import get_args, get_type_hints

import click
import pytest

import lockkit
import lockkit_sqlite
from lockkit import errors
from lockkit.alerts.channels import KEYS, TYPES
from lockkit.alerts.shipped import SHIPPED
from lockkit.cli import exits
from lockkit.cli.main import COMMANDS, cli
from lockkit.config.layers import ENVIRONMENT
from lockkit.config.settings import SETTINGS
from lockkit.facts import LOSSES, Capabilities
from lockkit.observe.instruments import METRICS
from lockkit.plugins import specs
from lockkit.store.spi import Lapsed, Renewal
from lockkit.values import events

DOCS = Path(__file__).parents[2] / "docs"
HOOKS = [name for name in specs.__all__ if name.startswith("lockkit_")]


def page(name):
    return (DOCS / name).read_text()


def script(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables():
    return script("tables")


# -- everything is documented


@pytest.mark.parametrize(
    "name",
    sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if "<!-- table: " in path.read_text()),
)
def test_the_tables_of_a_page_are_those_of_the_code(name, tables):
    text = page(name)

    assert "<!-- table: " in text
    assert tables.filled(text) == text, "run: python docs/tables.py"


def test_connect_has_the_settings_as_keywords():
    typed = script("typed")
    text = typed.FILE.read_text()

    assert typed.keywords() in text, "run: python docs/tables.py"
    assert typed.filled(text) == text


@pytest.mark.parametrize(
    "name,things",
    [
        ("reference/config.md", [*(setting.place for setting in SETTINGS.values()), *ENVIRONMENT]),
        ("reference/events.md", [*events.KINDS, *events.ALERTS, *events.COUNTERS]),
        ("reference/metrics.md", [*METRICS]),
        ("reference/alerts.md", [*SHIPPED]),
        ("reference/config.md", [*TYPES, *(one.key for one in KEYS)]),
        ("reference/errors.md", [*errors.__all__, *LOSSES]),
        ("reference/capabilities.md", list(Capabilities._fields)),
    ],
)
def test_each_has_a_row(name, things):
    text = page(name)

    assert [thing for thing in things if f"\n| `{thing}` |" not in text] == []


def test_every_endpoint_has_a_row():
    endpoints = pytest.importorskip("lockkit.server.endpoints").ENDPOINTS
    text = page("reference/http-api.md")

    assert [one.path for one in endpoints if f"\n| `{one.method} {one.path}` |" not in text] == []


def test_every_command_and_each_of_its_flags_is_on_the_page_of_the_command_line():
    text = page("reference/cli.md")
    todo, missing = [(name, cli.get_command(None, name)) for name in sorted(BUILT_IN)], []
    while todo:
        path, one = todo.pop()
        body = re.split(r"^##", text.partition(f"\n### lockkit {path}\n")[2], maxsplit=1, flags=re.MULTILINE)[
            0
        ]
        flags = {
            opt
            for param in one.params
            if not getattr(param, "hidden", False)
            for opt in param.opts
            if opt.startswith("--")
        }
        missing += [(path, flag) for flag in sorted(flags) if not re.search(rf"{flag}\b", body)]
        if isinstance(one, click.Group):
            todo += [(f"{path} {name}", below) for name, below in one.commands.items()]

    assert missing == []


@pytest.mark.parametrize("answer", [Lapsed, Renewal])
def test_every_reason_that_a_store_may_give_for_a_loss_has_words(answer):
    assert set(get_args(get_type_hints(answer)["why"])) - {""} <= set(LOSSES)


def test_every_exception_is_public_and_explained():
    explained = page("reference/errors.md").partition("## What to do about them")[2]
    leaves = [name for name in errors.__all__ if not getattr(errors, name).__subclasses__()]

    assert set(errors.__all__) <= set(lockkit.__all__)
    assert [name for name in leaves if f"`{name}`" not in explained] == []


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_documented_with_its_exact_signature(hook):
    section = page("reference/hooks.md").partition(f"\n### {hook}\n")[2].partition("\n##")[0]

    assert f"\n{hook}{inspect.signature(getattr(specs, hook))}\n".replace("'", "") in section


def test_every_exit_code_has_a_row():
    codes = {name: value for name, value in vars(exits).items() if name.isupper() and type(value) is int}
    rows = dict(re.findall(r"^\| \d+ \| `(\w+)` \| (.+) \|$", page("reference/exit-codes.md"), re.MULTILINE))
    numbers = re.findall(r"^\| (\d+) \| `(\w+)` \|", page("reference/exit-codes.md"), re.MULTILINE)

    assert {name: int(number) for number, name in numbers} == codes
    assert all(rows.values())


def test_every_file_that_the_architecture_names_exists():
    named = set(re.findall(r"(?:lockkit|backends|tests)/[\w/]+\.py\b", page("architecture.md")))

    assert {"lockkit/sync/locks.py", "lockkit/protocol/acquiring.py"} <= named
    assert [path for path in named if not (DOCS.parent / path).is_file()] == []


def test_every_background_thread_is_in_the_architecture():
    text = page("architecture.md")
    sources = [Path(lockkit.__file__).parent / "drivers", Path(lockkit_sqlite.__file__).parent]
    names = {
        name.rstrip("-")
        for folder in sources
        for path in folder.glob("*.py")
        for name in re.findall(r'"(lockkit-[a-z-]+)', path.read_text())
    }

    assert "lockkit-heartbeat" in names
    assert [name for name in names if f"`{name}" not in text] == []


def test_every_public_name_is_in_the_reference():
    text = "".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))

    assert [
        name for name in lockkit.__all__ if name != "__version__" and not re.search(rf"\b{name}\b", text)
    ] == []


# -- nothing is claimed that is not there


def command(words):
    """Walk the command tree along some words: the command, the words that led to it, and the rest."""
    found, path = cli, []
    while words and isinstance(found, click.Group):
        below = (
            found.commands.get(words[0])
            if words[0] not in BUILT_IN or path
            else cli.get_command(None, words[0])
        )
        if below is None:
            break
        found, path, words = below, [*path, words[0]], words[1:]
    return found, path, words


BUILT_IN = {name for section in COMMANDS.values() for name in section}


def claims(text):
    """Every command line of ours on a page: in blocks and in running text."""
    joined = re.sub(r"\\\n\s*", "", text)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"^\$ (?:\S+/)?lockkit +(\S[^|;&\n#]*)", joined, re.MULTILINE)
    yield from (re.sub(r"\s+", " ", line) for line in re.findall(r"`lockkit\s+([^`]+)`", prose))


def test_no_page_shows_a_command_or_option_that_does_not_exist(pages):
    wrong = []
    seen = set()
    for name, text in pages.items():
        for line in claims(text):
            if line.startswith(("...", "COMMAND")):
                continue
            words = shlex.split(line.partition(" -- ")[0])
            found, path, rest = command(words)
            seen.add(" ".join(path))
            known = {opt for param in found.params for opt in (*param.opts, *param.secondary_opts)}
            options = [word.partition("=")[0] for word in rest if word.startswith("-")]
            if (not path and not known & set(options)) or set(options) - known - {"--help", "-h"}:
                wrong.append((name, line))

    assert wrong == []
    assert {"run", "status", "explain", "evict", "failures list", "config show"} <= seen


def test_every_option_named_in_running_text_exists(pages):
    known = {"--help", "-h"}
    todo = [cli]
    while todo:
        one = todo.pop()
        known |= {opt for param in one.params for opt in (*param.opts, *param.secondary_opts)}
        if isinstance(one, click.Group):
            names = BUILT_IN if one is cli else one.commands
            todo += [cli.get_command(None, name) if one is cli else one.commands[name] for name in names]
    named = {
        (name, option)
        for name, text in pages.items()
        if name.startswith("docs/") and name != "docs/changelog.md"
        for option in re.findall(r"`(--[a-z][a-z-]*)[^`]*`", text)
    }

    assert {(name, option) for name, option in named if option not in known} == set()


def test_every_link_between_pages_leads_somewhere(pages):
    dead = [
        (name, target)
        for name, text in pages.items()
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
        if not (DOCS.parent / name).parent.joinpath(target).exists()
    ]

    assert dead == []
