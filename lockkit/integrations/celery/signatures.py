"""The function of a task, as its caller sees it, and the name of the lock of one run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lockkit.errors import ConfigError
from lockkit.integrations.celery.skipping import skipped_in
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable
from lockkit.sync.decorator import check_function, name_of

__all__ = ["LOCKED", "Body", "body_of", "body_of_function", "lock_name"]


LOCKED = "lockkit_locked"
"""The attribute of a locking ``run``, with its author's ``run``; and of a request whose run has its lock."""


class Body(NamedTuple):
    """The function of a task.

    Attributes:
        function: The function.
        signature: The signature as those who send the task see it, without ``self``.
        name: The qualified name, for errors.
    """

    function: Callable[..., Any]
    signature: inspect.Signature
    name: str


def body_of(owner: type, stop: type) -> Body | None:
    """The body of a task's class; None for a base. ``stop`` is Celery's, whose ``run`` does not count."""
    found = inspect.getattr_static(owner, "run", None)
    if found is None or found is inspect.getattr_static(stop, "run", None):
        return None
    found = getattr(found, LOCKED, found)
    if isinstance(found, staticmethod):
        return body_of_function(found.__func__, bound=False)
    return body_of_function(found, bound=True)


def body_of_function(function: Callable[..., Any], *, bound: bool) -> Body:
    """The body of a task that is made from a function.

    Args:
        function: The function.
        bound: Whether it gets the task as its first argument.

    Raises:
        ConfigError: The function is none, or has no argument for the task.
    """
    check_function(function)
    signature = inspect.signature(function)
    if bound:
        parameters = list(signature.parameters.values())
        if not parameters or parameters[0].kind in (parameters[0].KEYWORD_ONLY, parameters[0].VAR_KEYWORD):
            raise ConfigError(
                f"{function.__qualname__} has no argument for the task",
                hint="leave out bind=True, or add self",
            )
        if parameters[0].kind is not parameters[0].VAR_POSITIONAL:
            signature = signature.replace(parameters=parameters[1:])
    return Body(function, signature, function.__qualname__)


def lock_name(
    template: str, signature: inspect.Signature, args: Sequence[Any], keywords: Mapping[str, Any]
) -> str:
    """The name of the lock of one run.

    Raises:
        TypeError: The arguments do not fit the function, as Python itself would say.
        ConfigError: The template does not fit the values of the arguments.
    """
    try:
        return name_of(
            template,
            signature,
            *map(_seen, args),
            **{key: _seen(value) for key, value in keywords.items()},
        )
    except ConfigError:
        raise
    except (AttributeError, LookupError, ValueError) as error:
        hint = (
            "arguments are as they were sent: "
            "write {invoice[id]} for what JSON or a pydantic model has under that key"
        )
        raise ConfigError(
            printable(f"the template {template!r} does not fit the arguments: {error!r}"), hint=hint
        ) from error


def _seen(value: Any) -> Any:
    """An argument; the Skipped itself in the place of its document, which a chain hands on."""
    skipped = skipped_in(value)
    return value if skipped is None else skipped
