"""A search over every state that a world can reach; directory_world.py says what a world is."""

from __future__ import annotations

from speckv_pynq.reference.directory import IllegalEvent
from tests.reference.directory_world import Side, Violation, World, check, is_registered, steps


def is_served(world: World) -> bool:
    """Nobody waits, nothing is under way."""
    sides = [side for peer in world.peers for side in peer.sides]
    return all(s.want is None and s.call is None for s in sides)


def key(world: World) -> tuple:
    """Equal for worlds that differ in the agents' order, in numbers of epochs and of recalls alone."""
    blocks = [world.home.block(b) for b in range(len(world.pool))]
    peers = []
    for peer in world.peers:
        at_home = is_registered(world, peer)
        peers.append(
            (
                peer.epoch is None, at_home, peer.silent, peer.lives, *map(_number, peer.sides),
                *(at_home and peer.number in block.holders for block in blocks),
                *(at_home and peer.number == block.waiter for block in blocks),
            )
        )  # fmt: skip
    return world.pool, *(block.state for block in blocks), *sorted(peers)


_SIDES: dict[Side, int] = {}


def _number(side: Side) -> int:
    """Sides as numbers, which have an order."""
    return _SIDES.setdefault(side, len(_SIDES))


def explore(start: World, limit: int | None = None) -> int:
    """Visits every state, or the first `limit`; how many. Violation, with the way there, where a promise breaks."""
    first = key(start)
    worlds, index, before = [start], {first: 0}, [(-1, "begin")]
    arrivals: list[list[int]] = [[]]  # finishing steps backwards
    at = 0
    while at < len(worlds) and (limit is None or at < limit):
        world = worlds[at]
        try:
            for label, finishing, after in steps(world):
                place = index.setdefault(key(after), len(worlds))
                if place == len(worlds):
                    check(after)
                    worlds.append(after)
                    before.append((at, label))
                    arrivals.append([])
                if finishing:
                    arrivals[place].append(at)
        except (Violation, IllegalEvent, KeyError) as error:
            raise Violation(f"{error!r} after {_way(before, at)}") from error
        at += 1
    if at == len(worlds):
        _check_served(worlds, arrivals, before)
    return at


def _check_served(
    worlds: list[World], arrivals: list[list[int]], before: list[tuple[int, str]]
) -> None:
    """From everywhere, finishing what was begun leads to where everybody is served."""
    reached = [is_served(world) for world in worlds]
    front = [i for i, served in enumerate(reached) if served]
    while front:
        for source in arrivals[front.pop()]:
            if not reached[source]:
                reached[source] = True
                front.append(source)
    if not all(reached):
        raise Violation(f"never served after {_way(before, reached.index(False))}")


def _way(before: list[tuple[int, str]], at: int) -> str:
    labels = []
    while at >= 0:
        at, label = before[at]
        labels.append(label)
    return "; ".join(reversed(labels))
