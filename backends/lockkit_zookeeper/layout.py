"""The paths of nodes, their names, and the queue that a listing shows.

A claim's node is named with the token, weight and capacity that the claim was made with; the server appends a
number. So a listing alone is enough for the queue rule. A resize adds a marker, a node with a number of the
same sequence: claims with smaller numbers have the marker's capacity from then on, others their own.

A zero before the weight marks a **try**, a claim that does not wait: its node is deleted at once if it does
not fit. The queue rule treats it like any claim, and a reader that knows no tries reads the same number.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from operator import attrgetter
from typing import Literal, NamedTuple

from lockkit.errors import IncompatibleLayout
from lockkit.store.queue import in_the_way, prefix
from lockkit.store.spi import Refused
from lockkit.values.names import claim_id, encode

__all__ = ["Paths", "Place", "Queue", "client_of", "read_queue"]

_NODE = re.compile(
    r"([0-9a-f]{32})-([0-9]+)-([0-9]+)-(-[0-9]{9,}|[0-9]{10,})|"
    r"resize-([0-9]+)-(-?[0-9]+|all)-(-[0-9]{9,}|[0-9]{10,})"
)
_WRAP = 1 << 31
_ALL = float("inf")
_BY_NUMBER = attrgetter("number")


class Paths:
    """The paths of a namespace: queues below ``q``, notes below ``c``, records below ``r``, a drain's mark.

    Attributes:
        everywhere: The parent of all namespaces.
        mark: The node that marks this namespace as drained.
    """

    def __init__(self, chroot: str, namespace: str) -> None:
        self.everywhere = f"{chroot}/lockkit"
        self.root = f"{self.everywhere}/{namespace}"
        self.queues = f"{self.root}/q"
        self.clients = f"{self.root}/c"
        self.records = f"{self.root}/r"
        self.namespace = namespace
        self.mark = self.mark_of(namespace)

    def mark_of(self, namespace: str) -> str:
        """The node that marks a namespace as drained."""
        return f"{self.everywhere}/{namespace}/drain"

    def queue(self, name: str) -> str:
        """The parent of a name's claims."""
        return f"{self.queues}/{encode(name)}"

    def notes(self, client: str) -> str:
        """The parent of the notes to a session; see :func:`client_of`."""
        return f"{self.clients}/{client}"

    def record(self, name: str) -> str:
        """The node of a name's record."""
        return f"{self.records}/{encode(name)}"


def client_of(session: int) -> str:
    """The name of a session in paths."""
    return f"{session % (1 << 64):016x}"


class Place(NamedTuple):
    """One claim of a listing.

    Attributes:
        node: The last part of its node's path.
        number: The number that the server gave it.
        capacity: The capacity in force for it.
        may_hold: True if it may hold beyond the prefix, because it fitted when a resize shrank the lock.
        tries: True for a try: it holds, or is about to go.
    """

    node: str
    token: str
    weight: int
    capacity: int
    number: int
    may_hold: bool = False
    tries: bool = False


