"""The embedded store: one SQLite file for one user's processes on a host, or for all who share its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockkit.hooks import hookimpl
from lockkit.lib.forks import IMPORTS, let_forks_pass
from lockkit.store.spi import Backend, BackendSpec, OpenOptions
from lockkit_sqlite.capabilities import CAPABILITIES, SHARED

if TYPE_CHECKING:
    from lockkit.facts import Capabilities

__all__ = ["CAPABILITIES", "SHARED", "lockkit_backends"]


def _open(url: str, options: OpenOptions) -> Backend:
    with IMPORTS:
        from lockkit_sqlite.backend import open_store
    let_forks_pass()

    return open_store(url, options)


def _adopt(url: str, options: OpenOptions) -> str:
    from lockkit_sqlite.backend import adopt_store

    return adopt_store(url, options)


def _check(url: str) -> None:
    with IMPORTS:
        from lockkit_sqlite import backend, place  # noqa: F401 (all that opening a store needs)

    path, _ = place.locate(url, state_dir="/")  # any folder will do
    place.check_folder(path)


def _declared(url: str) -> Capabilities:
    with IMPORTS:
        from lockkit_sqlite.place import is_shared

    return SHARED if is_shared(url) else CAPABILITIES


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
            declared=_declared,
            check=_check,
            adopt=_adopt,
        )
    ]
