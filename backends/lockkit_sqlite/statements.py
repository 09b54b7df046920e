"""The SQL. Every statement that writes is complete in itself: it reads everything that it decides by.

Parameters are numbered, ?1 namespace and ?2 name in almost all. ``now`` is always a parameter, CLOCK_BOOTTIME
microseconds.
"""
# ruff: noqa: S608 - built from constants of this file; whatever comes from outside is a parameter

from __future__ import annotations

from collections.abc import Mapping

from lockkit.store.spi import End
from lockkit_sqlite.layout import FAR, HELD, HIGH, LINGERING, NO_FENCE, READER, WAITING, counts

ENDS: Mapping[End, int] = {"ungraceful": 0, "released": 1, "unused": 2}
"""How a claim ends, as the statements get it."""

_ROW = """fence, token, state, evicted, weight, capacity, process_bound, deadline, silence, ttl, since,
    renewed, min_hold, lock_delay, boot, epoch, fifo, info, note, asked, min_reader"""
QUEUE = f"SELECT {_ROW} FROM entries WHERE namespace = ?1 AND name = ?2 ORDER BY fence"
"""The whole queue in order. Never filtered by time: a lapsed claim, skipped and renewed, would hold too."""


def _of(table: str) -> str:
    return ", ".join(f"{table}.{column.strip()}" for column in _ROW.split(","))


FRONT = """SELECT token, state, weight, capacity, fifo, min_reader
    FROM entries WHERE namespace = ?1 AND name = ?2 ORDER BY fence LIMIT ?3"""
"""The front claims, with the columns that decide whom to wake. Short: the next in line waits for it."""
_ALL = "FROM entries WHERE namespace = ?1 AND name = ?2"
_PLAIN = f"""SELECT own, min(fence) AS first, max(CASE WHEN fence < own THEN fence END) AS nearest,
    sum(fence < own) AS ahead, max(CASE WHEN state <> {WAITING} THEN fence END) AS held,
    min(deadline) AS ends, max(weight) AS heaviest, max(capacity) AS largest,
    min(boot) AS boots, max(boot) AS boots_too, max(min_reader) AS reader
    FROM (SELECT fence AS own {_ALL} AND token = ?3 AND NOT evicted AND deadline >= ?5), entries
    WHERE namespace = ?1 AND name = ?2"""
BEHIND = f"""SELECT {_of("head")}, {_of("near")}, own, ahead FROM ({_PLAIN}), entries AS head, entries AS near
    WHERE ends > ?4 AND heaviest = 1 AND largest = 1 AND boots = ?6 AND boots_too = ?6 AND reader <= {READER}
    AND ifnull(held, first) = first AND head.namespace = ?1 AND head.name = ?2 AND head.fence = first
    AND near.namespace = ?1 AND near.name = ?2 AND near.fence = nearest"""
"""The first claim of a queue of capacity 1, the one right ahead of the waiter ?3, the waiter's fence and
place. Nothing if the waiter is the first, if its deadline is before ?5, or if a claim has lapsed at ?4, is of
another boot than ?6, has another weight or capacity, holds without being the first, or may not be touched."""
_COLUMNS = """INTO entries (namespace, name, weight, capacity, process_bound, ttl, min_hold, lock_delay, boot,
    info, fence, token, state, deadline, silence, since, renewed, hold_end, epoch, fifo, note) """
_REST = (
    "?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, {fence}, ?12, {state}, ?14, ?15, ?13, ?13, ?16, ?11 - ?13, ?17, ?18"
)
"""?1 to ?10 are what all claims of a lock share; ?11 is the wall clock in microseconds, ?13 is now."""
_HIGH = f"({HIGH})"
_NEXT = f"max(?11, {_HIGH} + 1, (SELECT coalesce(max(fence), 0) + 1 {_ALL}))"
_FITS = f"""CASE WHEN NOT EXISTS (SELECT 1 {_ALL}) THEN ?3 <= ?4 ELSE (SELECT sum(weight) + ?3 <= ?4
        AND min(weight) > 0 AND max(weight) <= ?4 AND min(capacity) = ?4 AND max(capacity) = ?4
        AND min(deadline) > ?13
        AND min(boot) = ?9 AND max(boot) = ?9
        AND sum(token = ?12) = 0
        AND max(min_reader) <= {READER}
        AND max(fence) < {{fence}} {_ALL}) END"""
