"""Commands in alerts: shown to be pasted into a shell, so each is exact, or it is not shown.

Names come from other users, so each is one word, quoted for any shell and markup (Markdown, HTML, Slack's).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from lockkit.config.suggesting import quoted

__all__ = ["command_of", "in_markdown", "shown"]

_LONGEST = 500
"""The most characters of a command; a longer one is not shown, because part of a command is another one."""
_WORD = re.compile(r"\{(\w+)\}")
_MARKUP = "`<>&"
"""Characters that a markup may change, even within code: Slack reads ``&lt;`` and ``<!channel>`` there."""


def command_of(template: str, words: Mapping[str, str]) -> str:
    """A rule's command with the words in braces filled in, ready for bash; empty if that is impossible.

    Args:
        template: The command, as the rule has it.
        words: The words, as they are: any text.
    """
    told, end = "", 0
    for found in _WORD.finditer(template):
        value = words.get(found[1])
        before = template[end : found.start()]
        if not value or not _outside_quotes(template[: found.start()]):
            return ""  # within quotes of the template the quotes of the value would end them
        told += before
        if value.startswith("-") and told[-1:].isspace():
            # A value that begins like an option needs --, behind which there are no options.
            if told.split()[-1].startswith("-") or " -" in template[found.end() :]:
                return ""
            told += "-- "
        told += quoted(value, besides=_MARKUP)
        end = found.end()
    return told + template[end:]


def shown(command: str) -> str:
    """The command, if it can be shown as it is; otherwise an empty text."""
    return command if command.isprintable() and len(command) <= _LONGEST else ""


def in_markdown(command: str) -> bool:
    """Whether a command stays as it is as code in Markdown."""
    return not any(char in command for char in "`<>") and not re.search(r"&#?\w+;", command)


def _outside_quotes(start: str) -> bool:
    try:
        shlex.split(start)
    except ValueError:
        return False
    return True
