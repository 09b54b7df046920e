"""The cleanup of a card at its release, by lockkit's own ``lockkit_cleanup``, and the receipt for the next.

In this order, within the budget of a hook, while the card is still held:

1. Frameworks that this program has imported free unused memory. Not in ``lockkit run``, whose command ended.
2. Processes that the holder started since the grant, and that still use the card, get TERM, then KILL.
3. The cleanup waits for memory that the driver returns late, until the card is as it was at the grant.
4. The receipt in the card's record says how the card is left: clean, dirty (how much, whose) or unknown.
5. A card is quarantined if it is faulty, or its driver or a framework hangs, and enough others are left.

The memory of a live process stays until it ends: what the program still refers to, and the context of CUDA.
The receipt says so, an alert is raised, and the lock is released all the same.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from lockkit.errors import BackendError, DevicesUnavailable
from lockkit.facts import Alert, CleanupContext
from lockkit.gpu.devices import Device, DeviceProcess
from lockkit.gpu.faulty import take_out
from lockkit.gpu.frameworks import hanging, imported, keepers
from lockkit.gpu.held_cards import held_card
from lockkit.gpu.judging import Receipt, is_back, judged
from lockkit.gpu.receipts import put
from lockkit.gpu.states import STRAY
from lockkit.gpu.unreturned import give_up_late, has_returned
from lockkit.gpu.usage import claimless, worker
from lockkit.gpu.watching import look_soon
from lockkit.gpu.words import long_name
from lockkit.hooks import hookimpl
from lockkit.lib.descent import descendants
from lockkit.plugins.calling import call_within, only_for_devices
from lockkit.values.identity import look_at

if TYPE_CHECKING:
    from lockkit.gpu.devices import Snapshot
    from lockkit.gpu.held_cards import HeldCard

__all__ = ["lockkit_cleanup"]

_RESERVE, _SHARE = 2.5, 0.3
"""Seconds, and the share of the budget, kept for the store: the receipt must be written in any case."""
_GRACE = 2.0
"""Seconds from TERM to KILL, at most."""
_PAUSE = 0.1
_TOGETHER = 5.0
"""Seconds after a shared wait's end; a card released later was released alone, and gets its own wait."""
_SURE = 0.6
"""The part of ``gpu.patience`` after which a silent driver hangs: a waking one takes 1-2 s of 5 s."""


@hookimpl(trylast=True)
@only_for_devices
def lockkit_cleanup(context: CleanupContext) -> None:
    """Clean a card of this host before its release, after plugins and callbacks, and leave a receipt.

    Raises:
        BackendError: The receipt could not be written.
    """
    held = held_card(context.claim_id)
    if held is None:
        return
    try:
        _Cleanup(context, held).run()
    finally:
        held.over = True
        look_soon()  # however the release came about: by the end of the client, too


