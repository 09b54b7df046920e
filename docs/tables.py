"""Write the tables of the reference pages from the code. A test fails if a table is out of date.

A table is between `<!-- table: NAME -->` and `<!-- end of table -->`; the text around it is written by hand.
`typed.py` writes the settings into a class of the package.
"""

from __future__ import annotations

import ast
import inspect
import logging
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import lockkit_etcd
import lockkit_memory
import lockkit_redis
import lockkit_sqlite
import lockkit_zookeeper
from lockkit import errors
from lockkit.alerts.channels import KEYS, TYPES
from lockkit.cli import exits
from lockkit.config.as_toml import toml
from lockkit.config.layers import ENVIRONMENT
from lockkit.config.settings import SETTINGS
from lockkit.drivers.dispatch import _LEVELS
from lockkit.facts import LOSSES
from lockkit.observe.instruments import METRICS
from lockkit.testing.stage import Scenario, Stage, registered
from lockkit.values import events

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "lockkit"


def rows(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


EXPECTED = {
    "text": lambda setting: setting.form[1],
    "duration": lambda setting: "a duration" + (", or 0" if setting.zero else ""),
    "limit": lambda setting: f'a duration, or `"{setting.endless}"`',
    "choice": lambda setting: ", ".join(f'`"{choice}"`' for choice in setting.allowed),
    "flag": lambda _: "`true`, `false`",
    "names": lambda _: '`["a", "b"]`, or one text: `"a,b"`',
    "count": lambda setting: f"0 to {setting.most}",
}


def settings() -> str:
    """Every setting."""
    return rows(
        ("key", "default", "allowed values", "meaning"),
        (
            (
                f"`{setting.place}`",
                "not set" if (shown := toml(setting, setting.default)) == "-" else f"`{shown}`",
                EXPECTED[setting.kind](setting),
                setting.meaning,
            )
            for setting in SETTINGS.values()
        ),
    )


def environment() -> str:
    """Every environment variable."""
    return rows(("variable", "meaning"), ((f"`{name}`", meaning) for name, meaning in ENVIRONMENT.items()))


def kinds() -> str:
    """Every event kind, with the level at which it is logged."""
    return rows(
        ("kind", "logged as", "meaning"),
        (
            (f"`{kind}`", logging.getLevelName(_LEVELS[kind]), meaning)
            for kind, meaning in events.KINDS.items()
        ),
    )


def alerts() -> str:
    """Every alert kind."""
    split = ((kind, *meaning.split(". ", 1)) for kind, meaning in events.ALERTS.items())
    return rows(("kind", "priority", "meaning"), ((f"`{kind}`", at, meaning) for kind, at, meaning in split))


def channels() -> str:
    """Every key of a channel."""
    return rows(("key", "default", "meaning"), ((f"`{one.key}`", one.default, one.meaning) for one in KEYS))


def channel_types() -> str:
    """Every type of a channel."""
    return rows(("type", "meaning"), ((f"`{name}`", meaning) for name, meaning in TYPES.items()))


def counters() -> str:
    """Every counter."""
    return rows(("counter", "counts"), ((f"`{name}`", meaning) for name, meaning in events.COUNTERS.items()))


def exceptions() -> str:
    """Every exception, with its place in the tree and the exit code of a command that ends with it."""

    def code(kind: type[Exception]) -> str:
        number = exits.code_of(kind.__new__(kind))
        return "" if number == exits.INTERNAL else str(number)

    found: list[tuple[str, str, str, str]] = []

    def walk(kind: type[Exception]) -> None:
        first = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")
        found.append((f"`{kind.__name__}`", f"`{kind.__bases__[0].__name__}`", code(kind), first))
        for name in errors.__all__:
            child = getattr(errors, name)
            if child.__bases__[0] is kind:
                walk(child)

    walk(errors.LockkitError)
    return rows(("exception", "is a", "exit code", "meaning"), found)


def losses() -> str:
    """Every reason of a loss."""
    return rows(("`lost_because`", "in words"), ((f"`{why}`", words) for why, words in LOSSES.items()))


def metrics(source: str) -> str:
    """The metrics of one source."""
    return rows(
        ("metric", "type", "labels", "measures"),
        (
            (f"`{one.name}`", one.type, ", ".join(f"`{label}`" for label in one.labels), one.help)
            for one in METRICS.values()
            if one.source == source
        ),
    )


MEANINGS = {
    "scope": (
        "whose processes a lock keeps apart: the threads of one process, the processes of one user on one "
        "host, of all users of a host, or of a fleet"
    ),
    "fair": "first come, first served, by arrival at the store",
    "shared": "semaphores and reader/writer locks",
    "fixed_ttl": "all claims of a client have one ttl, so `extend` is refused",
    "process_bound": "a claim may last as long as its process lives, whatever its ttl",
    "drains": "a namespace can be [drained](../howto/drain.md): no new locks, while holders go on",
    "min_hold": "the store supports `min_hold`",
    "lock_delay": "the store supports `lock_delay`",
    "failover_safe": "no failover of the store can lose a claim",
    "fence": (
        "`strict`: fences rise as long as the store keeps its data; `clock`: fences rise even after a loss "
        "of data, by the wall clock"
    ),
    "min_ttl": "the shortest ttl, in seconds",
    "max_ttl": "the longest ttl, in seconds",
    "ttl_limits": "the settings that determine these two, if they can be changed",
    "waiter_deadline": "seconds by which a dead waiter can delay the waiters behind it",
    "drift": "how much faster than the client's clock the store's clock may run, as a share of the ttl",
    "margin": "seconds from the end of validity to the store's own deadline",
}


def capabilities() -> str:
    """The table of what each store can do."""

    def shown(value: object) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        return f"{value:.12g}" if isinstance(value, float) else str(value)

    stores = (lockkit_memory, lockkit_sqlite, lockkit_redis, lockkit_etcd, lockkit_zookeeper)
    declared = [store.CAPABILITIES._asdict() for store in stores]
    declared[1]["scope"] = f"{lockkit_sqlite.CAPABILITIES.scope} or {lockkit_sqlite.SHARED.scope}"
    return rows(
        ("capability", "memory", "SQLite", "Redis", "etcd", "ZooKeeper", "meaning"),
        ((f"`{name}`", *(shown(each[name]) for each in declared), MEANINGS[name]) for name in declared[0]),
    )


def imports() -> str:
    """The modules that a store may import."""
    listed = re.findall(
        r'^  "\*\* -> (lockkit\.[\w.*]+)", # (.+)$',
        (DOCS.parent / "pyproject.toml").read_text(),
        re.MULTILINE,
    )
    return rows(("module", "purpose"), ((f"`{module}`", purpose) for module, purpose in listed))


CAPTIONS = {
    "integrations": "Celery and Django",
    "gpu": "GPUs: a plugin, with commands and views of its own",
    "cli": "the command line",
    "server": "over HTTP",
    "views": "documents that commands and the server write",
    "testing": "a store for all users, the conformance kit",
    "aio": "the asyncio face",
    "sync": "the synchronous face",
    "shared": "what both faces share; the open store",
    "observe": "journal and metrics, alerts, guards of data",
    "drivers": "perform what the protocol asks for",
    "plugins": "find plugins, and call their hooks",
    "protocol": "decides: acquiring, renewing, releasing",
    "config": "which value of a setting wins, and why",
    "notes": "records, requests, names of pools and members",
    "store": "what a store stands on",
    "values": "durations, sizes, names, secrets, identity",
    "hooks": "the mark of a plugin's hooks, and the way to GPUs",
    "errors": "what can go wrong",
    "carried": "facts as JSON documents",
    "facts": "what happened, as plain tuples",
    "lib": "clocks, bells, forks: nothing of locks",
}
"""The purpose of each floor of the house, by a module that stands on it."""


def house() -> str:
    """The floors of the house, from the contract that import-linter checks, without planned ones."""
    config = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["tool"]["importlinter"]
    contract = next(each for each in config["contracts"] if each["id"] == "floors")
    floors = [
        [
            name
            for name in re.findall(r"\w+", layer)
            if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()
        ]
        for layer in contract["layers"]
    ]
    told = []
    for number, names in zip(range(len(floors), 0, -1), floors, strict=True):
        caption = next((CAPTIONS[name] for name in names if name in CAPTIONS), "")
        shown = sorted(f"{name}/" if (PACKAGE / name).is_dir() else f"{name}.py" for name in names)
        body = textwrap.wrap("  ".join(shown), 60) or ["(nothing yet)"]
        told += [f"{number:>2}  {caption:<52}{body[0]}", *(" " * 56 + more for more in body[1:])]
    stores = sorted(name for name in config["root_packages"] if name != "lockkit")
    told += ["", f"{'':4}{'plugins beside the house, one for each store:':<52}{stores[0]}"]
    told += [" " * 56 + store for store in stores[1:]]
    return "\n".join(["```text", *told, "```"])


GUARANTEES = (*(f"S{number}" for number in range(1, 13)), *(f"L{number}" for number in range(1, 8)))
INVARIANTS_OF = {"ONCE": "S10", "LINGER": "S2", "UNUSED": "S2", "SHORTENED": "S3"}
"""Invariants of the simulation that are not named by their guarantee."""


def played() -> dict[str, list[Scenario]]:
    """Every scenario of the kit by its name, once for each kind of lock, in the order of the guarantees."""
    found: dict[str, list[Scenario]] = {}
    for each in registered():
        found.setdefault(each.name, []).append(each)
    order = (*GUARANTEES, "CAP")
    return dict(sorted(found.items(), key=lambda pair: (order.index(pair[1][0].guarantee), pair[0])))


def invariants() -> set[str]:
    """The names of the simulation's invariants, read from its source."""
    folders = [path for top in ("lockkit", "tests") for path in (DOCS.parent / top).rglob("simulation")]
    sources = "".join(path.read_text() for folder in folders for path in folder.glob("*.py"))
    return set(re.findall(rf'"((?:[SL]\d+|{"|".join(INVARIANTS_OF)})(?:-[a-z-]+)?)"', sources))


def scenarios() -> str:
    """Every scenario of the kit, with its kinds of lock and the first line of its docstring."""

    def shown(play: Callable[[Stage], None]) -> str:
        return (inspect.getdoc(play) or "").partition("\n")[0].replace("``", "`")

    return rows(
        ("scenario", "kinds of lock", "shows"),
        (
            (
                f"`{name}`",
                ", ".join(each.shape.name for each in many) if many[0].shaped else "-",
                shown(many[0].play),
            )
            for name, many in played().items()
        ),
    )


THE_28 = DOCS.parent / "tests" / "scenarios" / "test_the_28.py"
OLD_AND_NEW = re.compile(r"(\d+)\. (.+) Before: (.+) Now: (.+)")


def the_28(first: int, last: int) -> str:
    """The scenarios of the old GPU lock from one number to another, from the docstrings of their tests."""
    plays = (
        each
        for each in ast.parse(THE_28.read_text()).body
        if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")
    )
    told = (OLD_AND_NEW.fullmatch(" ".join((ast.get_docstring(each) or "").split())) for each in plays)
    return rows(
        ("", "scenario", "the old lock", "lockkit"),
        (each.groups() for each in told if each is not None and first <= int(each[1]) <= last),
    )


def proof(guarantee: str) -> str:
    """Where a guarantee is proved by the kit and by the simulation."""
    kit = [name for name, (first, *_) in played().items() if first.guarantee == guarantee]
    simulated = sorted(
        name for name in invariants() if INVARIANTS_OF.get(name, name.partition("-")[0]) == guarantee
    )
    told = [("Kit", kit), ("Simulation", simulated)]
    return "\n".join(
        f"- **{where}**: " + ", ".join(f"`{name}`" for name in names) for where, names in told if names
    )


def alert_rules() -> str:
    """Every shipped rule of alerts."""
    from lockkit.alerts.shipped import SHIPPED
    from lockkit.alerts.wording_of_rules import condition_words, heard_words, steps_words

    return rows(
        ("rule", "severity", "condition", "hears", "raised", "next command", "what to do"),
        (
            (
                f"`{name}`",
                "as the alert says" if rule.severity == "alert" else rule.severity,
                condition_words(rule),
                heard_words(rule),
                steps_words(rule) or "-",
                f"`{rule.command}`",
                rule.runbook,
            )
            for name, rule in SHIPPED.items()
        ),
    )


def endpoints() -> str:
    """Every endpoint of the server."""
    from lockkit.server.endpoints import ENDPOINTS
    from lockkit.server.openapi import parameters_of

    return rows(
        ("endpoint", "scope", "parameters or body", "answers"),
        (
            (
                f"`{one.method} {one.path}`",
                "-" if one.scope is None else f"`{one.scope}`",
                ", ".join(f"`{name}`" for name in parameters_of(one)) or "-",
                one.meaning,
            )
            for one in ENDPOINTS
        ),
    )


def statuses() -> str:
    """The statuses of answers."""
    from lockkit.server.openapi import STATUSES

    return rows(("status", "meaning"), ((f"{status}", meaning) for status, meaning in STATUSES.items()))


def celery_checks() -> str:
    """The mistakes that ``lockkit doctor --celery`` looks for."""
    from lockkit.integrations.celery.checks import ROWS

    return rows(
        ("check", "severity", "mistake", "what to change"),
        ((f"`{row.name}`", row.severity, row.mistake, row.change) for row in ROWS),
    )


TABLES = {
    **{
        f"metrics_{source}": partial(metrics, source)
        for source in ("process", "store", "run", "workers", "server")
    },
    "imports": imports,
    "house": house,
    "settings": settings,
    "environment": environment,
    "kinds": kinds,
    "alerts": alerts,
    "alert_rules": alert_rules,
    "channels": channels,
    "channel_types": channel_types,
    "counters": counters,
    "exceptions": exceptions,
    "losses": losses,
    "capabilities": capabilities,
    "scenarios": scenarios,
    **{
        f"the_28_{first}_{last}": partial(the_28, first, last)
        for first, last in ((1, 7), (8, 15), (16, 23), (24, 28), (29, 35))
    },
    "endpoints": endpoints,
    "statuses": statuses,
    "celery_checks": celery_checks,
    **{f"proof_{guarantee}": partial(proof, guarantee) for guarantee in GUARANTEES},
}


def filled(page: str) -> str:
    """A page with its tables as the code has them."""
    return re.sub(
        r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)",
        lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}",
        page,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    import typed  # beside this file

    typed.write()
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text()
        if "<!-- table: " in text and filled(text) != text:
            path.write_text(filled(text))