class Queue:
    """The claims of one name in order, as one listing showed them.

    Attributes:
        markers: Nodes of resizes that apply to some claim.
        spent: Nodes of resizes that apply to no claim any more.
        fits: How many claims, from the front, fit: they hold, or may be granted.
    """

    __slots__ = ("claims", "fits", "markers", "spent")

    def __init__(self, claims: Sequence[Place], markers: Sequence[str], spent: Sequence[str]) -> None:
        self.claims = claims
        self.markers = markers
        self.spent = spent
        self.fits = prefix(claims)

    @property
    def grants(self) -> int:
        """How many claims, from the front, may be granted now: none while one beyond the prefix may hold."""
        if self.markers and any(claim.may_hold for claim in self.claims[self.fits :]):
            return 0
        return self.fits

    def place(self, token: str) -> int | None:
        """The place of a token; None if it has no claim here."""
        for at, claim in enumerate(self.claims):
            if claim.token == token:
                return at
        return None

    def called(self, claim: str) -> Place | None:
        """The claim with this claim id."""
        return next((each for each in self.claims if claim_id(each.token) == claim), None)

    def blockers(self, place: int) -> list[str]:
        """Nodes to watch: while all of them exist, the claim at ``place`` cannot hold."""
        found, _ = in_the_way(self.claims, [claim.may_hold for claim in self.claims], place)
        return [self.claims[at].node for at in found]

    def without(self, token: str) -> Queue:
        """The same queue without one claim."""
        rest = [claim for claim in self.claims if claim.token != token]
        return Queue(rest, self.markers if rest else (), self.spent)

    def vacancy(
        self, weight: int, capacity: int, stay: Container[str] = ()
    ) -> Literal["now", "perhaps", "none"]:
        """Whether a claim that comes now would fit; ``perhaps`` if only without tries that may soon go.

        Args:
            weight: The weight of the claim.
            capacity: The capacity that the claim is made with.
            stay: Tokens of the tries that hold.
        """
        if self._admits(self.claims, weight, capacity):
            return "now"
        lasting = [claim for claim in self.claims if not claim.tries or claim.token in stay]
        if len(lasting) < len(self.claims) and self._admits(lasting, weight, capacity):
            return "perhaps"
        return "none"

    def _admits(self, claims: Sequence[Place], weight: int, capacity: int) -> bool:
        behind = claims[-1].number + 1 if claims else 0
        mine = Place("", "", weight, capacity, behind)
        return Queue([*claims, mine], self.markers, ()).grants > len(claims)

    def last_to_hold(self, place: int) -> bool:
        """True if the claim at ``place`` does not fit, but may hold, as the last one in the queue."""
        may_hold = [claim.may_hold for claim in self.claims[max(place, self.fits) :]]
        return place >= self.fits and may_hold[0] and not any(may_hold[1:])

    def surely_waits(self, place: int) -> bool:
        """True if the claim at ``place`` cannot hold."""
        return place >= self.fits and not self.claims[place].may_hold


def read_queue(nodes: Iterable[str], name: str) -> Queue:
    """Read a listing.

    Raises:
        Refused: With IncompatibleLayout, for a node that this code does not know.
    """
    claims: list[Place] = []
    resizes: list[_Resize] = []
    for node in nodes:
        match = _NODE.fullmatch(node)
        if match is None:
            raise Refused(
                IncompatibleLayout(
                    f"the queue of {name!r} has a node that this lockkit does not know: {node[:6]}...",
                    hint="upgrade lockkit here, or remove what is not lockkit's; see: lockkit docs layout",
                ),
                retry=False,
            )
        token, weight, capacity, number, resized, upto, marker = match.groups()
        if token is None:
            last = _ALL if upto == "all" else int(upto)
            resizes.append(_Resize(int(marker), int(resized), last, node))
        else:
            tries = weight[0] == "0"
            claims.append(Place(node, token, int(weight), int(capacity), int(number), tries=tries))
    if len(claims) > 1:
        claims.sort(key=_BY_NUMBER)
        if claims[-1].number - claims[0].number > _WRAP:  # the counter has overflowed, after 2**31 nodes
            claims.sort(key=lambda claim: claim.number % (2 * _WRAP))
    if not resizes:
        return Queue(claims, (), ())
    return _resized(claims, sorted(resizes))


class _Resize(NamedTuple):
    """The marker of a resize. Claims with numbers up to ``upto`` may hold although they no longer fit."""

    number: int
    capacity: int
    upto: float
    node: str


def _resized(claims: list[Place], resizes: Sequence[_Resize]) -> Queue:
    """Apply to each claim the markers behind it: the capacity of the last one."""
    first = claims[0].number if claims else _ALL
    live = [each for each in resizes if each.number > first]
    for at, claim in enumerate(claims):
        behind = [each for each in live if each.number > claim.number]
        if behind:
            held = any(claim.number <= each.upto for each in behind)
            claims[at] = claim._replace(capacity=behind[-1].capacity, may_hold=held)
    spent = [each.node for each in resizes if each.number < first]
    return Queue(claims, [each.node for each in live], spent)