class _Cleanup:
    """One cleanup.

    Args:
        context: The release.
        held: The card.
    """

    def __init__(self, context: CleanupContext, held: HeldCard) -> None:
        budget = context.budget()
        self._context = context
        self._held = held
        self._end = time.monotonic() + budget
        self._until = self._end - min(_RESERVE, _SHARE * budget)
        self._inside = context.where == "process"
        self._errors: list[str] = []
        self._hangs = ""
        """Why the card is quarantined: its driver or a framework hangs. Code of the user does not count."""
        self._doubts = False
        self._snapshot: Snapshot | None = None
        self._terminated: float | None = None

    def run(self) -> None:
        """Clean the card, and report how it is left."""
        held, context = self._held, self._context
        if context.overrun:
            self._doubt(f"the cleanup of {', '.join(context.overrun)} has not ended")
        else:  # a framework may hang because that cleanup uses it
            self._free()
        if context.lost:
            return  # somebody else may hold the card, and what is seen on it may be theirs
        after = self._settled()
        report = self._unless_claimless(after, self._judged(after, *self._ours(after)))
        if self._doubts and report.outcome == "clean":
            report = Receipt(held.uuid, "unknown")
        if report.outcome != "clean" and self._inside:
            self._errors += keepers()
        owner = context.owner
        report = report._replace(
            claim_id=context.claim_id,
            fence=context.fence,
            by=f"{owner.user}@{owner.host}",
            at=time.time(),
            errors=(*report.errors, *self._errors),
        )
        records = held.records(self._end)
        try:
            put(records, held.group.host, report, before=held.before, after=after, whole=held.whole)
        finally:
            if report.outcome == "dirty" and not self._only_this_process(after, report):
                self._alert_dirty(report)
            self._quarantine(after)

    # -- memory of this process

    def _free(self) -> None:
        """Have frameworks give back what they do not use, if this process may have memory of the card."""
        asked = imported(self._held.uuid) if self._inside else {}
        late = hanging() if self._inside else ()
        if not (asked or late) or not self._here(self._look()):
            return
        for name in late:  # at another card or an earlier release: one more thread would hang there
            self._doubt(f"{name} has not returned from an earlier cleanup, and was not asked")
        left = max(self._until - time.monotonic(), 0.05)
        outcomes = call_within(left, "gpu-cleanup", list(asked.items()), {})
        give_up_late(asked.values())
        for outcome in outcomes:
            if not has_returned(asked[outcome.plugin].provider):
                self._hangs = f"{outcome.plugin} has not given back its memory within {left:.3g} s"
                self._errors.append(self._hangs)
            elif outcome.error is not None:
                self._errors.append(f"{outcome.plugin}: {type(outcome.error).__name__}: {outcome.error}")

    def _here(self, card: Device | None) -> bool:
        """Whether this process uses the card, as far as it can be told."""
        if card is None:
            return not self._hangs
        pids = None if card.processes is None else [one.pid for one in card.processes]
        return pids is None or None in pids or os.getpid() in pids

    # -- what is left

    def _settled(self) -> Device | None:
        """The card once it is as at the grant, or once the time is up; None if it cannot be seen."""
        group = self._held.group
        now = time.monotonic()
        if group.until is None or now > group.until + _TOGETHER:
            group.until = self._until
        until = min(self._until, max(group.until, now + _PAUSE))
        if self._hangs:
            return None
        if self._inside:
            group.family.look()
        while True:
            began = time.monotonic()
            card = self._look()
            if card is None or card.faults:
                return card
            ours, others = self._ours(card)
            pending = self._end_processes(ours)
            back = is_back(self._judged(card, ours, others))
            now = time.monotonic()
            # A further look that takes as long would not be answered in time, and nothing would be known.
            if back or not (pending or self._drains(card)) or now + _PAUSE + (now - began) >= until:
                return card
            time.sleep(_PAUSE)

    def _look(self) -> Device | None:
        """The card now; None if it cannot be seen, for a reason that the receipt gives."""
        held = self._held
        longest = held.group.patience
        patience = min(longest, max(self._until - time.monotonic(), 0.05))
        try:
            self._snapshot = held.group.look(patience)
        except DevicesUnavailable as error:
            self._note(error.message)
        else:
            card = self._snapshot.device(held.uuid)
            if card is not None:
                return card
            self._note("the driver does not show it")
        if held.group.hangs and patience >= _SURE * longest:
            self._hangs = f"its driver has not answered within {patience:g} s"
        return None

    def _doubt(self, error: str) -> None:
        """Note that the card may still be used after the release, however it looks before."""
        self._doubts = True
        self._note(error)

    def _note(self, error: str) -> None:
        if error not in self._errors:
            self._errors.append(error)

    def _ours(self, card: Device | None) -> tuple[list[int], bool]:
        """The pids of this holder's processes on the card, and whether others' are known apart from them."""
        if card is None or not card.processes:
            return [], True
        family = self._held.group.family
        pids = [one.pid for one in card.processes if one.pid is not None]
        ours = family.among(pids)
        mine = [os.getpid()] if self._inside and os.getpid() in pids else []
        if self._held.whole:
            return [*ours, *mine], True
        if self._held.shared_here:
            return [], False
        if not ours:
            return mine, True
        try:
            others = self._held.others(max(self._until - time.monotonic(), 0.05))
        except BackendError as error:
            self._note(error.message)
            return mine, False
        workers = {pid for one in others for pid in (one.owner.pid, worker(one.owner.pid, one.note))}
        if family.among(workers):  # whose a process is that has left its parent cannot be told
            return mine, False
        apart = {*workers, *(each for pid in workers for each in descendants(pid))}
        return [*(pid for pid in ours if pid not in apart), *mine], True

    def _judged(self, card: Device | None, ours: list[int], told: bool) -> Receipt:  # noqa: FBT001
        """How the card is left."""
        held = self._held
        if held.whole:
            return judged(held.uuid, held.before, card)
        return judged(held.uuid, held.before, card, ours) if told else Receipt(held.uuid, "unknown")

    def _unless_claimless(self, card: Device | None, report: Receipt) -> Receipt:
        """The receipt; "unknown" for a share if a new process without a claim is on the card."""
        held = self._held
        if held.whole or report.outcome != "clean" or card is None:
            return report
        there = {one.pid for one in (() if held.before is None else held.before.processes or ())}
        new = [one.pid for one in card.processes or () if one.pid not in there]
        try:
            left = claimless(new, held.others(max(self._until - time.monotonic(), 0.05))) if new else []
        except BackendError as error:
            self._note(error.message)
            left = new
        return Receipt(held.uuid, "unknown") if left else report

    def _end_processes(self, pids: list[int]) -> bool:
        """Send TERM to processes of the holder, later KILL. Returns whether there are any to wait for."""
        family = self._held.group.family
        pids = [pid for pid in pids if pid != os.getpid()]
        now = time.monotonic()
        if self._terminated is None:
            if pids:
                self._terminated = now
        elif now - self._terminated < min(_GRACE, (self._until - self._terminated) / 2):
            return bool(pids)
        number = signal.SIGTERM if self._terminated == now else signal.SIGKILL
        sent = [family.signal(pid, number) for pid in pids]
        return any(sent)

    def _drains(self, card: Device) -> bool:
        """Whether memory in use may yet be given back, because no live process seems to have it."""
        if card.processes is None:
            return self._held.whole and not self._inside
        return not any(map(self._stays, self._new_or_changed(card)))

    def _new_or_changed(self, card: Device) -> list[DeviceProcess]:
        """The processes on the card that were not there at the grant, or used more or less of it then."""
        before = self._held.before
        known = set() if before is None or before.processes is None else set(before.processes)
        return [one for one in card.processes or () if one not in known]

    def _stays(self, process: DeviceProcess) -> bool:
        """Whether a process may go on using the card: it lives, or may be this program itself."""
        if process.pid is None:
            return self._inside
        seen = look_at(process.pid)
        return seen is not None and not seen.ended

    # -- telling

    def _only_this_process(self, card: Device | None, report: Receipt) -> bool:
        """Whether all that is left is, or may be, the context of this living process, as in a worker."""
        if card is not None and card.processes is None:
            return self._inside and (report.leftover or 0) <= STRAY
        left = set() if card is None else {one.pid for one in self._new_or_changed(card)}
        return self._inside and left == {os.getpid()} and (report.leftover or 0) <= STRAY

    def _quarantine(self, card: Device | None) -> None:
        """Quarantine the card if it is faulty, or its driver or a framework hangs."""
        held, context = self._held, self._context
        shown = card.faults if card is not None else ()
        past = held.group.faults(held.uuid)
        reason = "; ".join(dict.fromkeys((*shown, *past, *filter(None, [self._hangs]))))
        if not reason:
            return
        take_out(
            held.records(self._end),
            held.group.host,
            held.group.devices,
            held.uuid,
            reason,
            context.owner,
            held.group.tell,
            # The driver reports an Xid once, and may then show a card without a fault.
            lasting=bool(past) and not shown,
            claim_id=context.claim_id,
        )

    def _alert_dirty(self, report: Receipt) -> None:
        held, context = self._held, self._context
        name = held.uuid if held.before is None else long_name(held.before)
        data = {"uuid": held.uuid, "host": held.group.host}
        text = f"{name}: {report}"
        held.group.tell(Alert("gpu_dirty", "P2", text, context.name, context.claim_id, data=data))
