"""Every interleaving of a few agents that keep the rules of docs/coherence.md with a home, in plain Python.

A world is an immutable value: the home, the pool's copies, and for each agent what it holds, asks for and has under
way. A step is one thing that happens somewhere: a message leaves, arrives at the home, its answer arrives, an agent
reads, writes, evicts, falls silent, is fenced. Data is one bit: is this the newest value written to the block?
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from speckv_pynq.reference.directory import (
    Answer,
    DirectoryModel,
    Refused,
    Table,
)
from speckv_pynq.spec import DIRECTORY_TABLE
from speckv_pynq.spec import DirectoryState as State

WRITER = {State.MODIFIED, State.DOWNGRADE_PENDING, State.HANDOVER_PENDING}
PENDING = {State.ACKS_PENDING, State.DOWNGRADE_PENDING, State.HANDOVER_PENDING}


class Violation(Exception):
    """Something that the protocol promises not to happen."""


class Call(NamedTuple):
    """A call under way; `answer` is set once the home has handled it."""

    kind: str  # get, put_clean, put_dirty, write_back, ack, cancel
    write: bool = False
    fresh: bool = False  # of the data written back
    answer: Answer | None = None


class Side(NamedTuple):
    """An agent's side of one block."""

    lease: str = ""  # r, w
    fresh: bool | None = None  # of the copy; None: not fetched
    dirty: bool = False
    want: bool | None = None  # asks to read (False) or write (True)
    call: Call | None = None
    recalled: bool = False  # as it learned from its latest poll


class Peer(NamedTuple):
    """An agent."""

    number: int
    epoch: int | None  # None: it knows that it is fenced
    silent: bool  # past its deadline: uses nothing
    lives: int  # how often it may still fall silent
    sides: tuple[Side, ...]


class World(NamedTuple):
    home: DirectoryModel
    pool: tuple[bool, ...]  # is the pool's copy the newest?
    peers: tuple[Peer, ...]


Step = tuple[str, bool, World]  # what happens, does it only finish what was begun, what comes of it


def begin(lives: tuple[int, ...], blocks: int = 1, table: Table = DIRECTORY_TABLE) -> World:
    """An agent for each of `lives`: how often it may fall silent."""
    home = DirectoryModel(1, table)
    ids = [home.register(0) for _ in lives]
    sides = (Side(),) * blocks
    return World(
        home,
        (True,) * blocks,
        tuple(Peer(*ids[i], False, many, sides) for i, many in enumerate(lives)),
    )


def steps(world: World) -> Iterator[Step]:
    for i, peer in enumerate(world.peers):
        yield from _of_agent(world, i, peer)
        for b, side in enumerate(peer.sides):
            yield from _messages(world, i, b, side)
            if peer.epoch is not None and not peer.silent and side.call is None:
                yield from _choices(world, i, b, side)


def _with(world: World, i: int, b: int, **changes: object) -> World:
    peer = world.peers[i]
    side = peer.sides[b]._replace(**changes)
    return _peer(world, i, sides=(*peer.sides[:b], side, *peer.sides[b + 1 :]))


def _peer(world: World, i: int, **changes: object) -> World:
    peers = world.peers
    return world._replace(peers=(*peers[:i], peers[i]._replace(**changes), *peers[i + 1 :]))


def _of_agent(world: World, i: int, peer: Peer) -> Iterator[Step]:
    if peer.epoch is None:
        home = world.home.copy()
        number, epoch = home.register(0)
        yield (
            f"{i} registers",
            True,
            _peer(world._replace(home=home), i, number=number, epoch=epoch),
        )
        return
    after = _poll(world, i, peer)
    if after != world:
        yield f"{i} polls", True, after
    if not peer.silent and peer.lives:
        yield f"{i} falls silent", False, _peer(world, i, silent=True, lives=peer.lives - 1)
    if peer.silent and is_registered(world, peer):
        yield f"{i} is fenced", True, _fence(world, i, peer)


def is_registered(world: World, peer: Peer) -> bool:
    at_home = world.home.agents.get(peer.number)
    return at_home is not None and at_home.epoch == peer.epoch


