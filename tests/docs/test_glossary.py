"""The glossary: the project's words, one meaning each, and all of them in use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/glossary.md"

REQUIRED = {
    *(
        "name",
        "namespace",
        "queue",
        "claim",
        "token",
        "claim id",
        "fence",
        "holder",
        "waiter",
        "hold",
        "lease",
    ),
    *("WAITING", "OFFERED", "HELD", "LINGERING"),
    *("ttl", "timeout", "max_hold", "min_hold", "lock_delay", "valid", "basis"),
    *("heartbeat", "lost", "evict", "outcome", "orphan"),
    *("store", "backend", "connection", "pool", "session", "transport", "watch", "wake"),
}
"""The words that every reader of the code needs."""

DIALECT = {"line", "wire", "link", "ear", "room", "slot", "slots", "stated", "chores", "asking", "drowsy"}
"""Words that once had a private meaning here."""


def entries(text):
    """The pairs of term and meaning on the page, in its order."""
    blocks = re.findall(r"^```\{glossary\}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    parts = re.findall(r"^(\S.*)\n((?:  .*\n|\n)+)", "\n\n".join(blocks) + "\n", re.MULTILINE)
    return [(term, " ".join(meaning.split())) for term, meaning in parts]


@pytest.fixture(scope="module")
def terms():
    return entries(PAGE.read_text())


@pytest.fixture(scope="module")
def elsewhere():
    """All the text in which a term could be used: the other pages, and the code."""
    files = [
        *(path for path in (ROOT / "docs").rglob("*.md") if path != PAGE and "_build" not in path.parts),
        *(ROOT / "lockkit").rglob("*.py"),
        *(ROOT / "backends").glob("lockkit_*/**/*.py"),
    ]
    return "\n".join(path.read_text() for path in files)


def test_the_words_that_everybody_needs_are_defined(terms):
    assert REQUIRED - {term for term, _ in terms} == set()


def test_each_word_has_one_meaning(terms):
    names = [term for term, _ in terms]

    assert sorted(names) == sorted(set(names))
    assert [term for term, meaning in terms if not re.fullmatch(r"[A-Z`].*\.", meaning)] == []


def test_each_word_is_used_somewhere(terms, elsewhere):
    assert [term for term, _ in terms if not re.search(rf"\b{re.escape(term)}", elsewhere)] == []


def test_no_word_of_the_old_dialect_is_in_the_glossary():
    assert DIALECT & set(re.findall(r"[a-z]+", PAGE.read_text().lower())) == set()


PRINTED = {
    ROOT / "lockkit" / folder / file for folder in ("cli", "views") for file in ("parts.py", "documents.py")
}
"""The documents of the command line and the server: records of the same things, with the same names."""


def test_no_other_class_has_the_name_of_one_that_the_glossary_names(terms):
    named = {name for _, meaning in terms for name in re.findall(r"[Ii]n the code: `([A-Z]\w+)`", meaning)}
    assert {"Hold", "Lease", "Pool", "ConnectionPool", "ThreadPool"} <= named
    found = {name: [] for name in named}
    for path in [*(ROOT / "lockkit").rglob("*.py"), *(ROOT / "backends").glob("lockkit_*/**/*.py")]:
        defined = re.findall(r"^(?:class (\w+)|(\w+): TypeAlias)", path.read_text(), re.MULTILINE)
        for name in {one or other for one, other in defined} & named:
            if path not in PRINTED:
                found[name].append(path)
    assert {name: paths for name, paths in found.items() if len(paths) != 1} == {}
