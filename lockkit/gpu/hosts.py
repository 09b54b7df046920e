"""The name of this host in the store, which names the pool of its cards: the same in all its containers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lockkit.errors import ConfigError
from lockkit.gpu.host_pools import simulated
from lockkit.gpu.snapshots import simulated_cards
from lockkit.values import containers
from lockkit.values.identity import this_process

if TYPE_CHECKING:
    from lockkit.config.config import Config

__all__ = ["host_name"]


def host_name(config: Config, *, simulate: int | None = None, host: str | None = None) -> str:
    """The name of this host: ``host``, else the setting ``gpu.host``, else the kernel's; marked if simulated.

    A container has its own host name, but the host's cards. Under two names there would be two pools of one
    card, and both would give it out. So a container must state the name, except for simulated cards.

    Args:
        config: The configuration.
        simulate: The number of cards to simulate; None for what the configuration says.
        host: The name of this host; None if the caller gives none.

    Raises:
        ConfigError: This process runs in a container, and nothing states the name of the host.
    """
    told = config.gpu_host if host is None else host
    if simulated_cards(config, simulate):
        return simulated(this_process().host if told is None else told)
    if told is not None:
        return told
    inside = containers.detect(None, os.environ)
    if inside is not None:
        raise ConfigError(
            f"this process runs in a container ({inside.engine}), where the name of the host is unknown,"
            " so its cards cannot be told from those of other containers",
            hint="set LOCKKIT_GPU_HOST to the host's name, for example"
            " docker run -e LOCKKIT_GPU_HOST=$(hostname); see: lockkit docs containers",
        )
    return this_process().host
