"""S1 and S7: who may end or extend a claim, and that nobody else can, not even by mistake."""

from __future__ import annotations

import copy
import pickle

from lockkit.errors import CapabilityError, ConfigError, LeaseLost
from lockkit.store.spi import ABSENT, Claim
from lockkit.testing.shapes import MUTEX, SEMAPHORE
from lockkit.testing.stage import Stage, scenario

__all__ = ["stale_release"]


@scenario("S7-stale-release")
def stale_release(stage: Stage) -> None:
    """A handle whose claim is long gone releases nothing, although the same client holds the lock again."""
    client = stage.client()
    lock = stage.holder(client)
    first = stage.take(lock)
    stale = client.adopt(copy.copy(first).handle())
    assert first.release().outcome == "RELEASED"
    again = stage.take(lock)
    before = stage.stored()
    assert first.release().outcome == "RELEASED", "a second release reports what the first did"
    assert stale.release().outcome == "LOST"
    assert stage.unchanged(before), "S7: the later acquisition was touched"
    assert again.valid()
    again.confirm()
    assert again.release().outcome == "RELEASED"
    assert client.stats()["ownership_violations"] == 1


@scenario("S7-pickled-copy")
def pickled_copy(stage: Stage) -> None:
    """A pickled handle is never valid, ends exactly its own claim, and after that no claim."""
    leases = stage.fill()
    other = stage.client()
    travelled = other.adopt(pickle.loads(pickle.dumps(leases[0])))  # noqa: S301
    assert not travelled.valid()
    assert travelled.held()
    rest = [lease.claim_id for lease in leases[1:]]
    assert travelled.release().outcome == "RELEASED"
    assert stage.held() == rest
    successor = stage.take(stage.holder(other))
    assert travelled.release().outcome == "LOST"
    assert leases[0].release().outcome == "LOST"
    assert stage.held() == [*rest, successor.claim_id]
    successor.release()
    for lease in leases[1:]:
        lease.release()


@scenario("S7-copy-extends", (MUTEX, SEMAPHORE))
def copy_extends(stage: Stage) -> None:
    """A copy only lengthens its own claim, is no more valid for it, and extends no claim that is gone."""
    ttl = stage.harness.ttl
    lease = stage.take(stage.holder(stage.client(), ttl=ttl, auto_renew=False))
    client = stage.client()
    travelled = client.adopt(lease.handle())
    before = stage.stored()
    if client.capabilities.fixed_ttl:
        assert isinstance(stage.work(lambda: travelled.extend(2 * ttl)).error(), CapabilityError)
        assert stage.unchanged(before)
        return
    assert isinstance(stage.work(lambda: travelled.extend(ttl / 2)).error(), ConfigError)
    assert stage.unchanged(before), "no call shortens a held claim"
    travelled.extend(3 * ttl)
    assert not travelled.valid()
    (claim,) = client.inspect(stage.name).holders
    assert (claim.claim_id, claim.fence, claim.ttl) == (lease.claim_id, lease.fence, 3 * ttl)
    assert claim.deadline is not None
    assert before[0].deadline is not None
    assert claim.deadline > before[0].deadline
    lease.confirm()
    assert client.inspect(stage.name).holders[0].ttl == 3 * ttl, "a renewal of its lease shortens nothing"
    assert lease.release().outcome == "RELEASED"
    again = stage.take(stage.holder(client))
    before = stage.stored()
    assert isinstance(stage.work(lambda: travelled.extend(4 * ttl)).error(), LeaseLost)
    assert stage.unchanged(before), "S7: the later acquisition was touched"
    again.release()


@scenario("S1-wrong-token")
def wrong_token(stage: Stage) -> None:
    """Release, abandon, emergency release, renew and extend with another token do nothing to the holders."""
    leases = stage.fill()
    backend = stage.backend()
    before = stage.stored()
    terms = stage.shape.holders[0].terms(stage.name, stage.client().owner, ttl=stage.harness.ttl)
    stranger = Claim("0" * 32, terms)
    fence = leases[0].fence
    assert backend.release(stranger, 2.0) == ABSENT
    assert backend.abandon(stranger, 2.0) == ABSENT
    assert backend.emergency_release(stranger, 2.0) == ABSENT
    assert backend.renew([(stranger, fence)], 2.0)[0].state == "LOST"
    assert backend.extend(stranger, fence, stage.harness.ttl * 2, 2.0).state == "LOST"
    assert stage.unchanged(before)
    for lease in leases:
        lease.confirm()
        lease.release()


@scenario("S1-wrong-fence")
def wrong_fence(stage: Stage) -> None:
    """A renewal or an extension with another fence is answered LOST and changes nothing."""
    client = stage.client()
    lease = stage.take(stage.holder(client))
    backend = stage.backend()
    terms = stage.shape.holders[0].terms(stage.name, client.owner, ttl=stage.harness.ttl)
    claim = Claim(lease.token, terms)
    before = stage.stored()
    for fence in (lease.fence - 1, lease.fence + 1):
        assert backend.renew([(claim, fence)], 2.0)[0].state == "LOST"
        assert backend.extend(claim, fence, stage.harness.ttl * 2, 2.0).state == "LOST"
    assert stage.unchanged(before)
    assert backend.renew([(claim, lease.fence)], 2.0)[0].state == "HELD"
    lease.release()
