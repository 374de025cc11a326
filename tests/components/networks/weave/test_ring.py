"""The ring's promises, on random histories with messages that are late, lost and repeated."""

import random
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from kubewire.components.networks.weave import space
from kubewire.components.networks.weave.allocator import Allocator, Denied, Setup
from kubewire.components.networks.weave.ring import Entry, Ring, RingConflict
from kubewire.components.networks.weave.space import Range

UNIVERSE = IPv4Network("10.32.0.0/26")
WHOLE = space.range_of(UNIVERSE)


def nothing(_):
    return False


def everything(_):
    return True


class Mesh:
    """Allocators and what is under way between them. cut: pairs that hear nothing of each other."""

    def __init__(self, count, seed=0, universe=UNIVERSE, quorum=None):
        self.chance = random.Random(seed)
        self.universe = universe
        self.cut = set()
        self.gone = set()
        self.waiting = []
        self.peers = {}
        for number in range(count):
            self.add(f"peer-{number}", quorum or count // 2 + 1)

    def add(self, name, quorum):
        def is_known(other):
            return other not in self.gone and frozenset((name, other)) not in self.cut

        setup = Setup(name, self.chance.getrandbits(32), name, self.universe, quorum, is_known, self.chance)
        self.peers[name] = Allocator(setup)

    def collect(self):
        for name, peer in self.peers.items():
            for message in peer.sent():
                for to in [message.to] if message.to else [other for other in self.peers if other != name]:
                    if not self.gone & {name, to} and frozenset((name, to)) not in self.cut:
                        self.waiting.append((name, to, message.body))

    def deliver(self, loss=0.0, repeat=0.0):
        """Everything, in any order, until nothing is under way."""
        self.collect()
        while self.waiting:
            sender, to, body = self.waiting.pop(self.chance.randrange(len(self.waiting)))
            if self.chance.random() < loss or frozenset((sender, to)) in self.cut or self.gone & {sender, to}:
                continue
            if self.chance.random() < repeat:
                self.waiting.append((sender, to, body))
            self.peers[to].receive(sender, body)
            self.collect()

    def allocate(self, name, container):
        """The address, after as many rounds as it takes; None when nobody has one."""
        for _ in range(4):
            if (found := self.peers[name].allocate(container, self.universe)) is not None:
                return found
            self.deliver()
            self.peers[name].tick()
            self.deliver()
        return None

    def partition(self, side):
        self.cut = {frozenset((one, other)) for one in side for other in self.peers if other not in side}

    def check(self):
        """Nobody has an address of another, and what a peer gives out is its own."""
        taken: dict[Any, Any] = {}
        for name, peer in self.peers.items():
            if name in self.gone:
                continue
            for container, addresses in peer.owned.items():
                for address in addresses:
                    assert address not in taken, f"{IPv4Address(address)}: {taken[address]} and {name}/{container}"
                    taken[address] = f"{name}/{container}"
                    assert peer.ring.owner(address) == name

    def check_owners(self):
        """No address has two owners, each looking at its own ring only."""
        for address in range(*WHOLE):
            owners = [name for name, peer in self.peers.items() if peer.ring.owner(address) == name]
            assert len(owners) <= 1, (IPv4Address(address), owners)


@pytest.mark.parametrize("seed", range(40))
def test_no_address_is_given_twice_whatever_is_lost_late_or_repeated(seed):
    mesh = Mesh(4, seed)
    chance = random.Random(seed + 1000)
    containers = []
    for step in range(150):
        name = chance.choice(sorted(mesh.peers))
        what = chance.random()
        if what < 0.5:
            container = f"c{step}"
            if mesh.peers[name].allocate(container, UNIVERSE) is not None:
                containers.append((name, container))
        elif what < 0.65 and containers:
            owner, container = containers.pop(chance.randrange(len(containers)))
            mesh.peers[owner].release(container)
        elif what < 0.75:
            side = chance.sample(sorted(mesh.peers), 2)
            mesh.partition(side if chance.random() < 0.5 else [])
        elif what < 0.85:
            mesh.peers[name].tick()
        mesh.deliver(loss=0.2, repeat=0.2)
        mesh.check()
        mesh.check_owners()
    mesh.partition([])
    for peer in mesh.peers.values():
        peer.tick()
        peer.broadcast()
    mesh.deliver()
    rings = [peer.ring.entries for peer in mesh.peers.values()]
    assert all(ring == rings[0] for ring in rings), "all have the same ring in the end"


def test_who_has_none_left_is_given_half_of_the_largest_gap_of_another():
    mesh = Mesh(2)
    addresses = [mesh.allocate("peer-0", f"c{number}") for number in range(62)]
    assert len(set(addresses)) == 62
    assert mesh.peers["peer-1"].active() == 0
    assert mesh.allocate("peer-0", "one more") is None
    assert mesh.allocate("peer-1", "here neither") is None
    mesh.peers["peer-0"].release("c7")
    assert mesh.allocate("peer-1", "here neither") == addresses[7]
    mesh.check()


def test_a_minority_cannot_begin_a_ring():
    mesh = Mesh(5)
    mesh.partition(["peer-0", "peer-1"])
    assert mesh.allocate("peer-0", "a") is None
    assert mesh.allocate("peer-2", "b") is not None
    assert mesh.peers["peer-0"].ring.is_empty
    mesh.partition([])
    assert mesh.allocate("peer-0", "a") is not None, "and joins the majority's when it hears of it"
    mesh.check()


def test_two_minorities_wait_for_each_other():
    mesh = Mesh(4)
    mesh.partition(["peer-0", "peer-1"])
    assert mesh.allocate("peer-0", "a") is None
    assert mesh.allocate("peer-2", "b") is None
    mesh.partition([])
    assert mesh.allocate("peer-0", "a") is not None
    assert mesh.allocate("peer-2", "b") is not None


def test_with_a_ring_both_sides_of_a_partition_go_on_from_their_own():
    mesh = Mesh(4, quorum=4)
    mesh.allocate("peer-0", "first")
    mesh.partition(["peer-0", "peer-1"])
    one = {mesh.allocate("peer-0", f"a{number}") for number in range(10)}
    other = {mesh.allocate("peer-2", f"b{number}") for number in range(10)}
    assert None not in one | other and not one & other
    assert mesh.peers["peer-0"].ring.entries != mesh.peers["peer-2"].ring.entries
    mesh.partition([])
    for peer in mesh.peers.values():
        peer.broadcast()
    mesh.deliver()
    assert mesh.peers["peer-0"].ring.entries == mesh.peers["peer-2"].ring.entries
    mesh.check()


def test_an_observer_waits_for_a_ring_and_never_votes():
    mesh = Mesh(2, quorum=2)
    mesh.add("watcher", 0)
    mesh.gone = {"peer-1"}
    assert mesh.allocate("watcher", "a") is None
    mesh.gone = set()
    assert mesh.allocate("watcher", "a") is not None
    assert set(mesh.peers["watcher"].ring.seeds) == {"peer-0", "peer-1"}


def test_rmpeer_brings_what_the_dead_had_and_its_old_data_is_refused_afterwards():
    mesh = Mesh(3, quorum=3)
    mesh.allocate("peer-0", "a")
    mesh.allocate("peer-2", "lost")
    lost = mesh.peers["peer-2"].ring.owned_by("peer-2")
    mesh.gone = {"peer-2"}
    assert mesh.peers["peer-0"].takeover("peer-2") == sum(part.size for part in lost)
    mesh.deliver()
    assert mesh.peers["peer-1"].ring.peers() == {"peer-0", "peer-1"}
    assert mesh.peers["peer-0"].takeover("peer-0") == 0
    with pytest.raises(RingConflict, match="Received update for IP range I own"):
        mesh.peers["peer-2"].receive("peer-0", mesh.peers["peer-0"].encode())


def test_reset_leaves_everything_to_another():
    mesh = Mesh(2)
    mesh.allocate("peer-0", "a")
    mesh.peers["peer-0"].shutdown()
    mesh.deliver()
    assert mesh.peers["peer-1"].own_ranges() == [WHOLE]


def test_what_was_saved_is_taken_up_again_and_only_by_the_same_peer_and_range():
    mesh = Mesh(2)
    address = mesh.allocate("peer-0", "a")
    saved = mesh.peers["peer-0"].saved()
    setup = mesh.peers["peer-0"].setup
    again = Allocator(setup)
    assert again.restore(saved)
    assert again.allocate("a", UNIVERSE) == address
    assert again.allocate("b", UNIVERSE) != address
    assert not Allocator(mesh.peers["peer-1"].setup).restore(saved)
    other = Setup("peer-0", 1, "", IPv4Network("10.40.0.0/16"), 1)
    assert not Allocator(other).restore(saved)
    assert not Allocator(setup).restore({"ring": 5})


def test_claims():
    mesh = Mesh(2)
    mine = mesh.allocate("peer-0", "a")
    peer = mesh.peers["peer-0"]
    assert peer.claim("a", mine)
    with pytest.raises(Denied, match="is already owned by a"):
        peer.claim("b", mine)
    theirs = mesh.allocate("peer-1", "z")
    assert not peer.claim("b", theirs)
    mesh.deliver()
    with pytest.raises(Denied, match=r"is owned by other peer peer-1\(peer-1\)"):
        peer.claim("b", theirs)
    free = theirs + 1
    assert not peer.claim("b", free)
    mesh.deliver()
    assert peer.claim("b", free)
    assert peer.claim("c", int(IPv4Address("192.0.2.1"))), "outside of the range everybody knows better"
    mesh.peers["peer-1"].release("z")
    mesh.check_owners()


@pytest.mark.parametrize(
    ("ring", "text"),
    [
        ({"range": list(WHOLE), "seeds": [], "entries": [[WHOLE.start + 1, "x", 0, 1]]}, "out of range"),
        ({"range": list(WHOLE), "seeds": [], "entries": [[WHOLE.start, "x", 0, 99]]}, "too much free space"),
        ({"range": list(WHOLE), "seeds": [], "entries": [[WHOLE.start, "x", 0, 1]] * 2}, "appears twice"),
        ({"range": [0, 4], "seeds": [], "entries": []}, "Incompatible IP allocation ranges"),
        ({"entries": 5}, "not a ring"),
    ],
)
def test_what_is_no_ring_is_refused_and_changes_nothing(ring, text):
    mine = Ring(WHOLE, "me", [Entry(WHOLE.start, "me", 3, 64)])
    with pytest.raises(RingConflict, match=text):
        mine.merge(Ring.decode(ring, "me"), nothing)
    assert mine.entries == [Entry(WHOLE.start, "me", 3, 64)]


def test_rings_of_different_seeds_never_meet():
    one, other = Ring(WHOLE, "a"), Ring(WHOLE, "b")
    one.claim(["a"])
    other.claim(["b"])
    with pytest.raises(RingConflict, match="IP allocation was seeded by different peers"):
        one.merge(other, nothing)


def test_a_part_of_ours_that_others_cut_is_theirs_only_when_nobody_lives_there():
    cut = Ring(WHOLE, "b", [Entry(WHOLE.start, "a", 3), Entry(WHOLE.start + 32, "b", 0)])
    mine = Ring(WHOLE, "a", [Entry(WHOLE.start, "a", 2, 64)])
    with pytest.raises(RingConflict, match=r"says it owns the IP range from 10\.32\.0\.32"):
        mine.merge(cut, everything)
    assert mine.merge(cut, nothing)
    assert mine.owned_by("a") == [Range(WHOLE.start, WHOLE.start + 32)]


def test_the_first_ring_is_halved_until_each_has_a_part():
    ring = Ring(WHOLE, "a")
    ring.claim(["a", "b", "c"])
    assert [part.size for _, part in ring.parts()] == [32, 16, 16]


@pytest.mark.parametrize(
    ("used", "expected"),
    [([], 33), ([32, 33], 34), ([33], 34), ([40], 33), (list(range(30, 48)), None)],
    ids=["the first", "after used ones", "a used first one", "before a used one", "none"],
)
def test_the_lowest_free_address(used, expected):
    first = next(space.gaps([Range(33, 48)], used, Range(0, 100)), None)
    assert (first.start if first else None) == expected