def _poll(world: World, i: int, peer: Peer) -> World:
    try:  # time stands still: a poll changes nothing at home
        recalls, _ = world.home.poll(peer.number, peer.epoch, 0)
    except Refused:
        return _learn_fence(world, i)
    keys = {recall.key for recall in recalls}
    sides = tuple(side._replace(recalled=b in keys) for b, side in enumerate(peer.sides))
    return _peer(world, i, silent=False, sides=sides)


def _learn_fence(world: World, i: int) -> World:
    """It drops everything. What it has sent may arrive at any time: `_check_late` stands for that."""
    sides = (Side(),) * len(world.pool)
    return _peer(world, i, epoch=None, silent=False, sides=sides)


def _fence(world: World, i: int, peer: Peer) -> World:
    home = world.home.copy()
    wrote = {k for k, b in home.blocks.items() if b.state in WRITER and peer.number in b.holders}
    home.fence(peer.number, peer.epoch)
    lost = home.take_lost()
    if lost != wrote:
        raise Violation(f"lost reported for {lost}, write leases were on {wrote}")
    world = world._replace(home=home)
    for b in lost:
        if not world.pool[b]:  # from now on the pool's copy is the newest there is
            world = _newest(world, b, pool=True)
    return world


def _newest(world: World, b: int, *, pool: bool) -> World:
    """All values of the block, but perhaps the pool's, are old now."""
    peers = []
    for peer in world.peers:
        side = peer.sides[b]
        call = side.call and side.call._replace(fresh=False)
        side = side._replace(fresh=side.fresh and False, call=call)
        peers.append(peer._replace(sides=(*peer.sides[:b], side, *peer.sides[b + 1 :])))
    return World(world.home, (*world.pool[:b], pool, *world.pool[b + 1 :]), tuple(peers))


def _messages(world: World, i: int, b: int, side: Side) -> Iterator[Step]:
    call = side.call
    if call is None:
        return
    if call.answer is not None:
        yield f"{i} hears {call.answer.name} {b}", True, _hear(world, i, b, side, call.answer)
    else:
        yield f"home gets {call.kind} {b} of {i}", True, _arrive(world, i, b, call)


def _deliver(world: World, number: int, epoch: int, b: int, call: Call) -> Answer | None:
    home = world.home
    if call.kind == "get":
        return home.acquire(number, epoch, 0, call.write, [b])[0]
    if call.kind == "write_back":
        home.write_back(number, epoch, [b])
    elif call.kind == "ack":
        home.acknowledge(number, epoch, [b])
    else:
        home.release(number, epoch, call.kind == "put_dirty", [b])
    return None


def _arrive(world: World, i: int, b: int, call: Call) -> World:
    peer, before = world.peers[i], world.home
    world = world._replace(home=before.copy())
    known = is_registered(world, peer)
    try:
        answer = _deliver(world, peer.number, peer.epoch, b, call)
    except Refused as error:
        if not known:
            return _learn_fence(_with(world, i, b, call=None), i)
        if call.kind == "cancel":  # it was not waiting: another was
            return _with(world, i, b, call=None)
        raise Violation(f"{call.kind} of an agent that keeps the rules: {error}") from error
    if call.kind == "get":
        if answer == Answer.BUSY and world.home.blocks != before.blocks:
            raise Violation("busy, yet something changed")
        return _with(world, i, b, call=call._replace(answer=answer))
    if world.home.write_backs > before.write_backs:
        pool = (*world.pool[:b], call.fresh, *world.pool[b + 1 :])
        world = world._replace(pool=pool)
    return _with(world, i, b, call=None)


def _hear(world: World, i: int, b: int, side: Side, answer: Answer) -> World:
    if answer != Answer.GRANTED:
        return _with(world, i, b, call=None)
    lease = "w" if side.call.write or side.lease == "w" else "r"
    return _with(world, i, b, call=None, want=None, lease=lease)


