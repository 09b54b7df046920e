"""What a URL says: everything that libpq understands, and in which schema the store is."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from lockkit.errors import ConfigError
from lockkit.settings import redact

__all__ = ["Address", "parse"]

_SCHEMA = "lockkit"
_CONNECTING = 2
"""Seconds that libpq tries to connect to one host: the shortest time it knows."""


class Address(NamedTuple):
    """A database and a schema in it.

    Attributes:
        shown: The URL without secrets.
        conninfo: For libpq.
        schema: A plain identifier, fit to stand in a statement between double quotes.
    """

    shown: str
    conninfo: str
    schema: str

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def parse(url: str, client: str) -> Address:
    """Read ``postgres-lock://[user[:password]@]host[:port][,host...]/database[?option=...]``.

    The options are libpq's (``sslmode``, ``sslrootcert``, ...; PostgreSQL's manual, section 34.1.2), and ``schema``.

    Args:
        url: The URL.
        client: What the server shows of the client, as ``application_name``.

    Raises:
        ConfigError: It is not such a URL, or libpq does not know an option.
    """
    from psycopg import OperationalError
    from psycopg.pq import Conninfo

    shown = redact(url)
    rest = url.partition(":")[2]
    path, _, query = rest.partition("?")
    options = [each for each in query.split("&") if each]
    schemas = [unquote(each[7:]) for each in options if each.startswith("schema=")] or [_SCHEMA]
    if len(schemas) > 1 or not re.fullmatch(r"[a-z_][a-z0-9_]{0,40}", schemas[0]):
        raise ConfigError(
            f"{shown}: not a schema", hint="once, a-z 0-9 _ and no digit first: ?schema=lockkit"
        )
    given = [each for each in options if not each.startswith("schema=")]
    names = {each.partition("=")[0] for each in given}
    # A client that fell asleep, or a host that is gone: the server and the client notice by themselves.
    defaults = {
        "connect_timeout": str(_CONNECTING),
        "target_session_attrs": "read-write",
        "fallback_application_name": client,
        "client_encoding": "UTF8",
        "keepalives_idle": "10",
        "keepalives_interval": "5",
        "keepalives_count": "3",
    }
    given += [f"{key}={quote(value)}" for key, value in defaults.items() if key not in names]
    conninfo = f"postgresql:{path}?{'&'.join(given)}"
    try:
        if not path.startswith("//") or urlsplit(url).fragment:
            raise ValueError("it does not begin with postgres-lock://")
        Conninfo.parse(conninfo.encode())
    except (OperationalError, ValueError) as error:
        # libpq's message may quote what it could not read, and that may be a password.
        said = re.search(r'invalid URI query parameter: "(\w+)"', str(error))
        what = f"no such option: {said[1]}" if said else "not a URL of a PostgreSQL store"
        raise ConfigError(
            f"{shown}: {what}",
            hint="write postgres-lock://user@host/database; in a password / ? # @ : % are escaped",
        ) from None
    return Address(shown, conninfo, schemas[0])
