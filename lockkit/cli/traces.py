"""Sentences about the traces that a free lock has left. Stores forget free names: there may be none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lockkit.cli import output
from lockkit.config.suggesting import command_line
from lockkit.hooks import of_gpus
from lockkit.notes.members import in_pool
from lockkit.values import durations
from lockkit.views.traces import Traces, failures, traces

if TYPE_CHECKING:
    from lockkit.facts import Record

__all__ = ["Traces", "failures", "row", "sentences", "traces"]

_SHOWN = 200
"""Characters of a record that are shown."""


def sentences(
    found: Traces, now: float, options: str = "", first: str = "", *, meant: bool = False
) -> list[str]:
    """The sentences about a free name, without those about failed releases.

    ``meant``: it is known what else the name may mean, so a lack of similar names says nothing.
    """
    told = []
    if meant and not found.near:
        pass
    elif found.near is None:
        told.append("The store does not list the names in use, so similar names are not known.")
    elif found.near:
        told.append(
            f"A similar name is in use{first}: {command_line('explain', found.near[0], options=options)}"
        )
        told += [f"Another one is {other!r}." for other in found.near[1:]]
    else:
        told.append("No similar name is in use here.")
    if found.record is not None and found.record.damaged:
        told.append(
            "Its record in the store is damaged: nobody knows what it said. A GPU is given to nobody until "
            f"somebody looked at it, and ran{first}: lockkit gpu clear UUID{options}."
        )
    elif found.record is not None:
        words = _card_words(found.record)
        when = _when(found.record, now)
        told.append(
            f"Its record, written {when}, says: {words}."
            if words
            else f"A program wrote a record of it {when}: {_text(found.record)}"
        )
    elif found.unread:
        told.append(f"Whether a program wrote a record of it is not known: {found.unread}")
    elif not found.failed:
        told.append(
            "Nothing here remembers this name, so whether it was ever used is not known: a "
            "store forgets a name that is free."
        )
    return told


def row(
    name: str, found: Traces, now: float, options: str = "", first: str = "", *, meant: bool = False
) -> str:
    """The same in one row, for a table; empty if nothing is known of the name."""
    told = []
    if found.near:
        line = command_line("status", found.near[0], options=options)
        told.append(f"a similar name is in use{first}: {line}")
    elif found.failed:
        line = command_line("explain", name, options=options)
        told.append(f"a release of it got no answer{first}: {line}")
    elif found.record is not None:
        told.append(
            "its record in the store is damaged"
            if found.record.damaged
            else f"a program wrote a record of it {_when(found.record, now)}"
        )
    elif not found.unread:
        told.append("nothing here remembers this name")
        if found.near is not None and not meant:
            told[0] += ", and no similar name is in use"
    return "; ".join([f"{name!r} is free", *told]) if told else ""


def _when(record: Record, now: float) -> str:
    """The time at which a record was written, for people."""
    return (
        f"at {output.clock_time(record.written, now)}, {durations.show(max(now - record.written, 0.0))} ago"
    )


def _card_words(record: Record) -> str:
    """The words for the record of a GPU; empty for other records."""
    if in_pool(record.name) is None:
        return ""
    words: str = of_gpus("record_words")(record.name, record)
    return words


def _text(record: Record) -> str:
    """The content of a record as JSON, cut to what is readable in a sentence."""
    text = json.dumps(dict(record.value), ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