def _choices(world: World, i: int, b: int, side: Side) -> Iterator[Step]:
    """What an agent with a live lease and no call about this block under way may do."""
    if side.want is not None:
        get = Call("get", side.want)
        yield f"{i} asks again {b}", True, _with(world, i, b, call=get)
        gone = Call("put_dirty" if side.dirty else "cancel", fresh=bool(side.fresh))
        if not side.dirty:
            changed = _with(world, i, b, want=None, lease="", fresh=None, call=gone)
            yield f"{i} cancels {b}", False, changed
    else:
        for write in (False, True):
            if side.lease != "w" and (write or not side.lease):
                call = Call("get", write)
                yield f"{i} asks {b} {write=}", False, _with(world, i, b, want=write, call=call)
    if side.lease and side.fresh is None:
        yield f"{i} fetches {b}", True, _with(world, i, b, fresh=world.pool[b])
    if side.lease == "w":
        newer = _newest(world, b, pool=False)
        yield f"{i} writes {b}", False, _with(newer, i, b, fresh=True, dirty=True)
    if side.dirty:
        call = Call("write_back", fresh=bool(side.fresh))
        back = _with(world, i, b, lease="r", dirty=False, call=call)
        yield f"{i} writes back {b}", side.recalled, back
    if side.lease and side.want is None:
        call = Call("put_dirty" if side.dirty else "put_clean", fresh=bool(side.fresh))
        gone = _with(world, i, b, lease="", fresh=None, dirty=False, call=call)
        yield f"{i} evicts {b}", side.recalled, gone
    if side.lease and side.recalled and not side.dirty:
        gone = _with(world, i, b, lease="", fresh=None, recalled=False, call=Call("ack"))
        yield f"{i} acknowledges {b}", True, gone


def check(world: World) -> None:
    """What holds in every state; Violation where not."""
    for b, pool_is_newest in enumerate(world.pool):
        live = [(p, p.sides[b]) for p in world.peers if p.epoch is not None and not p.silent]
        held = [side for _, side in live if side.lease]
        if len(held) > 1 and any(side.lease == "w" for side in held):
            raise Violation(f"a writer is not alone on {b}")
        if any(side.fresh is False for side in held):
            raise Violation(f"a stale copy of {b} can be read")
        kept = [side for p in world.peers if is_registered(world, p) for side in [p.sides[b]]]
        safe = any(
            (side.dirty and side.fresh) or (side.call is not None and side.call.fresh)
            for side in kept
        )
        if not (pool_is_newest or safe):
            raise Violation(f"a write to {b} is lost and not reported")
        _check_home(world, b)
        _check_late(world, b)


def _check_late(world: World, b: int) -> None:
    """Messages of an epoch that has ended are refused, whenever they arrive."""
    for peer in world.peers:
        at_home = world.home.agents.get(peer.number)
        ended = world.home.epochs if at_home is None else at_home.epoch - 1
        for call in (Call("get", True), Call("put_dirty", fresh=True), Call("ack")):
            try:
                _deliver(world, peer.number, ended, b, call)
            except Refused:
                continue
            raise Violation(f"{call.kind} of an ended epoch was taken")


def _check_home(world: World, b: int) -> None:
    block = world.home.block(b)
    for peer in world.peers:
        side = peer.sides[b]
        holds = peer.number in block.holders
        if not is_registered(world, peer):
            continue
        if side.lease and not holds:
            raise Violation(f"an agent holds {b}, its home does not know")
        writes = holds and block.state in WRITER
        if (
            side.want is None
            and side.call is None
            and (holds, writes)
            != (
                bool(side.lease),
                side.lease == "w",
            )
        ):
            raise Violation(f"nothing is under way, yet {block} and {side} disagree")
    if block.holders - set(world.home.agents):
        raise Violation(f"a fenced agent holds {b}")
    if (block.state in PENDING) != (block.waiter is not None):
        raise Violation(f"{block.state.name} with waiter {block.waiter}")
    if block.waiter is not None and block.waiter not in world.home.agents:
        raise Violation(f"a fenced agent waits for {b}")
    if block.state in WRITER | {State.EXCLUSIVE} and len(block.holders) != 1:
        raise Violation(f"{block.state.name} with holders {set(block.holders)}")
    if (block.state == State.INVALID) != (not block.holders):
        raise Violation(f"{block.state.name} with holders {set(block.holders)}")
