"""``lockkit metrics``: what a store says of its locks, as metrics for Prometheus."""

from __future__ import annotations

import sys
from pathlib import Path

from lockkit.cli import exits, output
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.parameters import File
from lockkit.errors import ConfigError

__all__ = ["command"]


@make(
    "metrics",
    examples="""
lockkit metrics
lockkit metrics --textfile /var/lib/prometheus/node-exporter/lockkit.prom
lockkit metrics --json | jq '.samples[] | select(.name == "lockkit_waiters")'
""",
)
@option(
    "--textfile",
    type=File(),
    metavar="FILE",
    help="Write the text to FILE, which a reader finds whole or not at all, for "
    "node_exporter's textfile collector.",
)
def command(session: Session, textfile: str | None) -> int:
    """Print a store's metrics for Prometheus: holders, waiters, their ages, zombies, who waits for whom.

    The setting metrics.names lists the locks that have a value of their own in the label lock; all others are
    `other`. A store that does not answer gives lockkit_store_up 0 and exit code 69. Run it on one host for
    each store, every minute for example; lockkit docs prometheus has more.
    """
    with session.client() as client:
        from lockkit.observe.exporter import Exporter
        from lockkit.observe.exposition import render, write

        samples = Exporter(client).samples()
        if textfile is not None:
            try:
                write(Path(textfile), render(samples))
            except OSError as error:
                raise ConfigError(
                    f"cannot write {textfile}: {error.strerror}",
                    hint="its folder must exist and be writable for this user",
                ) from None
        elif session.json:
            from lockkit.cli import documents, parts

            found = [
                parts.Sample(name=name, labels=dict(labels), value=value)
                for name, values in samples.items()
                for labels, value in values.items()
            ]
            output.print_json(documents.Metrics, store=client, samples=found, indent=True)
        else:
            sys.stdout.write(render(samples).decode())
        up = all(value for value in samples["lockkit_store_up"].values())
    return exits.OK if up else exits.UNAVAILABLE
