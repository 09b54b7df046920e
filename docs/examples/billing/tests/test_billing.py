import billing
import pytest

import lockkit


def test_an_invoice_is_billed(lockkit_client):
    assert billing.bill(lockkit_client, 7).startswith("billed 7")


def test_an_invoice_that_somebody_else_bills_is_refused(lockkit_client):
    elsewhere = lockkit_client.hold_elsewhere("invoice:7")

    with pytest.raises(lockkit.AcquireTimeout):
        billing.bill(lockkit_client, 7)
    elsewhere.release()
    assert billing.bill(lockkit_client, 7)


def test_a_lost_lock_ends_the_work(lockkit_client):
    def write(row, lease):
        if row == 2:
            lease.simulate_loss()

    assert billing.nightly(lockkit_client, [1, 2, 3], write) == 2


def test_a_run_of_more_than_an_hour_is_ended(lockkit_client):
    def write(row, lease):
        lockkit_client.clock.advance(20 * 60)

    assert billing.nightly(lockkit_client, range(10), write) == 3
