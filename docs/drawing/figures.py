"""The figures of the documentation."""

from __future__ import annotations

from drawing.svg import Picture

__all__ = ["FIGURES", "fence", "queue", "stores", "stuck"]


def queue() -> Picture:
    """The queue with a capacity: four queues, and where the capacity ends in each of them."""
    picture = Picture(
        760,
        452,
        "A queue with a capacity",
        "Four queues. The claims of each stand in the order of their arrival, as wide as their weight. "
        "Claims that fit into the capacity hold the lock; the first that does not fit waits, and so do all "
        "behind it. A lock has capacity 1, so the first of three claims holds. A semaphore of 4 with claims "
        "of weight 1, 2, 2 and 1: the first two hold, the third does not fit, and the fourth waits behind "
        "it. When the first has left, the next two fill the capacity. In a reader/writer lock two readers "
        "hold, a writer needs all of the capacity and waits, and a reader behind it waits for the writer.",
    )
    picture.text(
        24, 36, "Claims stand in the order of their arrival. Those that fit into the capacity hold the lock."
    )
    picture.text(24, 57, "The first that does not fit waits, and all behind it wait too.")
    rows = [
        ("a lock", "capacity 1", 1, [("ann", 1), ("bob", 1), ("cat", 1)]),
        ("a semaphore", "capacity 4", 4, [("ann", 1), ("bob", 2), ("cat", 2), ("dan", 1)]),
        ("the same semaphore", "once ann has left", 4, [("bob", 2), ("cat", 2), ("dan", 1)]),
        ("a reader/writer lock", "a writer takes all of it", 3.5, _READERS),
    ]
    for at, (name, note, capacity, claims) in enumerate(rows):
        picture.text(24, 108 + at * 84, name, bold=True)
        picture.text(24, 128 + at * 84, note, kind="soft", size=13)
        _claims(picture, 84 + at * 84, capacity, claims)
    picture.box(_LEFT, 418, 18, 14, "holds")
    picture.text(_LEFT + 26, 430, "holds", size=13)
    picture.box(_LEFT + 90, 418, 18, 14, "waits")
    picture.text(_LEFT + 116, 430, "waits", size=13)
    picture.line([(_LEFT + 188, 414), (_LEFT + 188, 436)], "bad", dashed=True)
    picture.text(_LEFT + 198, 430, "where the capacity ends", size=13)
    return picture


_LEFT, _UNIT = 240, 72
_READERS = [("reader", 1), ("reader", 1), ("writer", 3.5), ("reader", 1)]


def _claims(picture: Picture, top: int, capacity: float, claims: list[tuple[str, float]]) -> None:
    """One queue. A claim through which the capacity ends has its text before that point."""
    used, fits = 0.0, True
    for who, weight in claims:
        fits = fits and used + weight <= capacity
        x, width = _LEFT + used * _UNIT + 2, weight * _UNIT - 4
        picture.box(x, top, width, 54, "holds" if fits else "waits")
        free = capacity - used
        middle = x + (min(weight, free) * _UNIT - 4) / 2 if free > 0 else x + width / 2
        picture.text(middle, top + 24, who, size=13, anchor="middle", bold=True)
        picture.text(
            middle, top + 42, f"weight {weight if weight in (1, 2) else 'all'}", size=12, anchor="middle"
        )
        used += weight
    end = _LEFT + capacity * _UNIT
    picture.line([(end, top - 8), (end, top + 62)], "bad", dashed=True)


def fence() -> Picture:
    """A holder that is paused for longer than its ttl, and the fence that stops its late write."""
    picture = Picture(
        760,
        436,
        "A pause, and the fence that stops a stale write",
        "A timeline. ann holds the lock with fence 33, writes to a database, and is then paused. No renewal "
        "arrives, so her ttl ends, and the lock goes to bob with fence 34. bob writes; the database has now "
        "seen fence 34. ann continues, does not know how long the pause was, and writes with fence 33: the "
        "database refuses, because it has seen a higher fence. ann's lease.valid() is false.",
    )
    over = 400
    for name, top in {"ann": 24, "database": 140, "bob": 256, "the lock": 340}.items():
        picture.text(24, top + 28, name, bold=True)
    picture.box(114, 24, 142, 46, "holds", ["works"])
    picture.box(260, 24, 266, 46, "warns", ["paused: no code runs"])
    picture.box(530, 24, 206, 46, "bad", ["continues", "lease.valid() is False"], size=13)
    picture.box(114, 140, 322, 46, "free", ["highest fence seen: 33"])
    picture.box(440, 140, 296, 46, "free", ["highest fence seen: 34"])
    picture.box(160, 256, over - 162, 46, "waits", ["waits"])
    picture.box(over + 2, 256, 334, 46, "holds", ["works"])
    picture.box(114, 340, over - 116, 46, "holds", ["held by ann, fence 33"])
    picture.box(over + 2, 340, 334, 46, "holds", ["held by bob, fence 34"])
    for x, (start, end), kind, words in (
        (150, (70, 140), "holds", "writes, fence 33: accepted"),
        (440, (256, 186), "holds", "writes, fence 34: accepted"),
        (554, (70, 140), "bad", "writes, fence 33: refused"),
    ):
        picture.arrow([(x, start), (x, end)], kind)
        picture.text(x + 10, (start + end) / 2 + 5, words, kind=f"{kind}-ink", size=13)
    picture.line([(over, 246), (over, 398)], dashed=True)
    picture.text(over, 416, "ann has sent no renewal for a whole ttl", kind="soft", size=13, anchor="middle")
    return picture


