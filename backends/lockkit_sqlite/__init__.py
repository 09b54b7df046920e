"""The embedded store: one SQLite file for the processes of one host. No server, nothing to set up."""

from __future__ import annotations

from lockkit.forks import IMPORTS, let_forks_pass
from lockkit.hooks import hookimpl
from lockkit.store.spi import Backend, BackendSpec, OpenOptions
from lockkit_sqlite.capabilities import CAPABILITIES

__all__ = ["CAPABILITIES", "lockkit_backends"]


def _open(url: str, options: OpenOptions) -> Backend:
    with IMPORTS:
        from lockkit_sqlite.backend import open_store
    let_forks_pass()

    return open_store(url, options)


def _check(url: str) -> None:
    with IMPORTS:
        from lockkit_sqlite.place import locate

    locate(url, state_dir="/")  # any folder will do


@hookimpl
def lockkit_backends() -> list[BackendSpec]:
    """Offer ``sqlite:`` (the user's own file) and ``sqlite:/path/file.db``."""
    return [
        BackendSpec(
            name="sqlite",
            schemes=("sqlite",),
            open=_open,
            summary="One host, one SQLite file: the default, without a server.",
            capabilities=CAPABILITIES,
            check=_check,
        )
    ]
