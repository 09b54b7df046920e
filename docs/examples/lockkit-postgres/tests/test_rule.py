"""The rule in SQL is the rule of lockkit.store.queue."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.pq import PGconn

from lockkit.store.queue import grantable


class Row(NamedTuple):
    weight: int
    capacity: int
    state: str


rows = st.lists(
    st.builds(
        Row,
        st.integers(1, 4),
        st.sampled_from([1, 2, 2, 2, 5]),
        st.sampled_from(["WAITING", "OFFERED", "HELD", "LINGERING"]),
    ),
    max_size=8,
)
_FILL = """
INSERT INTO lockkit.claim (namespace, name, fence, token, claim_id, state, weight, capacity,
    ttl, min_hold, lock_delay, since, renewed, deadline, about)
SELECT 'n', 'a', place, place::text, place::text, r ->> 'state', (r ->> 'weight')::int,
    (r ->> 'capacity')::int, '1 s', '0 s', '0 s', now(), now(), now(), '{}'
FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS q (r, place)
"""


@pytest.fixture
def look(server, store, database):
    conn = PGconn.connect(server.conninfo(database))
    yield conn
    conn.finish()


def test_the_rule_in_sql_is_the_rule_of_the_library(look):
    @given(rows)
    @settings(max_examples=300)
    def agree(queue):
        look.exec_(b"BEGIN")
        filled = look.exec_params(_FILL.encode(), [json.dumps([row._asdict() for row in queue]).encode()])
        assert not filled.error_message
        found = look.exec_(
            b"SELECT count(*), bool_and(fence <= n) FROM (SELECT fence, count(*) OVER () AS n"
            b" FROM lockkit.rule('n', 'a') WHERE fits) f"
        )
        look.exec_(b"ROLLBACK")
        fits = grantable(queue, [row.state in ("HELD", "LINGERING") for row in queue])
        assert int(found.get_value(0, 0)) == fits
        assert found.get_value(0, 1) in (None, b"t"), "they are the first ones"

    # Helper functions find the tables of their schema by the path of the calls that use them.
    look.exec_(b"SET search_path = lockkit")
    agree()
