"""The plugin. Every program that has it installed loads this module, so import nothing heavy here."""

from __future__ import annotations

from lockkit.facts import Capabilities
from lockkit.hooks import hookimpl
from lockkit.lib.forks import IMPORTS
from lockkit.store.spi import Backend, BackendSpec, OpenOptions

__all__ = ["CAPABILITIES", "lockkit_backends"]

# TODO: declare exactly what your store can do. The kit tests it: declaring less is as wrong as more.
CAPABILITIES = Capabilities(scope="host")


def _open(url: str, options: OpenOptions) -> Backend:
    with IMPORTS:  # no fork while your client library is imported
        from lockkit_template.backend import TemplateBackend

    return TemplateBackend(url, options)


@hookimpl
def lockkit_backends() -> list[BackendSpec]:
    """Offer ``template:/some/file``."""
    # TODO: choose a name and a scheme that no other plugin has.
    return [
        BackendSpec("template", ("template",), _open, "One SQL table, one row for each lock.", CAPABILITIES)
    ]
