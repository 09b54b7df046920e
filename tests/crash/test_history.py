"""Processes that hammer one lock: no overlap of certain holds, fences rise."""

from __future__ import annotations

from lockkit.store.queue import RW_CAPACITY
from lockkit.values.history import Period, falling, overlaps

ROUNDS, PROCESSES = 200, 4


HAMMER = f"""
import random
parts = list(dict.fromkeys((*shape.holders, shape.newcomer)))
history = []
for turn in range({ROUNDS}):
    part = parts[(turn + os.getpid()) % len(parts)]
    with part.lock(client, NAME, ttl=10).acquire(60) as lease:
        began = boottime()
        if turn % 4 == 0: time.sleep(0.001)
        lease.ensure_held()
        ended = boottime()
    history.append([began, ended, lease.fence, part.weight, part.capacity])
result = history
"""


def test_s2_s4_processes_that_hammer_one_lock_never_overlap_and_fences_rise(cast):
    actors = [cast.actor() for _ in range(PROCESSES)]
    for actor in actors:
        # All are there before the first begins: on a busy machine it might end before another starts.
        actor.run("client.driver()")
    for actor in actors:
        actor.start(HAMMER)
    holds = [
        Period(began, ended, fence, f"pid {actor.pid}", weight, capacity)
        for actor in actors
        for began, ended, fence, weight, capacity in actor.result(timeout=90)
    ]
    assert len(holds) == ROUNDS * PROCESSES
    assert overlaps(holds) == []
    assert falling(holds) == []
    assert len({hold.fence for hold in holds}) == len(holds)
    changes = sum(one.who != other.who for one, other in zip(sorted(holds), sorted(holds)[1:], strict=False))
    assert changes > len(holds) / 10, f"they hardly met ({changes} changes): that proves nothing"
    assert cast.rows() == []
    assert RW_CAPACITY > PROCESSES


VICTIM = """
history = []
while True:
    with shape.holders[0].lock(client, NAME, ttl=10).acquire(60) as lease:
        began = boottime()
        lease.ensure_held()
        ended = boottime()
    with open(log, "a") as file:
        file.write(f"{began!r} {ended!r} {lease.fence}\\n")
"""


def test_s2_s4_kill_9_in_the_middle_of_it_all_overlaps_nothing(cast, tmp_path):
    steady = [cast.actor() for _ in range(2)]
    logs = []
    for actor in steady:
        actor.start(HAMMER)
    for victim in range(6):
        actor = cast.actor()
        logs.append((tmp_path / f"victim-{victim}", actor.pid))
        actor.run(f"log = {str(logs[-1][0])!r}")
        actor.start(VICTIM)
        while not (logs[-1][0].exists() and "\n" in logs[-1][0].read_text()):
            assert actor.busy()
        actor.kill()
    holds = [
        Period(began, ended, fence, f"pid {actor.pid}", weight, capacity)
        for actor in steady
        for began, ended, fence, weight, capacity in actor.result(timeout=90)
    ]
    part = cast.shape.holders[0]
    for path, pid in logs:
        for line in path.read_text().splitlines():
            if len(values := line.split()) == 3:
                began, ended, fence = float(values[0]), float(values[1]), int(values[2])
                holds.append(Period(began, ended, fence, f"victim {pid}", part.weight, part.capacity))
    assert len(holds) >= 2 * ROUNDS + 6
    assert overlaps(holds) == []
    assert falling(holds) == []
    cast.actor().run("shape.newcomer.lock(client, NAME).acquire(5).release()")
    assert cast.rows() == []
