"""The table of ``lockkit failures list``: releases without a definite answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from lockkit.values import durations

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["table_of", "words_of"]

_COLUMNS = ("id", "at", "name", "claim", "errors", "resolved")


def table_of(records: Iterable[Mapping[str, object]]) -> Table:
    """A table of records of the journal."""
    from lockkit.cli.tables import add, table

    made = table(*_COLUMNS)
    for record in records:
        add(made, *(_text(record, key) for key in _COLUMNS))
    return made


def _text(record: Mapping[str, object], key: str) -> str:
    return "; ".join(words_of(key, record.get(key)))[:100] or "-"


def words_of(key: str, value: object) -> list[str]:
    """A value of a record in words: one line for each part of a list or table, none for an empty value."""
    match value:
        case None | "" | [] | {}:
            return []
        case bool():
            return ["yes" if value else "no"]
        case int() | float() if key.endswith("_seconds"):
            return [durations.show(value)]
        case list():
            return [words for part in value for words in words_of(key, part)]
        case Mapping():
            return [
                f"{inner}: {words}" for inner, part in value.items() for words in words_of(str(inner), part)
            ]
    return str(value).splitlines()
