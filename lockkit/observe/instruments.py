"""The closed list of metrics: the source of the instruments, of docs/reference/metrics.md and of tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from lockkit.lib.namedtuples import NamedTuple
from lockkit.values.events import COUNTERS

__all__ = ["BUCKETS", "METRICS", "OTHER", "Metric"]

Type = Literal["counter", "gauge", "histogram"]
OTHER = "other"
"""The value of a label for all that has no value of its own."""
BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
"""The upper bounds of the buckets of every histogram, in seconds: a wait may take a millisecond or a day."""


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: The name, as Prometheus shows it: a counter's ends with ``_total``.
        type: The type, in Prometheus' words.
        help: One sentence on the thing that is measured.
        labels: The names of the labels, beside ``store`` and ``namespace`` of those from the store.
        source: ``process`` (each with metrics on), ``store`` (read by an exporter), ``run`` (a textfile of
            ``lockkit run``), ``workers`` (the collector of forked workers) or ``server`` (``lockkit serve``).
        unit: The unit; empty for a number of things.
        stat: The counter of ``client.stats()`` that it repeats; empty if it is counted from events.
    """

    name: str
    type: Type
    help: str
    labels: tuple[str, ...] = ()
    source: Literal["process", "store", "run", "workers", "server"] = "process"
    unit: str = ""
    stat: str = ""


def _stat(counter: str) -> Metric:
    return Metric(f"lockkit_{counter}_total", "counter", COUNTERS[counter], stat=counter)