_NOT_DRAINED = "NOT EXISTS (SELECT 1 FROM records WHERE namespace = ?1 AND name = '')"
"""A drain's mark is the record with an empty name. Each statement that grants or adds a claim checks it."""
_HELD_IF = f"""INSERT OR IGNORE {_COLUMNS}
    VALUES (CASE WHEN {{fits}} THEN ?1 END, {_REST.format(fence="{fence}", state=HELD)})"""
"""A row without a namespace is not allowed, and is ignored. (INSERT ... SELECT ... WHERE takes 2 us more.)"""

INSERT_HELD = _HELD_IF.format(
    fits=f"{_HIGH} < ?11 AND {_FITS.format(fence='?11')} AND {_NOT_DRAINED}", fence="?11"
)
"""Take what is free, with the wall clock as the fence. Does nothing if a claim in the queue has lapsed or is
of another boot; the caller removes such claims first."""
INSERT_HELD_RISING = _HELD_IF.format(
    fits=f"{_FITS.format(fence=NO_FENCE - 1)} AND {_NOT_DRAINED}", fence=_NEXT
)
"""The same where the wall clock is behind the fences; the caller reads its fence afterwards."""
INSERT_WAITING = f"""INSERT OR IGNORE {_COLUMNS} VALUES (CASE WHEN NOT EXISTS (SELECT 1 {_ALL}
    AND (token = ?12 OR boot <> ?9 OR min_reader > {READER} OR NOT {counts("fence")}))
    AND {_NOT_DRAINED} THEN ?1 END, {_REST.format(fence=_NEXT, state=WAITING)})"""
"""Append a claim, unless it is there, or one is behind which it must not wait: written by a newer version, of
another boot (its process may live in a container with its own boot id), or with an impossible fence."""

_ONE = "namespace = ?1 AND name = ?2 AND token = ?3"
_EXTENDED = """renewed = ?4, silence = max(silence, ?4 + ttl + lock_delay), deadline = max(deadline,
    CASE WHEN process_bound THEN deadline ELSE min(?4 + ttl, hold_end) + lock_delay END)"""

_GRANT = f"""UPDATE entries SET state = {HELD}, since = ?4, renewed = ?4, deadline = ?5, silence = ?6,
    hold_end = ?7, fifo = ?10 WHERE {_ONE} AND fence = ?8 AND capacity = ?9 AND state = {WAITING}
    AND deadline > ?4 AND NOT evicted AND {_NOT_DRAINED}"""
"""Only this makes a waiter a holder. A resize since the read changed the capacity, and so grants nothing."""
_OTHERS = "FROM entries AS others WHERE others.namespace = ?1 AND others.name = ?2"
GRANT = f"""{_GRANT} AND weight <= capacity
    - (SELECT total(others.weight) {_OTHERS} AND others.state <> {WAITING})"""
"""Grant a claim that fits by a read. Two resizes since, there and back, leave the capacity as it was read,
but may have let in a claim behind this one, so the statement counts the holders itself."""
GRANT_FIRST = f"""{_GRANT} AND (SELECT min(others.fence) = ?8 AND sum(others.state <> {WAITING}) = 0
    AND min(others.deadline) > ?4 AND max(others.min_reader) <= {READER} {_OTHERS})"""
"""The same for a claim that takes the whole capacity, without a read before: nobody is ahead, nobody holds
behind, and nothing has lapsed, because such claims are removed first."""
RENEW_ONE = (
    f"UPDATE entries SET {_EXTENDED} WHERE {_ONE} AND state = {HELD} AND deadline > ?4 AND NOT evicted"
)
EXTEND = f"""UPDATE entries SET ttl = max(ttl, ?5), renewed = ?4,
    silence = max(silence, ?4 + max(ttl, ?5) + lock_delay), process_bound = max(process_bound, ?7),
    deadline = max(deadline, CASE WHEN process_bound THEN deadline
        WHEN ?7 THEN min(hold_end + lock_delay, {FAR}) ELSE min(?4 + max(ttl, ?5), hold_end) + lock_delay END)
    WHERE {_ONE} AND fence = ?6 AND state = {HELD} AND deadline > ?4 AND NOT evicted"""