def stores() -> Picture:
    """The store for each need: questions from the top, answers on the right."""
    picture = Picture(
        760,
        530,
        "Which store for whom",
        "Questions, one below the other, and a store as the answer to each. Only threads of one process, or "
        "a test: memory. Only programs on one host: SQLite, which is the default and needs no server; in a "
        "folder of your own for your own programs, in a shared folder for all users of the host. A fleet of "
        "hosts, and a lock that is lost in a failover is bearable because the resource checks fences: Redis "
        "or Valkey. No failover may lose a lock: etcd, with a ttl from 2 seconds, or ZooKeeper, with a ttl "
        "of 16 to 40 seconds, whichever you already run.",
    )
    answers = [
        (["Only threads of one process,", "or a test?"], ["memory", "memory:", "gone with the process"]),
        (
            ["Only your own programs,", "on one host?"],
            ["SQLite, the default", "sqlite:", "no server; a death frees its lock at once"],
        ),
        (
            ["All users of one host?"],
            [
                "SQLite in a shared folder",
                "sqlite:/var/lib/lockkit/host.db",
                "the group of the folder decides who takes part",
            ],
        ),
        (
            ["Several hosts, and two holders for a", "moment after a failover are bearable?"],
            ["Redis or Valkey", "redis://host", "fast; let the resource check fences"],
        ),
        (["Several hosts, and no failover", "may lose a lock?"], ["etcd", "etcd://a,b,c", "ttl from 2 s"]),
    ]
    for at, (question, answer) in enumerate(answers):
        top = 28 + at * 96
        last = at == len(answers) - 1
        picture.box(24, top, 300, 72, "free", size=14)
        first = top + 41 - 10 * (len(question) - 1)
        for row, words in enumerate(question):
            picture.text(174, first + 20 * row, words, anchor="middle")
        picture.arrow([(324, top + 36), (392, top + 36)])
        picture.text(358, top + 28, "yes", kind="soft", size=13, anchor="middle")
        if not last:
            picture.arrow([(174, top + 72), (174, top + 96)])
            picture.text(184, top + 89, "no", kind="soft", size=13)
        picture.box(392, top, 172 if last else 344, 72, "holds", answer, mono=[1])
    picture.box(572, top, 164, 72, "holds", ["ZooKeeper", "zookeeper://a,b,c", "ttl 16 to 40 s"], mono=[1])
    picture.text(564, top + 94, "whichever of the two you already run", kind="soft", size=13, anchor="middle")
    return picture


def stuck() -> Picture:
    """The tree for three in the morning: from what `explain` says to what to do."""
    picture = Picture(
        760,
        772,
        "A lock does not come free",
        "A tree that begins with lockkit explain backup. If explain says free: look at the waiting process, "
        "its store and its namespace. If the holder is alive and was renewed a moment ago: ask its owner, "
        "then end its process with kill. If the holder is stopped: let it go on with kill -CONT, or end it. "
        "If the holder is dead or the renewal is overdue: the hold lapses by itself at the time that "
        "explain says, so wait. If the lockkit run that took it is gone: end what it left behind, as "
        "explain prints. If it is unknown whether the holder is alive: ask again on the host that explain "
        "names. If the lock was taken by lockkit acquire: ask its owner, then use the lockkit release that "
        "explain prints. If the hold is LINGERING: it has ended, so wait. If nothing of that helps: lockkit "
        "evict with the claim that explain names.",
    )
    picture.box(24, 24, 320, 56, "waits", ["Who has it?", "lockkit explain backup"], mono=[1])
    picture.text(404, 46, "explain says one of these", kind="soft", size=13)
    picture.text(404, 66, "and names the host, the process and the claim", kind="soft", size=13)
    said = [
        (["free"], ["Check the store of the waiter", "lockkit config show"]),
        (
            ["its holder is alive", "renewed a moment ago"],
            ["Ask its owner. Then end the process", "kill PID"],
        ),
        (
            ["its holder is stopped", "it neither works nor renews"],
            ["Let it go on, or end it", "kill -CONT PID"],
        ),
        (
            ["its holder is dead", "or the renewal is overdue"],
            ["It lapses by itself, at the time shown", "lockkit wait backup"],
        ),
        (
            ["its lockkit run is gone", "what it started keeps the lock"],
            ["End what it left behind", "with the kill that explain prints"],
        ),
        (
            ["whether it is alive is unknown", "on another host, or in a container"],
            ["Ask again on the host that is named", "lockkit explain backup"],
        ),
        (
            ["taken by lockkit acquire", "no process is attached to it"],
            ["A script will release it: ask its owner", "or use the release that explain prints"],
        ),
        (["LINGERING", "it has ended, and blocks for a while"], ["Wait", "lockkit wait backup"]),
    ]
    above = 80
    for at, (words, then) in enumerate(said):
        top = 100 + at * 72
        picture.box(60, top, 284, 58, "free", words)
        picture.box(
            404, top, 332, 58, "holds", then, mono=[1] if then[1].startswith(("lockkit ", "kill ")) else []
        )
        picture.line([(42, above), (42, top + 29)])
        picture.arrow([(42, top + 29), (60, top + 29)])
        picture.arrow([(344, top + 29), (404, top + 29)])
        above = top + 29
    evict = 'lockkit evict backup --claim CLAIM --reason "hung since midnight"'
    picture.box(60, 690, 676, 58, "warns", ["Nothing of that helps?", evict], mono=[1])
    return picture


FIGURES = {"queue": queue, "fence": fence, "stores": stores, "stuck-lock": stuck}
