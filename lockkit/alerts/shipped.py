"""The shipped rules of alerts. A test finds an alert kind that no rule has."""

from __future__ import annotations

from collections.abc import Mapping

from lockkit.alerts.rules import Condition, Count, Missed, Seconds, Seen, Share, Step

__all__ = ["SHIPPED"]

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0


def _seconds(value: float) -> Seconds:
    return Seconds(value)


SHIPPED: Mapping[str, Condition] = {
    "store_unreachable": Seen(
        what="unreachable",
        hold=_seconds(_MINUTE),
        severity="P0",
        text="The store does not answer: {message}. "
        "Nobody can get a lock, and holders lose theirs when their ttl is over.",
        command="lockkit doctor",
        runbook="Check the store and the way to it. "
        "Locks go on by themselves once it answers; holders that lost theirs have stopped.",
        by=(),
        inhibits=(
            *("critical_failure", "emergency_release", "emergency_releases", "emergency_share", "lost"),
            *("missed_run", "old_hold", "ownership_violation", "recovered", "script_errors"),
            *("survivors", "timeouts", "zombie", "held_but_idle"),
        ),
    ),
    "critical_failure": Count(
        of=("alert.critical_failure",),
        severity="P0",
        command="lockkit failures list",
        runbook="No layer of a release got an answer. The claim lapses by itself; "
        "see `lockkit explain` when, and why the store did not answer.",
    ),
    "emergency_release": Count(
        of=("alert.emergency_release",),
        severity="P1",
        command="lockkit explain {lock}",
        runbook="The normal release got no definite answer. Look for a slow or restarted store at that time.",
        escalate=(Step("P0", above=10),),
    ),
    "emergency_releases": Count(
        of=("alert.emergency_release",),
        above=10,
        severity="P0",
        text="{count} emergency releases within {window}.",
        command="lockkit doctor",
        runbook="The store answers so badly that releases fail one after another. "
        "Check the store, its load and the network.",
        by=(),
    ),
    "emergency_share": Share(
        of=("event.emergency",),
        among=("event.released", "event.abandoned"),
        above=0.05,
        window=_seconds(_HOUR),
        severity="P0",
        text="{share} of the releases within {window} needed the emergency layer.",
        command="lockkit doctor",
        runbook="As for emergency_releases: check the store, its load and the network.",
    ),
    "ownership_violation": Count(
        of=("alert.ownership_violation",),
        severity="P2",
        command="lockkit explain {lock}",
        runbook="A release found its claim gone or another's: a hold outlived its ttl, or was evicted. "
        "Find out whether its process was stopped for long.",
        escalate=(Step("P1", above=100),),
    ),
    "script_errors": Count(
        of=("counter.release_script_errors",),
        severity="P0",
        text="The store answered {count} release requests within {window} "
        "with errors that no repetition ends.",
        command="lockkit doctor",
        runbook="The store is of a version, or has rights, with which lockkit's requests do not work. "
        "Releases then wait for the ttl.",
        by=(),
    ),
    "lost": Count(
        of=("alert.lost",),
        severity="P1",
        command="lockkit explain {lock}",
        runbook="A holder was cut off from the store, or stopped, for longer than its ttl. "
        "Check what it wrote since then, unless a guard refused it.",
        escalate=(Step("P0", above=20),),
    ),
    "zombie": Seen(
        what="zombie",
        hold=_seconds(2 * _MINUTE),
        severity="P0",
        text="{lock} is kept by a claim whose owner is gone: {message}",
        command="lockkit recover",
        runbook="`lockkit recover` says what can be proved; with --yes it removes the claim.",
        by=("lock", "owner"),
    ),
    "recovered": Count(
        of=("alert.recovered",),
        severity="P2",
        command="lockkit history {lock}",
        runbook="Nothing to do for the lock. Find out why its owner died without a release.",
    ),
    "timeouts": Share(
        of=("event.timeout",),
        among=("event.acquired", "event.timeout"),
        above=0.1,
        severity="P2",
        text="{share} of the waits within {window} ran out of time.",
        command="lockkit status",
        runbook="See which lock has the longest queue, and who holds it. "
        "Either it is held for too long, or the timeout is too short.",
    ),
    "old_hold": Seen(
        what="old",
        severity="P2",
        text="{lock} has been held for {message}",
        command="lockkit explain {lock}",
        runbook="Ask its owner whether the work is still wanted: `lockkit ask-release`. "
        "The age is the setting age_hard.",
        by=("lock", "owner"),
    ),
    "overdue": Count(
        of=("alert.overdue",),
        severity="alert",
        command="lockkit explain {lock}",
        runbook="A recoverer found an old hold whose owner may be at work. "
        "Ask the owner, or evict the claim.",
        inhibits=("old_hold",),
        equal=("lock",),
    ),
    "survivors": Count(
        of=("alert.survivors",),
        severity="P1",
        command="lockkit explain {lock}",
        runbook="Processes work on although the owner of their lock is gone. "
        "End them, or let them finish, before the lock is given to another.",
    ),
    "recovery_limited": Count(
        of=("alert.recovery_limited",),
        severity="P1",
        command="lockkit recover",
        runbook="Many owners died within an hour. Find out why before you raise recover_limit.",
        by=(),
    ),
    "cleanup_overrun": Count(
        of=("alert.cleanup_overrun",),
        severity="P1",
        command="lockkit plugins",
        runbook="A cleanup hook takes longer than cleanup_budget, so locks were released while it still "
        "worked. Mend the hook, or give it more time.",
    ),
    "missed_run": Missed(
        severity="P2",
        text="{lock} was not held for {value}; its job should run every {period}.",
        command="lockkit history {lock}",
        runbook="The job did not run, or does not take its lock any more. Look at what starts it.",
        escalate=(Step("P1", after=_seconds(4 * _HOUR)), Step("P0", after=_seconds(_DAY))),
    ),
    "gpu_unhealthy": Count(
        of=("alert.gpu_faulty", "alert.gpu_quarantined", "alert.gpu_not_quarantined"),
        severity="P0",
        command="lockkit gpu ls",
        runbook="Look at the card (nvidia-smi, dmesg). "
        "A quarantined card comes back with `lockkit gpu clear`.",
        by=("gpu",),
    ),
    "gpu_dirty": Count(
        of=("alert.gpu_dirty",),
        severity="P2",
        command="lockkit gpu ls",
        runbook="A holder left memory or a process on a card. The next holder was told; end the process.",
        by=("gpu",),
    ),
    "gpu_idle": Count(
        of=("alert.gpu_idle",),
        severity="P2",
        command="lockkit explain {lock}",
        runbook="Ask the holder whether the card is still needed: `lockkit ask-release`.",
        by=("gpu", "lock"),
        inhibits=("held_but_idle",),
        equal=("lock",),
    ),
    "held_but_idle": Seen(
        what="idle",
        severity="P2",
        text="{lock} is held and idle: {message}",
        command="lockkit explain {lock}",
        runbook="As for gpu_idle; this one is seen in the store, whichever host the card is in.",
    ),
    "alerts_dropped": Count(
        of=("counter.alerts_dropped",),
        severity="P1",
        text="{count} alerts were dropped within {window}, because a plugin was too slow or hung.",
        command="lockkit plugins",
        runbook="The log names the plugin. What was dropped is in the log, too.",
        by=(),
    ),
}
"""The shipped rules, by name. All are on."""
