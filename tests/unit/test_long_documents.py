"""Documents with long lists are written bit by bit."""

from __future__ import annotations

import io
import json

from lockkit.cli import output
from lockkit.facts import Owner
from lockkit.observe.past import Happening, History, PastHold, PastWait, StoreKey
from lockkit.server.answers import as_json
from lockkit.views import documents
from lockkit.views.history import document

OWNER = Owner("änn", "box", 7)
KEY = StoreKey("redis://h", "default")
PAST = History(
    holds=tuple(PastHold(KEY, f"n{n}", "c", n, OWNER, 1.0, 0.0) for n in range(3)),
    waits=(PastWait(KEY, "n", OWNER, "timeout", 2.0, 1.0, "bob"),),
    happenings=(Happening(KEY, "lost", 3.0, "n", "c", OWNER, "P1", 'a "text"'),),
)


def test_a_document_is_the_same_in_one_line_on_a_terminal_and_from_the_server():
    made = io.StringIO()
    output.write_json(document(PAST), stream=made)
    whole = documents.plain(document(PAST))
    assert made.getvalue() == f"{json.dumps(whole)}\n"
    assert [one["name"] for one in whole["holds"]] == ["n0", "n1", "n2"]
    assert json.loads(as_json(document(PAST))) == whole


def test_the_parts_of_a_long_list_are_made_when_they_are_written():
    made = []
    past = document(PAST)
    make = past.holds._make
    past.holds = documents.Each(lambda hold: (made.append(hold.name), make(hold))[1], PAST.holds)
    seen = [len(made) for bit in documents.written(past) if '"claim_id"' in bit]
    assert seen[:3] == [1, 2, 3]
