"""The checks of ``doctor``, and the warnings for a client that opens a store."""

from __future__ import annotations

from collections.abc import Sequence

from lockkit.facts import Finding
from lockkit_postgres.pool import Connections

__all__ = ["check"]

_QUESTION = """
SELECT jsonb_build_object(
    'version', current_setting('server_version'), 'encoding', current_setting('server_encoding'),
    'standby', pg_is_in_recovery(), 'fsync', current_setting('fsync'),
    'waits', current_setting('synchronous_commit'),
    'for', current_setting('synchronous_standby_names'),
    'standbys', (SELECT count(*) FROM pg_stat_replication),
    'may', has_function_privilege('"{schema}".acquire(text, jsonb, boolean, double precision)', 'EXECUTE'))
"""


def check(pool: Connections, budget: float) -> Sequence[Finding]:
    """Check the server.

    Raises:
        Refused, Unknown: The server does not answer.
    """
    told, _ = pool.ask(budget, _QUESTION.replace("{schema}", pool.address.schema))
    return [
        Finding("server", "ok", f"PostgreSQL {told['version']} answers"),
        Finding("role", "error", "it is a standby, which takes no writes", "name the primary")
        if told["standby"]
        else Finding("role", "ok", "it is a primary"),
        Finding("encoding", "ok", "names are kept as they are")
        if told["encoding"] == "UTF8"
        else Finding("encoding", "error", f"its encoding is {told['encoding']}", "createdb --encoding=UTF8"),
        Finding("durability", "ok", "a grant survives a crash")
        if told["fsync"] == "on"
        else Finding(
            "durability", "error", "fsync is off: a crash of its host may forget grants", "set fsync = on"
        ),
        _failover(told["standbys"], bool(told["for"]) and told["waits"] != "local"),
        Finding("rights", "ok", "this user may lock")
        if told["may"]
        else Finding("rights", "warning", "this user may look, not lock", "see the rights in the README"),
    ]


def _failover(standbys: int, waits: bool) -> Finding:  # noqa: FBT001
    if waits:
        return Finding("failover", "ok", "a grant waits until a standby has it")
    if not standbys:
        return Finding("failover", "ok", "it stands alone")
    return Finding(
        "failover",
        "warning",
        "its standbys copy later: one that is promoted may not know the last grants",
        "set synchronous_standby_names",
    )