_BEATS = """(namespace, name, fence, token) IN (SELECT ?1, json_extract(value, '$[0]'),
    json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(?3))"""
RENEW = f"""UPDATE entries SET {_EXTENDED.replace("?4", "?2")} WHERE {_BEATS}
    AND state = {HELD} AND deadline > ?2 AND NOT evicted"""
"""Renew a whole batch in one statement: ?3 is JSON, [[name, fence, token], ...]."""
RENEWED = f"""SELECT token, fence FROM entries WHERE {_BEATS}
    AND state = {HELD} AND renewed >= ?2 AND NOT evicted"""
"""The claims that RENEW renewed, for when these were not all."""
ASKED = f"""SELECT token, note FROM entries INDEXED BY asked WHERE namespace = ?1 AND asked = 1
    AND state = {HELD} AND boot = ?2"""
PROLONG = f"""UPDATE entries SET deadline = max(deadline, ?4) WHERE namespace = ?1 AND name = ?2
    AND state = {WAITING} AND deadline > ?5 AND token IN (SELECT value FROM json_each(?3))"""

_UNTIL = "max(since + min_hold, CASE WHEN {kept} THEN 0 ELSE min(deadline, {now} + lock_delay) END)"
_ENDED = (
    f"CASE WHEN ?5 = {ENDS['unused']} THEN 0 ELSE {_UNTIL.format(kept='?5 AND NOT evicted', now='?4')} END"
)
"""The time until which a claim blocks if it ends now as ?5 says, a value of ENDS."""
REMOVE_LAST = f"""DELETE FROM entries WHERE {_ONE} AND state = {HELD} AND deadline > ?4 AND {_ENDED} <= ?4
    AND fence = (SELECT min(fence) {_ALL}) AND fence = (SELECT max(fence) {_ALL})"""
"""Release where nobody else is in the queue, so that nobody needs to be looked for and woken."""
LINGER = f"""UPDATE entries SET state = {LINGERING}, deadline = {_ENDED}
    WHERE {_ONE} AND state = {HELD} AND deadline > ?4 AND {_ENDED} > ?4"""
REMOVE = f"""DELETE FROM entries WHERE {_ONE} AND fence = (SELECT fence {_ALL} AND token = ?3)
    AND state <> {LINGERING} AND deadline > ?4 AND (state <> {HELD} OR {_ENDED} <= ?4)"""
"""Release a claim that need not linger. The stored terms decide that, not those of the caller."""
DELETE_LAPSED = "DELETE FROM entries WHERE namespace = ?1 AND name = ?2 AND deadline <= ?3"

_DEAD = _UNTIL.format(kept="0", now="?2")
BURY_FIFO = f"""UPDATE entries SET state = {LINGERING}, deadline = {_DEAD}
    WHERE fifo = ?1 AND state = {HELD} AND {_DEAD} > ?2"""
"""Have the claims of a dead process go on blocking while their min_hold or lock_delay runs ..."""
DELETE_FIFO = f"DELETE FROM entries WHERE fifo = ?1 AND state <> {LINGERING}"
"""... and remove all others, whatever their ttl."""
_SILENT = "namespace = ?1 AND name = ?3 AND token = ?4 AND process_bound AND silence <= ?2"
BURY_SILENT = f"""UPDATE entries SET state = {LINGERING}, deadline = {_DEAD}
    WHERE {_SILENT} AND state = {HELD} AND {_DEAD} > ?2"""
DELETE_SILENT = f"DELETE FROM entries WHERE {_SILENT} AND state <> {LINGERING}"

