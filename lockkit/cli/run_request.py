"""The request that the options of one ``lockkit run`` make."""

from __future__ import annotations

from typing import Literal

from lockkit.hooks import of_gpus
from lockkit.lib.namedtuples import NamedTuple

__all__ = ["CardOptions", "Request"]


class CardOptions(NamedTuple):
    """The options of the command line that are about cards. Sizes are bytes, times seconds."""

    count: int  # type: ignore[assignment]  # shadows the method of tuples, which nobody needs here
    min_free: int | None = None
    memory: int | None = None
    model: str | None = None
    ids: tuple[str, ...] = ()
    allow_busy: bool = False
    settle: float = 0.0
    visible: Literal["index", "uuid"] | None = None
    simulate: int | None = None
    private: bool = False
    accept_dirty: bool = False
    affinity: bool = True
    preflight: bool = False
    preflight_python: str | None = None


class Request(NamedTuple):
    """The options of the command line; None if the configuration decides."""

    names: tuple[str, ...]
    command: tuple[str, ...]
    mode: Literal["mutex", "read", "write", "semaphore"] = "mutex"
    capacity: int | None = None
    permits: int = 1
    ttl: float | None = None
    timeout: float | None = None
    no_wait: bool = False
    max_hold: float | None = None
    min_hold: float | None = None
    on_lost: Literal["term", "kill", "warn"] | None = None
    on_ask: int | None = None
    reason: str | None = None
    kill_after: float | None = None
    conflict_code: int | None = None
    quiet: bool = False
    nested: Literal["refuse", "reuse"] = "refuse"
    report: str | None = None
    metrics_textfile: str | None = None
    any: bool = False
    pool: str | None = None
    wanted: int | None = None
    each: int | None = None
    gpu: CardOptions | None = None

    @property
    def name(self) -> str:
        """The lock, the locks or the pool, as messages name them. Of GPUs it is the pool of this host's."""
        return self.pool or ", ".join(self.names)

    @property
    def cards_in_words(self) -> str | None:
        """The number of cards, as the waiting line has it; None if no cards are asked for."""
        if self.gpu is None:
            return None
        words: str = of_gpus("how_many")(self.gpu.count)
        return words
