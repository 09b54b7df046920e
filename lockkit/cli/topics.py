"""The pages of the documentation as topics of ``lockkit docs``, from the wheel or the checkout in use.

A page is Markdown with a few directives for the website, which are replaced for readers of the text.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from lockkit.lib.namedtuples import NamedTuple

__all__ = ["Topic", "near", "text", "topics"]

_INSTALLED = Path(__file__).parents[1] / "_docs"
_CHECKOUT = Path(__file__).parents[2] / "docs"
_FOLDERS = (".", "backends", "howto", "ops", "reference")
_LEFT_OUT = ("api", "architecture", "changelog", "cli", "index", "kit", "performance", "spi")
"""Pages that repeat ``--help`` or docstrings, or show lockkit's inside. Wheels lack them (pyproject.toml)."""

_LINK = re.compile(r"\[([^\]]*)\]\((?:[\w./-]*/)?([\w-]+)\.md(?:#[^)]*)?\)")
_PICTURE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
_DIRECTIVE = re.compile(r"^```\{([\w-]+)\}([^\n]*)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
_NOTE = re.compile(r"^(?:<!-- .* -->|\(\w+\)=)\n+", re.MULTILINE)


class Topic(NamedTuple):
    """A page: its title, its file, and where that lies under ``docs``."""

    title: str
    path: Path
    place: str


@cache
def topics() -> Mapping[str, Topic]:
    """Every page by its topic, in alphabetical order."""
    root = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
    found = {path.stem: path for folder in _FOLDERS for path in (root / folder).glob("*.md")}
    return {
        name: Topic(_title(found[name]), found[name], found[name].relative_to(root).as_posix())
        for name in sorted(found.keys() - set(_LEFT_OUT))
    }


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("# ").strip()


def near(wanted: str) -> list[str]:
    """The topics that may be meant, the likeliest first."""
    word, known = Path(wanted).stem.lower(), topics()
    close = get_close_matches(word, known, n=3)
    inside = [name for name, topic in known.items() if word and word in f"{name} {topic.title}".lower()]
    return list(dict.fromkeys([*close, *inside]))[:3]


def text(topic: str) -> str:
    """The page of a topic as a text for people."""
    known = topics()
    folder = f"docs/{posixpath.dirname(known[topic].place)}"
    page = known[topic].path.read_text(encoding="utf-8")
    page = _NOTE.sub("", _DIRECTIVE.sub(lambda found: _without_directive(found, folder), page))
    page = _PICTURE.sub(r"(a picture: \1)", page)
    return _LINK.sub(lambda link: _without_link(link, known), page).rstrip() + "\n"


def _without_directive(found: re.Match[str], folder: str) -> str:
    kind, argument, body = found.groups()
    if kind in ("doctest", "code-block"):
        return f"```python\n{body}```\n"
    if kind == "glossary":
        return body
    if kind == "literalinclude":
        return f"(the file {posixpath.normpath(f'{folder}/{argument.strip()}')} of the source distribution)\n"
    names = re.findall(r"^\.\. auto\w+:: ([\w.]+)", body, re.MULTILINE)
    return f"In Python, `help` describes {', '.join(names)}.\n" if names else ""


def _without_link(link: re.Match[str], known: Collection[str]) -> str:
    words, topic = link.groups()
    if topic not in known:
        return words
    return f"{words} (`lockkit docs {topic}`)" if words else f"`lockkit docs {topic}`"