_THEN = f"""CASE WHEN state = {LINGERING} THEN deadline
    ELSE {_UNTIL.format(kept="0", now="?5 - epoch")} END + epoch"""
BURY_BOOT = f"""UPDATE entries SET state = {LINGERING}, boot = ?3, epoch = ?5 - ?4,
    since = since + epoch - ?5 + ?4, deadline = min({_THEN} - ?5, max(min_hold, lock_delay)) + ?4
    WHERE namespace = ?1 AND name = ?2 AND boot <> ?3 AND state <> {WAITING} AND {_THEN} > ?5"""
"""Have claims of another boot, whose processes are dead, block while their min_hold or lock_delay runs by the
wall clock (?5; ?4 is CLOCK_BOOTTIME), but never longer than that from now: that clock may have been reset."""
DELETE_BOOT = "DELETE FROM entries WHERE namespace = ?1 AND name = ?2 AND boot <> ?3"

MARK = f"""UPDATE entries SET evicted = 1, deadline = min(deadline, max(silence, ?4 + ttl / 2 + lock_delay))
    WHERE {_ONE} AND state = {HELD}"""
"""Evict a holder. If it has not renewed for long, it keeps half a ttl, in which its command can be ended."""
_PLACE = "namespace = ?1 AND name = ?2 AND fence = ?3"
EVICT_WAITING = f"DELETE FROM entries WHERE {_PLACE} AND state = {WAITING}"
EVICT_NOW = "DELETE FROM entries WHERE namespace = ?1 AND name = ?2 AND fence IN (?3, CAST(?3 AS TEXT))"
"""Also of a fence that is no text, although it is stored as one: Python reads it as bytes."""
NEWEST_FENCE = f"""SELECT coalesce(max(fence), 0) FROM (SELECT CASE WHEN namespace = '' THEN since
    ELSE fence END AS fence FROM entries) WHERE {counts("fence")}"""
RESIZE = "UPDATE entries SET capacity = ?3 WHERE namespace = ?1 AND name = ?2"
DELETE_TOO_HEAVY = f"""DELETE FROM entries WHERE namespace = ?1 AND name = ?2 AND capacity = ?3
    AND state = {WAITING} AND weight > ?3"""
_PATCHED = "json_patch(CASE WHEN json_valid(note) THEN note ELSE '{}' END, ?4)"
ANNOTATE = (
    f"UPDATE entries SET note = {_PATCHED}, asked = 1 WHERE {_ONE} AND length(CAST({_PATCHED} AS BLOB)) <= ?5"
)
RECORD = "SELECT version, value, written, min_reader FROM records WHERE namespace = ?1 AND name = ?2"
_LEGIBLE = "min_reader = CASE typeof(min_reader) WHEN 'integer' THEN min_reader ELSE 1 END"
NEW_RECORD = f"""INSERT INTO records (namespace, name, version, value, written)
    VALUES (?1, ?2, ?3 + 1, ?4, ?5) ON CONFLICT (namespace, name) DO UPDATE SET version = 1, value = ?4,
    written = ?5, {_LEGIBLE} WHERE typeof(version) <> 'integer' OR version NOT BETWEEN 1 AND 1 << 53"""
REPLACE_RECORD = f"""UPDATE records SET version = version + 1, value = ?4, written = ?5, {_LEGIBLE}
    WHERE namespace = ?1 AND name = ?2 AND version = ?3"""
DRAINED = "SELECT value FROM records WHERE namespace = ?1 AND name = ''"
DRAIN = "INSERT OR REPLACE INTO records (namespace, name, version, value, written) VALUES (?1, '', 1, ?2, ?3)"
UNDRAIN = "DELETE FROM records WHERE namespace = ?1 AND name = '' AND value = ?2"
NAMES = """SELECT DISTINCT name FROM entries WHERE namespace = ?1 AND substr(name, 1, length(?2)) = ?2
    AND deadline > ?3 AND boot = ?4 ORDER BY name"""
NAMESPACES = """SELECT namespace FROM entries WHERE namespace <> '' AND deadline > ?1 AND boot = ?2
    UNION SELECT namespace FROM records WHERE name = ''"""
