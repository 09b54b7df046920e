"""The invariants, looked at after every step; each is named by the guarantee that it states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lockkit.errors import Drained
from lockkit.facts import Alert, Event, ReleaseReport
from lockkit.protocol.hold import Hold
from lockkit.store.queue import prefix
from lockkit.store.spi import Claim, End, Refused
from support.simulation.drains import TURNED_AWAY
from support.simulation.faults import LOST_DATA
from support.simulation.network import Request
from support.simulation.stores import StoredRow

if TYPE_CHECKING:
    from support.simulation.client import Client, Worker
    from support.simulation.world import World

__all__ = ["Checks", "Violation"]


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken: by which name it goes, what was seen, at which line of the story."""

    name: str
    what: str
    line: int


class _Seen(NamedTuple):
    state: str
    fence: int
    deadline: float
    evicted: bool
    since: float
    capacity: int


class Checks:
    """The observations so far, and those that must not follow."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.events: list[Event | Alert] = []
        self._seen: dict[str, dict[str, _Seen]] = {name: {} for name in world.names}
        self._top: dict[str, int] = {}
        self._exclusive: dict[str, int] = {}
        self._over: set[str] = set()
        self._row_of: dict[str, int] = {}
        self._overtime: set[str] = set()
        """Tokens that lapsed and were extended all the same, by a statement that read its clock before."""
        self._was_hold: set[int] = set()
        self._gone: set[int] = set()
        self._holds: list[tuple[Client, Hold, int]] = []
        self._invalid: list[tuple[Client, Hold]] = []
        self._told: dict[int, int] = {}
        self._removing: set[int] = set()
        self._grants: dict[int, Hold] = {}
        self._handed: set[int] = set()
        """Acquisitions whose hold a caller got."""

    # -- told by the clients

    def asks(self, worker: Worker, claim: Claim) -> None:
        """An acquire is about to be sent."""
        if worker.asked not in ("", claim.token):
            self.world.violated(
                "L6-pause", f"{worker.asked} came to nothing and {claim.token} follows at once"
            )
        worker.asked = claim.token

    def granted(self, worker: Worker, hold: Hold) -> None:
        """A grant was read."""
        world = self.world
        acquisition = world.acquisition(hold.claim)
        self._holds.append((worker.client, hold, acquisition))
        self._was_hold.add(acquisition)
        self._grants[acquisition] = hold
        if not hold.valid(world.clock.now()):
            world.violated(
                "S3-late-answer", f"{hold.claim.token} was granted by an answer whose basis had run out"
            )

    def handed(self, hold: Hold) -> None:
        """A caller got the lease of a hold."""
        self._handed.add(self.world.acquisition(hold.claim))

    def told_lost(self, hold: Hold) -> None:
        """The loss of a hold was told."""
        count = self._told[id(hold)] = self._told.get(id(hold), 0) + 1
        if count > 1:
            self.world.violated("S6-once", f"the loss of {hold.claim.token} was told {count} times")

    def hook_runs(self, worker: Worker, plugin: str) -> None:
        """A cleanup hook is started."""
        release = worker.release
        assert release is not None
        hold = release.hold
        if plugin in worker.hooks_run:
            self.world.violated("ONCE", f"cleanup hook {plugin} of {hold.claim.token} runs again")
        members = worker.client.beats.members
        if hold.valid(self.world.clock.now()) and hold.auto_renew and hold.claim.token not in members:
            self.world.violated(
                "S9-cleanup", f"{hold.claim.token} is not renewed any more while its cleanup runs"
            )

    def notified(self, what: Event | Alert) -> None:
        """An event or alert was told."""
        self.events.append(what)

    def released(self, worker: Worker, report: ReleaseReport) -> None:
        """A release came to its end."""
        world, release = self.world, worker.release
        assert release is not None
        hold = release.hold
        token = hold.claim.token
        acquisition = world.acquisition(hold.claim)
        row = self._seen_row(hold.name, token)
        now = world.clock.now()
        stands = row is not None and row.state != "LINGERING" and row.deadline > now
        stays = stands and self._row_of[token] == acquisition
        if report.outcome != "ABANDONED" and stays and not world.removed_in_this_step(token):
            world.violated("S1-report", f"{report.outcome} was reported and {token} still stands")
        if report.outcome == "ABANDONED" and stays and token not in worker.client.orphans.list.entries:
            world.violated("S11-abandoned", f"{token} was abandoned and nobody removes it")
        if set(release.plugins) != {hook.plugin for hook in release.hooks}:
            world.violated("ONCE", f"cleanup of {token}: {release.hooks} instead of {release.plugins}")
        if not worker.hooks_run.issuperset(release.plugins):
            world.violated(
                "ONCE", f"cleanup of {token}: only {sorted(worker.hooks_run)} of {release.plugins} ran"
            )
        if hold.lost_why and not self._told.get(id(hold)):
            world.violated("S6-told", f"{token} was lost ({hold.lost_why}) and nobody was told")
        if hold.valid(now):
            world.violated("S9-valid", f"{token} is valid after its release")

    def acquire_failed(self, worker: Worker, error: BaseException) -> None:
        """An acquisition ended in an exception."""

    def refused(self, request: Request, error: Exception) -> None:
        """The store answered a request with an error."""
        if not (request.acquires and isinstance(error, Refused) and isinstance(error.error, Drained)):
            return
        (claim,) = request.claims
        row = self._seen_row(claim.terms.name, claim.token)
        if not self.world.drains.marked:
            self.world.violated("S2-drain", f"{request} was refused in a namespace that is not drained")
        if row is not None and row.state == "HELD" and row.deadline > self.world.clock.now():
            self.world.violated("S2-drain", f"{request} was refused although {claim.token} is HELD")

    def sent(self, client: Client, request: Request) -> None:
        """A request leaves a client."""
        world, now = self.world, self.world.clock.now()
        for claim in request.claims:
            acquisition = world.acquisition(claim)
            if request.renews:
                if acquisition in client.withdrawn:
                    world.violated("S9-renew", f"{request} was sent after {claim.token} was withdrawn")
                elif acquisition in self._removing:
                    world.violated("S9-renew", f"{request} was sent after the removal of {claim.token}")
            if request.removes:
                self._removing.add(acquisition)
                self._says_rightly(request, claim, acquisition)
                for owner, hold, held in self._holds:
                    if owner is client and held == acquisition and hold.valid(now):
                        world.violated("S9-valid", f"{request} was sent while {claim.token} is valid")
                for owner, hold in self._invalid:
                    lost = owner is client and hold.claim is claim and not (hold.ended or hold.given_up)
                    if lost and now < hold.expires:
                        world.violated("S6-early", f"{request} gives the holder no time to learn of its loss")

    def _says_rightly(self, request: Request, claim: Claim, acquisition: int) -> None:
        """Only a claim that no caller got is removed as unused; if it was lost, it may end ungracefully."""
        hold = self._grants.get(acquisition)
        if acquisition in self._handed:
            right = request.how(claim.token) != "unused"
        else:
            right = request.how(claim.token) == "unused" or (
                hold is not None and bool(hold.lost_why) and request.how(claim.token) == "ungraceful"
            )
        if not right:
            got = "was" if acquisition in self._handed else "was not"
            self.world.violated("UNUSED", f"{request} was sent, and {claim.token} {got} handed to a caller")

    # -- seen in the store

    def _seen_row(self, name: str, token: str) -> _Seen | None:
        return self._seen[name].get(token)

    def look(self) -> None:
        """After a step: compare with what was seen before it."""
        for name in self.world.names:
            rows = self.world.store.rows(name)
            seen = {
                row.token: _Seen(row.state, row.fence, row.deadline, row.evicted, row.since, row.capacity)
                for row in rows
            }
            before = self._seen[name]
            if seen != before:
                self._compare(name, rows, before, seen)
                self._seen[name] = seen
            self._stand(name, rows)
            self._valid(name, seen)
        self._sticky()

    def _compare(
        self, name: str, rows: Sequence[StoredRow], before: dict[str, _Seen], seen: dict[str, _Seen]
    ) -> None:
        world, request = self.world, self.world.executing
        for token in before.keys() - seen.keys():
            self._removed(token, before[token], request)
        for place, row in enumerate(rows):
            was = before.get(row.token)
            if was is not None and row.fence > was.fence and was.deadline <= world.clock.now():
                # A replay of its create came in the step that removed it, lapsed: a new claim, at the tail.
                self._removed(row.token, was, request)
                was = None
            if was is None:
                self._appended(name, row, request)
            else:
                self._changed(row, was, request)
            if row.state == "HELD" and (was is None or was.state != "HELD"):
                self._entered(name, rows, place, request)
        fences = [row.fence for row in rows]
        if fences != sorted(set(fences)):
            world.violated("S4", f"{name}: the queue is not in the order of its fences: {fences}")
        held = sum(row.weight for row in rows if row.state == "HELD")
        if not rows or held <= rows[0].capacity:
            self._over.discard(name)
        elif name not in self._over:
            if world.operating == "resize":
                self._over.add(name)
            else:
                world.violated("S2", f"{name}: {held} of {rows[0].capacity} are HELD")

    def _appended(self, name: str, row: StoredRow, request: Request | None) -> None:
        world, token = self.world, row.token
        acquisition = world.speaks_for(request, token)
        self._row_of[token] = acquisition
        if row.fence <= self._top.get(name, 0):
            world.violated("S4", f"{name}: {token} got fence {row.fence} after {self._top[name]}")
        self._top[name] = max(self._top.get(name, 0), row.fence)
        if world.drains.marked:
            world.violated("S2-drain", f"{token} was appended in a drained namespace by {request}")
        if request is None or not request.creates:
            world.violated("S5", f"{token} was created by {request}")
        elif acquisition in self._gone and not world.is_waived(token):
            world.violated("S5", f"{token}, which was held and had gone, was created again by {request}")

    def _removed(self, token: str, was: _Seen, request: Request | None) -> None:
        world, now = self.world, self.world.clock.now()
        acquisition = self._row_of[token]
        if acquisition in self._was_hold:
            self._gone.add(acquisition)
        if was.deadline <= now or world.operating in ("evict now", LOST_DATA):
            return
        if was.state == "LINGERING":
            world.violated("LINGER", f"{token} was LINGERING until {was.deadline:.2f} and is gone")
        elif token in self._overtime:
            pass
        elif was.state == "HELD" and self._must_linger(token, was, request) > now:
            world.violated("LINGER", f"{token} had min_hold or lock_delay to run and is gone")
        if was.state == "HELD" and world.operating == TURNED_AWAY:
            world.violated("S2-drain", f"{token} was HELD and a drain turned it away")
        if world.operating or world.is_dead(token):
            return
        if request is None or world.speaks_for(request, token) != acquisition:
            world.violated("S7", f"{token} was removed by {request}, which does not speak for it")
        elif not request.removes and not (request.acquires and not request.claims[0].wait):
            world.violated("S1", f"{token} was removed by {request}")

    def _must_linger(self, token: str, was: _Seen, request: Request | None) -> float:
        terms = self.world.terms[token]
        how = "ungraceful" if request is None else request.how(token)
        if how == "unused":
            return 0.0
        until = was.since + terms.min_hold
        if how == "ungraceful" or was.evicted:
            until = max(until, self.world.clock.now() + terms.lock_delay)
        return min(until, was.deadline)

    def _ended(self, request: Request | None, token: str) -> End | None:
        """How a request ends this claim; None if it does not speak for the claim, or does not end it."""
        if request is None or self.world.speaks_for(request, token) != self._row_of[token]:
            return None
        return request.how(token)

    def _changed(self, row: StoredRow, was: _Seen, request: Request | None) -> None:
        world, now, token = self.world, self.world.clock.now(), row.token
        if row.fence != was.fence:
            world.violated("S4", f"{token}: its fence changed from {was.fence} to {row.fence}")
        if was.state == "LINGERING" and row.state != "LINGERING":
            world.violated("LINGER", f"{token} was LINGERING and is {row.state}")
        if row.state == "LINGERING" and was.state == "HELD" and self._ended(request, token) == "unused":
            world.violated("UNUSED", f"{token} was removed by {request}, and lingers")
        if was.state == "HELD" and row.state in ("WAITING", "OFFERED"):
            world.violated("S2", f"{token} was HELD and is {row.state}")
        if row.deadline < was.deadline and row.state == was.state == "HELD" and not row.evicted:
            world.violated("SHORTENED", f"{token}: {request} moved its deadline back to {row.deadline:.2f}")
        if row.deadline <= was.deadline:
            return
        # A resize may offer, and take the offer back, in one step.
        offered = was.state == "WAITING" and (row.state == "OFFERED" or bool(world.operating))
        if was.deadline <= now and world.store.stale:
            self._overtime.add(token)
        elif was.deadline <= now:
            world.violated("S5", f"{token} had lapsed at {was.deadline:.2f}, and {request} extended it")
        if not offered and world.speaks_for(request, token) != self._row_of[token]:
            world.violated("S7", f"{token} was extended by {request}, which does not speak for it")
        if request is not None and request.renews and not offered:
            unspoken = request.fences.get(token, 0) is None
            if unspoken and was.state in ("HELD", "OFFERED"):
                world.violated(
                    "S11-heartbeat", f"{token} is {was.state} and nobody read it, and {request} extended it"
                )

    def _entered(self, name: str, rows: Sequence[StoredRow], place: int, request: Request | None) -> None:
        """A claim became HELD."""
        world, row = self.world, rows[place]
        if world.drains.marked:
            world.violated("S2-drain", f"{row.token} was made HELD in a drained namespace by {request}")
        if request is None or not request.acquires:
            world.violated("S12-heartbeat", f"{row.token} was made HELD by {request}")
        if place >= prefix(rows):
            world.violated("S2", f"{name}: {row.token} was made HELD outside the prefix")
        if row.weight == row.capacity:
            if row.fence <= self._exclusive.get(name, 0):
                world.violated(
                    "S4", f"{name}: {row.token} granted with fence {row.fence} after a greater one"
                )
            self._exclusive[name] = row.fence

    def _stand(self, name: str, rows: Sequence[StoredRow]) -> None:
        """Nothing stands that its client does not stand behind, unless it is about to be removed."""
        now = self.world.clock.now()
        for row in rows:
            if row.state == "LINGERING" or row.deadline <= now:
                continue
            if not self.world.stood_behind(row.token) and not self.world.is_waived(row.token):
                self.world.violated(
                    "S12", f"{name}: {row.token} is {row.state}; its client gave it up and removes nothing"
                )

    def _valid(self, name: str, seen: dict[str, _Seen]) -> None:
        """valid() true means HELD, and not lapsed."""
        world, now, total, capacity = self.world, self.world.clock.now(), 0, 0
        for client, hold, acquisition in self._holds:
            token = hold.claim.token
            if hold.name != name or client.dead or world.is_waived(token) or not hold.valid(now):
                continue
            row = seen.get(token)
            if row is None or self._row_of[token] != acquisition:
                world.violated("S3", f"{token} is valid and not in the store")
            elif row.state != "HELD" or row.fence != hold.fence:
                world.violated(
                    "S3", f"{token} (fence {hold.fence}) is valid; the store has {row.state}, {row.fence}"
                )
            elif row.deadline <= now:
                world.violated("S3", f"{token} is valid until {hold.expires:.2f}; the store lets it lapse")
            else:
                total += hold.claim.terms.weight
                capacity = max(capacity, row.capacity)
        if total > capacity and name not in self._over:
            world.violated("S3-sum", f"{name}: leases of weight {total} are valid at once, of {capacity}")

    def _sticky(self) -> None:
        """Once false, never true again."""
        now = self.world.clock.now()
        for client, hold, _ in [each for each in self._holds if not each[1].valid(now)]:
            self._invalid.append((client, hold))
        self._holds = [each for each in self._holds if each[1].valid(now)]
        for _, hold in self._invalid:
            if hold.valid(now) and not hold.claim.terms.process_bound:
                self.world.violated("S6-sticky", f"{hold.claim.token} is valid again")
