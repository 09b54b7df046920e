"""lockkit's locks on PostgreSQL: fair queues, leases and fences in a schema of your database.

Every program that has the plugin installed loads this module, so it imports nothing heavy.
psycopg is imported when a store is opened.
"""

from __future__ import annotations

from lockkit.facts import Capabilities
from lockkit.hooks import hookimpl
from lockkit.lib.forks import IMPORTS
from lockkit.store.spi import Backend, BackendSpec, OpenOptions

__all__ = ["CAPABILITIES", "lockkit_backends"]

CAPABILITIES = Capabilities(
    scope="fleet",
    fence="strict",  # the fence is a counter in a row, as durable as any commit
    failover_safe=False,  # a standby with asynchronous replication may be promoted without the last grants
)


def _open(url: str, options: OpenOptions) -> Backend:
    with IMPORTS:
        from lockkit_postgres.backend import open_store

    return open_store(url, options)


@hookimpl
def lockkit_backends() -> list[BackendSpec]:
    """Offer ``postgres-lock://user@host/database``."""
    return [
        BackendSpec(
            name="postgres",
            schemes=("postgres-lock",),
            open=_open,
            summary="A PostgreSQL server, for a fleet: queues in a schema of a database.",
            capabilities=CAPABILITIES,
            harmless=(
                "schema",
                "sslmode",
                "sslrootcert",
                "sslcert",
                "sslkey",
                "connect_timeout",
                "application_name",
            ),
        )
    ]
