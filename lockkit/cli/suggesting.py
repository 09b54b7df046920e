"""Commands that lockkit suggests in errors and explanations, ready to paste."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lockkit.cli.base import Session

__all__ = ["MEANT", "PROBE", "URL_FIRST", "WORDS", "command_line", "explain_line", "quoted", "same_store"]

MEANT: Final = "lockkit.meant"
"""The key of ``click.Context.meta`` under which a suggestion is kept for the report of the error."""
WORDS: Final = "lockkit.words"
"""The key of ``click.Context.meta`` under which a command keeps its words as they were typed."""
URL_FIRST: Final = ", with LOCKKIT_URL set to the store's URL, which has a secret"
"""The phrase about what must be done before a suggested command."""
PROBE: Final = "lockkit.probe"
"""The key of ``click.Context.meta`` that marks the parsing of a suggestion, for which there are no suggestions."""


def same_store(session: Session) -> tuple[str, str]:
    """The options with which a suggested command uses the same store, and a phrase about what must be done first.

    A suggested command never contains a secret. If the URL has a secret, the phrase says that LOCKKIT_URL must be set to it first;
    otherwise the phrase is empty.
    """
    from lockkit.redaction import redact

    words: list[str] = []
    url = session.url or ""
    secret = bool(url) and redact(url) != url
    for flag, value in (
        ("--url", None if secret else url),
        ("--profile", session.profile),
        ("--namespace", session.namespace),
    ):
        if value:
            words += [flag, value]
    return "".join(f" {quoted(each)}" for each in words), URL_FIRST if secret else ""


def quoted(text: str) -> str:
    """Quote a text as one word of a shell. Characters that do not print are escaped as bash, zsh and ksh do it."""
    import shlex

    if text.isprintable():
        return shlex.quote(text)
    escaped = "".join(
        f"\\{char}" if char in "\\'" else char if char.isprintable() else f"\\U{ord(char):08x}"
        for char in text
    )
    return f"$'{escaped}'"


def command_line(command: str, name: str, more: str = "", *, options: str = "") -> str:
    """A command about a lock, ready to paste. The name of the lock may be any text.

    Args:
        command: The command, such as ``explain``.
        name: The lock.
        more: The rest of the command, as it is typed.
        options: The options from :func:`same_store`.
    """
    lock, more = quoted(name), f" {more}" if more else ""
    if name.startswith("-"):
        return f"lockkit {command}{options}{more} -- {lock}"
    return f"lockkit {command}{options} {lock}{more}"


def explain_line(session: Session, name: str) -> str:
    """The command that explains the state of a lock, ready to paste."""
    return command_line("explain", name, options=same_store(session)[0])
