"""``lockkit serve``: health, locks, GPUs and operations over HTTP."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from lockkit.cli import output
from lockkit.cli.base import COMMON, PROFILE, Session, option
from lockkit.cli.base import command as make
from lockkit.cli.parameters import NAMESPACE
from lockkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockkit.alerts.inbox import Inbox
    from lockkit.server.running import Address
    from lockkit.sync.client import Client

__all__ = ["command"]


@make(
    "serve",
    examples="""
lockkit serve                                   # http://127.0.0.1:8712
lockkit serve --url redis://db:6379 --url 'redis://db:6379?namespace=ci'
curl -s http://127.0.0.1:8712/health | jq .status
curl -s 'http://127.0.0.1:8712/api/locks?sort=waiters&limit=5'
""",
    store=False,
)
@option(
    "--bind",
    default="127.0.0.1:8712",
    show_default=True,
    metavar="HOST:PORT",
    help="Listen here; port 0 is any that is free. An address that other hosts can reach needs tokens.",
)
@option(
    "--root-path",
    default="",
    metavar="PATH",
    help="The prefix that a proxy in front of the server removes from each path, such as /locks.",
)
@option(
    "--url",
    "urls",
    multiple=True,
    metavar="URL",
    section=COMMON,
    help="Serve this store; may be given several times.",
)
@PROFILE
@option(
    "--namespace",
    type=NAMESPACE,
    metavar="NAME",
    section=COMMON,
    help="Use this namespace of lock names.",
)
def command(
    session: Session,
    *,
    bind: str,
    root_path: str,
    urls: tuple[str, ...],
) -> None:
    r"""Serve a page that shows who blocks whom, and locks, GPUs, health and failures as JSON over HTTP.

    Without tokens the server only shows, and only programs of this host reach it. With tokens of the scope
    operate or admin it can also evict, ask for a release, quarantine a GPU, acknowledge and silence an alert.
    Each line of the token file is NAME SCOPE TOKEN, and only its owner may read it:

    \b
    (umask 077; echo "$USER admin $(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')" \
      > serve-tokens)
    LOCKKIT_SERVE_TOKEN_FILE=serve-tokens lockkit serve
    curl -H "Authorization: Bearer TOKEN" http://127.0.0.1:8712/api/stores

    When it listens it prints its address, at which a browser finds the page. Ctrl-C and SIGTERM end it. It
    runs the alert engine, which sends alerts over the channels of the configuration, unless serve.alerts is
    false; see: lockkit alerts --help. If serve.recover is set it also removes what dead owners left behind,
    like lockkit recover --yes --every; of several servers of one store, one does so. See: lockkit docs serve
    """
    try:
        from lockkit.server import alerting, running
    except ImportError as error:
        raise ConfigError(
            f"lockkit serve needs {error.name}, which is not installed", hint="pip install 'lockkit[server]'"
        ) from None
    where = running.address(bind)
    if root_path and not root_path.startswith("/"):
        raise ConfigError(f"--root-path must begin with /, not {root_path!r}")
    chosen = [session._replace(url=url) for url in urls or (None,)]
    running.check_exposed(where, chosen[0].config().serve_token_file)
    with ExitStack() as stack:
        inboxes: dict[Client, Inbox] = {}
        clients = []
        for one in chosen:
            inbox = alerting.inbox_for(one.config())
            client = stack.enter_context(one.client(plugins=() if inbox is None else (inbox,)))
            clients.append(client)
            if inbox is not None:
                inboxes[client] = inbox
        running.serve(
            clients,
            where,
            lambda at: _ready(session, clients, at, root_path.rstrip("/")),
            root_path=root_path.rstrip("/"),
            inboxes=inboxes,
        )


def _ready(session: Session, clients: Sequence[Client], at: Address, root_path: str) -> None:
    """Say that the server listens, in one line."""
    url = f"http://{at}{root_path}/"
    tokens = clients[0].config.serve_token_file
    if session.json:
        from lockkit.cli import documents

        output.print_json(documents.Serve, url=url, stores=clients, view_only=tokens is None)
        return
    only = " (view only: there is no token file)" if tokens is None else ""
    stores = ", ".join(f"{client.url} (namespace {client.namespace})" for client in clients)
    output.say(f"serving {url}{only}: {stores}")
    sys.stdout.flush()  # whoever started the server waits for this line
