"""Share of blocks that policies of L1 find there, on traces: the product's own on its core, others beside them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from speckv_pynq import spec
from speckv_pynq.bench.policy_rivals import RIVALS, hits_of, optimum
from speckv_pynq.bench.policy_traces import Trace
from speckv_pynq.config import POLICIES
from speckv_pynq.native import U64, Core, Tier
from speckv_pynq.native.layout import CoreConfig
from speckv_pynq.tiers.policies import Policy, make_policy

SHARES: Final = (1 / 8, 1 / 4, 1 / 2)
OPTIMUM: Final = "optimum"
NAMES: Final = (*POLICIES, *RIVALS, OPTIMUM)
_SLOT_BYTES: Final = spec.FRAME_BYTES  # address space: no block is decoded


@dataclass(frozen=True)
class Figures:
    """Of one trace, with L1 as a share of its blocks."""

    trace: str
    synthetic: bool
    blocks: int
    uses: int
    share: float
    slots: int
    hit_ratios: dict[str, float]  # by name, as in NAMES


def measure(
    traces: Sequence[Trace],
    shares: Sequence[float] = SHARES,
    advance: Callable[[], None] = lambda: None,
) -> list[Figures]:
    """Every policy on every trace, from empty; advance: called len(NAMES) times for each."""
    found = []
    for trace in traces:
        for share in shares:
            slots = max(1, round(share * trace.blocks))
            hits = {}
            for name in NAMES:
                hits[name] = _hits(name, trace, slots) / trace.uses
                advance()
            found.append(
                Figures(trace.name, trace.synthetic, trace.blocks, trace.uses, share, slots, hits)
            )
    return found


def _hits(name: str, trace: Trace, slots: int) -> int:
    if name == OPTIMUM:
        return optimum(trace, slots)
    if name in RIVALS:
        return hits_of(RIVALS[name](slots), trace)
    with L1(trace.blocks, slots, make_policy(name)) as l1:
        for call in trace.calls:
            l1.get(call)
        return l1.hits


class L1:
    """A core with `blocks` blocks, and a policy that fills its L1 as a get would."""

    def __init__(self, blocks: int, slots: int, policy: Policy) -> None:
        config = CoreConfig()
        config.frame_bytes, config.block_bytes = spec.FRAME_BYTES, _SLOT_BYTES
        config.parts = config.layers = 1
        frames = -(-blocks * spec.LINE_BYTES // spec.FRAME_BYTES)
        self._memories = {
            Tier.L1: np.empty(slots * _SLOT_BYTES, np.uint8),
            Tier.L3: np.empty(frames * spec.FRAME_BYTES, np.uint8),
        }
        for tier, memory in self._memories.items():
            config.base[tier], config.bytes[tier] = memory.ctypes.data, memory.nbytes
        self.core, self.policy = Core(config), policy
        staging = np.zeros(spec.LINE_BYTES, np.uint8)
        nothing, line = np.zeros((blocks, 1), np.uint64), np.full((blocks, 1), spec.LINE_BYTES)
        self._handles, _, _ = self.core.put(
            0, np.zeros(blocks, np.uint32), staging, nothing, line.astype(np.uint32)
        )

    def get(self, blocks: np.ndarray) -> None:
        """blocks: (n,) numbers, distinct."""
        handles: U64 = self._handles[blocks]
        plan = self.core.plan_get(handles)
        hits = handles[plan.tiers == Tier.L1] if self.policy.wants_hits else None
        self.policy.admit(self.core, hits, plan.handles)

    @property
    def hits(self) -> int:
        return int(self.core.stats().hits[Tier.L1])

    def __enter__(self) -> L1:
        return self

    def __exit__(self, *_: object) -> None:
        self.core.close()


def hit_us(name: str, blocks: int = 32, resident: int = 4096, repeats: int = 7) -> float:
    """CPU time of a get of `blocks` blocks that are all in L1, but for copying them: us a block, the median."""
    rounds = []
    with L1(resident, resident, make_policy(name)) as l1:
        order = np.random.default_rng(0).permutation(resident).reshape(-1, blocks)
        for call in order:
            l1.get(call)
        for _ in range(repeats):
            start = time.thread_time()
            for call in order:
                l1.get(call)
            rounds.append(1e6 * (time.thread_time() - start) / resident)
    return statistics.median(rounds)
