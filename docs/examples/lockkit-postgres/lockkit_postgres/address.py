"""The parts of a URL: the options of libpq, and the schema of the store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from lockkit.config.settings import redact
from lockkit.errors import ConfigError

__all__ = ["Address", "parse"]

_SCHEMA = "lockkit"


class Address(NamedTuple):
    """A database and a schema in it.

    Attributes:
        shown: The URL without secrets.
        hosts: A connection string of libpq for each host, in the order of the URL.
        schema: A plain identifier, which can be put between double quotes in a statement.
    """

    shown: str
    hosts: tuple[str, ...]
    schema: str

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def parse(url: str, client: str) -> Address:
    """Read ``postgres-lock://[user[:password]@]host[:port][,host...]/database[?option=...]``.

    The options are ``schema`` and libpq's (``sslmode``, ``sslrootcert``, ...; PostgreSQL's manual, 34.1.2).

    Args:
        url: The URL.
        client: The ``application_name`` that the server shows for the client.

    Raises:
        ConfigError: The text is not such a URL, or libpq does not know an option.
    """
    from psycopg import OperationalError, ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

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
    # With keepalives, client and server notice that the other host is gone.
    defaults = {
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
        if "@" in path.partition("@")[2] + query or re.search("/.*@", path[2:]):
            raise ValueError("a password has what ends it")
        words = {key: str(value) for key, value in conninfo_to_dict(conninfo).items()}
        if not re.fullmatch(r"[0-9,]*", words.get("port", "")):
            raise ValueError("the port is no number")
    except (OperationalError, ProgrammingError, ValueError) as error:
        # libpq's message may quote the part that it could not read, and that may be a password.
        said = re.search(r'invalid URI query parameter: "(\w+)"', str(error))
        what = f"{shown}: no such option: {said[1]}" if said else "not a URL of a PostgreSQL store"
        hint = "write postgres-lock://user@host/database; in a password / ? # @ : % are escaped"
        raise ConfigError(what, hint=hint) from None
    return Address(shown, _hosts(conninfo, words), schemas[0])


def _hosts(conninfo: str, words: Mapping[str, str]) -> tuple[str, ...]:
    """A connection string for each host. In one string, libpq would spend all the time on a silent host."""
    from psycopg.conninfo import make_conninfo

    lists = {key: words[key].split(",") for key in ("host", "hostaddr", "port") if words.get(key)}
    many = max(len(lists.get("host", ())), len(lists.get("hostaddr", ())))
    if many < 2 or any(len(each) not in (1, many) for each in lists.values()):  # libpq says what is wrong
        return (conninfo,)
    return tuple(
        make_conninfo(conninfo, **{key: each[at % len(each)] for key, each in lists.items()})
        for at in range(many)
    )