def _run(name: str, help_: str, unit: str = "") -> Metric:
    return Metric(f"lockkit_run_{name}", "gauge", help_, ("run", "lock"), "run", unit)


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "lockkit_build_info",
            "gauge",
            "1, with the versions of lockkit and Python.",
            ("version", "python"),
        ),
        Metric(
            "lockkit_attempts_total",
            "counter",
            "Acquisitions that ended, by how: acquired, busy, timeout, cancelled or failed.",
            ("lock", "outcome"),
        ),
        Metric(
            "lockkit_skipped_total", "counter", "Calls of decorated functions that were skipped.", ("lock",)
        ),
        Metric("lockkit_queued_total", "counter", "Claims that had to wait.", ("lock",)),
        Metric(
            "lockkit_wait_seconds",
            "histogram",
            "Time from the call of acquire to its end, by how it ended.",
            ("lock", "outcome"),
            unit="seconds",
        ),
        Metric(
            "lockkit_hold_seconds",
            "histogram",
            "Time from a grant to its confirmed release.",
            ("lock",),
            unit="seconds",
        ),
        Metric(
            "lockkit_handoff_seconds",
            "histogram",
            "Time from a confirmed release to the grant of the claim that waited behind it, "
            "where one process made both.",
            ("lock",),
            unit="seconds",
        ),
        Metric(
            "lockkit_last_acquired_timestamp_seconds",
            "gauge",
            "When a lock was last acquired, in seconds since 1970.",
            ("lock",),
            unit="seconds",
        ),
        Metric(
            "lockkit_last_released_timestamp_seconds",
            "gauge",
            "When a release was last confirmed, in seconds since 1970.",
            ("lock",),
            unit="seconds",
        ),
        Metric(
            "lockkit_releases_total",
            "counter",
            "Releases that ended, by outcome (released, lost, abandoned) and by the reason that was given.",
            ("lock", "outcome", "reason"),
        ),
        Metric(
            "lockkit_release_layers_total",
            "counter",
            "Layers of releases (cleanup, normal, emergency), by outcome.",
            ("layer", "outcome"),
        ),
        Metric(
            "lockkit_release_layer_seconds",
            "histogram",
            "Time that a layer of a release took.",
            ("layer",),
            unit="seconds",
        ),
        Metric(
            "lockkit_cleanups_total",
            "counter",
            "Cleanup hooks that ended, by plugin and outcome.",
            ("plugin", "outcome"),
        ),
        Metric(
            "lockkit_losses_total",
            "counter",
            "Holds that may have lapsed, by reason. Counts from 0 for each lock that was acquired.",
            ("lock", "reason"),
        ),
        Metric("lockkit_evictions_total", "counter", "Claims that this process forced out.", ("lock",)),
        Metric("lockkit_alerts_total", "counter", "Alerts, by kind and priority.", ("kind", "priority")),
        Metric("lockkit_events_total", "counter", "Events, by kind.", ("kind",)),
        _stat("ran_unlocked"),
        _stat("renewals"),
        _stat("events_dropped"),
        _stat("alerts_dropped"),
        _stat("hooks_hanging"),
        _stat("normal_release_failures"),
        _stat("emergency_releases"),
        _stat("release_script_errors"),
        _stat("ownership_violations"),
        # -- from the files of forked workers
        Metric(
            "lockkit_metrics_files_unreadable",
            "gauge",
            "Files of forked workers that cannot be read and were left out.",
            source="workers",
        ),
        # -- from the channels of alerts
        Metric(
            "lockkit_alert_channel_waiting",
            "gauge",
            "Alerts that wait for a channel.",
            ("channel",),
            "server",
        ),
        Metric(
            "lockkit_alert_channel_failures",
            "gauge",
            "Attempts of a channel that have failed since the last one that did not.",
            ("channel",),
            "server",
        ),
        Metric(
            "lockkit_alert_channel_set_aside",
            "gauge",
            "Alerts that the service of a channel refuses, and that are tried again while others go on.",
            ("channel",),
            "server",
        ),
        Metric(
            "lockkit_alert_channel_given_up_total",
            "counter",
            "Alerts that the service of a channel refused until they were given up.",
            ("channel",),
            "server",
        ),
        # -- from the store
        Metric("lockkit_store_up", "gauge", "1 if the store answered, 0 if it did not.", source="store"),
        Metric(
            "lockkit_scrape_partial",
            "gauge",
            "1 if something is missing: "
            "more locks than are read, locks that cannot be read, or no time left.",
            source="store",
        ),
        Metric(
            "lockkit_scrape_seconds",
            "gauge",
            "Time that the reading of the store took.",
            source="store",
            unit="seconds",
        ),
        Metric("lockkit_drained", "gauge", "1 if the namespace is drained.", source="store"),
        Metric("lockkit_locks", "gauge", "Names with claims.", ("lock",), "store"),
        Metric("lockkit_holders", "gauge", "Claims that hold.", ("lock",), "store"),
        Metric("lockkit_waiters", "gauge", "Claims that wait.", ("lock",), "store"),
        Metric(
            "lockkit_longest_queue",
            "gauge",
            "Claims that wait for one name, of the name with the most.",
            ("lock",),
            "store",
        ),
        Metric(
            "lockkit_oldest_hold_seconds", "gauge", "Age of the oldest hold.", ("lock",), "store", "seconds"
        ),
        Metric(
            "lockkit_oldest_wait_seconds", "gauge", "Age of the oldest wait.", ("lock",), "store", "seconds"
        ),
        Metric(
            "lockkit_blocked_seconds",
            "gauge",
            "Who blocks whom now: "
            "the longest wait of a user on a host behind a holder; the longest waits only.",
            ("lock", "waiter", "holder"),
            "store",
            "seconds",
        ),
        Metric(
            "lockkit_last_held_timestamp_seconds",
            "gauge",
            "When a lock was last held, as its holder has left it in the store or the exporter saw it; "
            "else when the exporter first looked; in seconds since 1970. Of names in `metrics.names` and "
            "locks with a period only; a holder leaves it if its own configuration has the name there.",
            ("lock",),
            "store",
            "seconds",
        ),
        Metric(
            "lockkit_period_seconds",
            "gauge",
            "The longest time for which the lock of a regular job may stay unused, "
            "from `periods` of `[alerts.rules.missed_run]`.",
            ("lock",),
            "store",
            "seconds",
        ),
        Metric(
            "lockkit_zombies",
            "gauge",
            "Claims whose owner is gone, left processes behind, or does not renew, "
            "as lockkit recover judges.",
            ("lock", "kind"),
            "store",
        ),
        Metric(
            "lockkit_overdue_holds",
            "gauge",
            "Holds beyond one of the ages age_warning, age_soft and age_hard, "
            "by the highest that each has reached.",
            ("lock", "tier"),
            "store",
        ),
        Metric(
            "lockkit_clients",
            "gauge",
            "Processes with claims, "
            "by the version of their lockkit and of the layout in which their claims are stored.",
            ("version", "layout"),
            "store",
        ),
        # -- from the textfile of a lockkit run
        _run("started_timestamp_seconds", "When the run began, in seconds since 1970.", unit="seconds"),
        _run("running", "1 while the run waits or its command runs, 0 when it has ended."),
        _run("acquired", "1 if the run has got the lock, 0 if it has not, or waits."),
        _run("wait_seconds", "Time that the run has waited for its locks.", unit="seconds"),
        _run("hold_seconds", "Time that the last run which got the lock has held it.", unit="seconds"),
        _run("exit_code", "The exit code of the last lockkit run that has ended."),
        _run("ended_timestamp_seconds", "When the last run ended, in seconds since 1970.", unit="seconds"),
        _run(
            "last_success_timestamp_seconds",
            "When a run that got the lock last ended with 0, in seconds since 1970.",
            unit="seconds",
        ),
        _run(
            "last_failure_timestamp_seconds",
            "When a run last ended with another code, in seconds since 1970.",
            unit="seconds",
        ),
    )
}
"""Every metric by name."""
