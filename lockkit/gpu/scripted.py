"""The state file of simulated cards: its form, and the checks of what it says."""

from __future__ import annotations

import msgspec

from lockkit.errors import ConfigError
from lockkit.values.sizes import parse

__all__ = ["ScriptedCard", "ScriptedProcess", "decode"]


class ScriptedProcess(msgspec.Struct, forbid_unknown_fields=True):
    """A process on a simulated card; with ``while_alive``, only while a process with this pid lives."""

    pid: int | None = None
    user: str | None = None
    program: str | None = None
    memory: str | int = 0
    while_alive: bool = False

    def __post_init__(self) -> None:
        _size(self.memory, "memory")


class ScriptedCard(msgspec.Struct, forbid_unknown_fields=True):
    """A simulated card. ``used`` may include leftover memory. Watches report ``events``, such as an Xid."""

    name: str = "Simulated GPU"
    memory: str | int | None = None
    used: str | int | None = None
    utilisation: int | None = None
    processes: list[ScriptedProcess] = []
    faults: list[str] = []
    events: list[str] = []

    def __post_init__(self) -> None:
        if self.memory is not None:
            _size(self.memory, "memory", zero=False)
        if self.used is not None:
            _size(self.used, "used")


def _size(value: str | int, what: str, *, zero: bool = True) -> None:
    try:
        parse(value, what=what, zero=zero)
    except ConfigError as error:
        raise ValueError(str(error)) from None


def decode(text: bytes, count: int) -> dict[int, ScriptedCard]:
    """The cards that a state file describes, by index.

    Raises:
        ConfigError: The text is not of the form above, or is about a card that is not simulated.
    """
    try:
        told = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:
        raise ConfigError(str(error)) from None
    for key in told:
        if not (key.isascii() and key.isdigit() and int(key) < count):
            raise ConfigError(
                f"there is no card {key!r}",
                hint=f"the cards are 0 to {count - 1}" if count > 1 else "the only card is 0",
            )
    return {int(key): _card(key, card) for key, card in told.items()}


def _card(key: str, text: msgspec.Raw) -> ScriptedCard:
    try:
        return msgspec.json.decode(text, type=ScriptedCard)
    except msgspec.DecodeError as error:
        of_card, of_process = (", ".join(one.__struct_fields__) for one in (ScriptedCard, ScriptedProcess))
        raise ConfigError(
            f"card {key}: {error}",
            hint=f"the keys of a card are {of_card}; those of a process are {of_process}",
        ) from None
