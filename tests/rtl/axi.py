"""A memory behind AXI4, for `bench.run_streams`: serves a master's ports and checks that it keeps the rules."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

OKAY, SLVERR, DECERR = 0, 2, 3
BOUNDARY = 4096  # no burst crosses a multiple of it


@dataclass
class Burst:
    """What a master asked for; `taken` counts its beats that have passed."""

    name: int
    address: int
    beats: int
    due: int  # cycle of the first beat (reads) or of the response (writes) at the earliest
    response: int = OKAY
    taken: int = 0


@dataclass
class Fault:
    """Accesses that touch [start, stop) are answered with `response`; a write changes nothing there."""

    start: int
    stop: int
    response: int = SLVERR
    reads: bool = True
    writes: bool = True


class _Offers:
    """A channel that the master drives: what it offers must stand, unchanged, until it is taken."""

    def __init__(self, dut: Any, prefix: str, fields: Sequence[str]) -> None:
        self.prefix = prefix
        self.valid = getattr(dut, f"{prefix}valid_o")
        self.ready = getattr(dut, f"{prefix}ready_i")
        # Fields that a master may leave out (ids, bursts of one kind) read as None.
        self.fields = [getattr(dut, f"{prefix}{name}_o", None) for name in fields]
        self.is_ready = False
        self.ready.value = 0
        self.waiting: tuple[int | None, ...] | None = None

    def drive(self, is_ready: bool) -> None:
        if is_ready != self.is_ready:
            self.is_ready = is_ready
            self.ready.value = is_ready

    def settle(self) -> tuple[Any, ...] | None:
        """The item that this edge takes, if any."""
        if not self.valid.value:
            assert self.waiting is None, f"{self.prefix}: an offer was withdrawn"
            return None
        item = tuple(None if handle is None else int(handle.value) for handle in self.fields)
        assert self.waiting in (None, item), f"{self.prefix}: an offer changed while it waited"
        self.waiting = None if self.is_ready else item
        return item if self.is_ready else None


class _Answers:
    """A channel that the memory drives; values are written to the ports only when they change."""

    def __init__(self, dut: Any, prefix: str, fields: Sequence[str]) -> None:
        self.valid = getattr(dut, f"{prefix}valid_i")
        self.ready = getattr(dut, f"{prefix}ready_o")
        self.fields = [getattr(dut, f"{prefix}{name}_i", None) for name in fields]
        self.offered = self.is_valid = False
        self.valid.value = 0
        for handle in self.fields:
            if handle is not None:
                handle.value = 0

    def offer(self, *values: int) -> None:
        if not self.is_valid:
            self.valid.value = 1
        self.offered = self.is_valid = True
        for handle, value in zip(self.fields, values, strict=True):
            if handle is not None:
                handle.value = value

    def idle(self) -> None:
        if self.is_valid:
            self.valid.value = self.is_valid = False

    def settle(self) -> bool:
        taken = self.offered and bool(self.ready.value)
        if taken:
            self.offered = False
        return taken


@dataclass
class AxiMemory:
    """Bytes [base, base + len(data)) behind the AXI4 ports `<prefix>_ar...`, `_r...`, `_aw...`, `_w...`, `_b...`.

    dut's outputs end in _o, its inputs in _i. A master without reads or without writes may leave those ports out.
    `latency`: cycles from an address, or a write's last beat, to its answer, at least. `stall`: probability a cycle
    of not being ready, or of not offering. `reorder`: answers of different ids overtake each other, beats of
    different ids interleave. `most_beats`: longest burst allowed. An access outside the memory fails the test.
    """

    dut: Any
    data: bytearray
    prefix: str = "m_axi"
    base: int = 0
    latency: int = 1
    stall: float = 0.0
    reorder: bool = False
    most_beats: int = 64
    faults: list[Fault] = field(default_factory=list)
    cycle: int = 0
    reads: list[Burst] = field(default_factory=list)  # every burst asked for, in order
    writes: list[Burst] = field(default_factory=list)
    read_cycles: list[int] = field(default_factory=list)  # of every beat that passed
    write_cycles: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        dut, prefix = self.dut, self.prefix
        self._reading: list[Burst] = []  # asked for, not answered in full
        self._responding: list[Burst] = []
        self._addressed: deque[Burst] = deque()  # writes that wait for beats
        self._early: deque[tuple[int, int, int]] = (
            deque()
        )  # beats that wait for their write's address
        self._current: Burst | None = None
        self._response: Burst | None = None
        address = ("id", "addr", "len", "size", "burst")
        self._ar = self._r = self._aw = self._w = self._b = None
        if hasattr(dut, f"{prefix}_arvalid_o"):
            self._ar = _Offers(dut, f"{prefix}_ar", address)
            self._r = _Answers(dut, f"{prefix}_r", ("id", "data", "resp", "last"))
            self._bytes = len(getattr(dut, f"{prefix}_rdata_i")) // 8
        if hasattr(dut, f"{prefix}_awvalid_o"):
            self._aw = _Offers(dut, f"{prefix}_aw", address)
            self._w = _Offers(dut, f"{prefix}_w", ("data", "strb", "last"))
            self._b = _Answers(dut, f"{prefix}_b", ("id", "resp"))
            self._bytes = len(getattr(dut, f"{prefix}_wdata_o")) // 8

    @property
    def idle(self) -> bool:
        """Nothing is under way: every burst has been answered."""
        return not (self._reading or self._responding or self._addressed or self._early)

    def drive(self, chance: random.Random) -> None:
        stall = self.stall
        for offers in (self._ar, self._aw, self._w):
            if offers is not None:
                offers.drive(stall == 0 or chance.random() >= stall)
        if self._r is not None and not self._r.offered:
            self._offer_read(chance)
        if self._b is not None and not self._b.offered:
            self._offer_response(chance)

    def settle(self) -> None:
        self.cycle += 1
        if self._ar is not None and self._r is not None:
            asked = self._ar.settle()
            if asked is not None:
                burst = self._burst("ar", asked)
                self.reads.append(burst)
                self._reading.append(burst)
            if self._r.settle():
                self._read_taken()
        if self._aw is not None and self._w is not None and self._b is not None:
            self._settle_write(self._aw.settle(), self._w.settle())
            if self._b.settle():
                assert self._response is not None
                self._responding.remove(self._response)

    def advance(self) -> None:
        pass

    def _offer_read(self, chance: random.Random) -> None:
        assert self._r is not None
        burst = self._pick(self._reading, chance)
        self._current = burst
        if burst is None:
            self._r.idle()
            return
        address = burst.address + burst.taken * self._bytes
        response = self._fault(address, self._bytes, "reads")
        value = 0 if response else self._line(address)
        self._r.offer(burst.name, value, response, burst.taken == burst.beats - 1)

    def _offer_response(self, chance: random.Random) -> None:
        assert self._b is not None
        burst = self._pick(self._responding, chance)
        self._response = burst
        if burst is None:
            self._b.idle()
        else:
            self._b.offer(burst.name, burst.response)

    def _pick(self, bursts: list[Burst], chance: random.Random) -> Burst | None:
        """The burst to answer now: the first of its id, and the first of all unless `reorder`."""
        if not bursts or (self.stall and chance.random() < self.stall):
            return None
        if not self.reorder:
            return bursts[0] if bursts[0].due <= self.cycle else None
        first = {burst.name: burst for burst in reversed(bursts)}
        ready = [burst for burst in first.values() if burst.due <= self.cycle]
        return chance.choice(ready) if ready else None

    def _read_taken(self) -> None:
        burst = self._current
        assert burst is not None
        self.read_cycles.append(self.cycle)
        burst.taken += 1
        if burst.taken == burst.beats:
            self._reading.remove(burst)

    def _settle_write(self, asked: tuple[Any, ...] | None, beat: tuple[Any, ...] | None) -> None:
        if asked is not None:
            burst = self._burst("aw", asked)
            self.writes.append(burst)
            self._addressed.append(burst)
        if beat is not None:
            self.write_cycles.append(self.cycle)
            self._early.append(beat)
        while self._early and self._addressed:
            self._write(self._addressed[0], *self._early.popleft())

    def _write(self, burst: Burst, value: int, strobe: int | None, last: int) -> None:
        address = burst.address + burst.taken * self._bytes
        burst.taken += 1
        assert bool(last) == (burst.taken == burst.beats), (
            f"{self.prefix}: wlast {last} on beat {burst.taken} of {burst.beats} at {burst.address:#x}"
        )
        response = self._fault(address, self._bytes, "writes")
        burst.response = max(burst.response, response)
        if not response:
            self._store(address, value, strobe)
        if last:
            self._addressed.popleft()
            burst.due = self.cycle + self.latency
            self._responding.append(burst)

    def _store(self, address: int, value: int, strobe: int | None) -> None:
        at, size = address - self.base, self._bytes
        beat = value.to_bytes(size, "little")
        if strobe is None or strobe == (1 << size) - 1:
            self.data[at : at + size] = beat
            return
        for i in range(size):
            if strobe >> i & 1:
                self.data[at + i] = beat[i]

    def _line(self, address: int) -> int:
        at = address - self.base
        return int.from_bytes(self.data[at : at + self._bytes], "little")

    def _fault(self, address: int, size: int, way: str) -> int:
        hits = (
            fault.response
            for fault in self.faults
            if getattr(fault, way) and address < fault.stop and fault.start < address + size
        )
        return max(hits, default=OKAY)

    def _burst(self, channel: str, asked: tuple[Any, ...]) -> Burst:
        name, address, length, size, kind = asked
        beats = (length or 0) + 1
        where = f"{self.prefix}_{channel}: {beats} beats at {address:#x}"
        total = beats * self._bytes
        assert size is None or 1 << size == self._bytes, f"{where}: size {size}"
        assert kind in (None, 1), f"{where}: burst {kind} is not INCR"
        assert address % self._bytes == 0, f"{where}: not aligned to {self._bytes} bytes"
        assert beats <= self.most_beats, f"{where}: more than {self.most_beats}"
        assert address % BOUNDARY + total <= BOUNDARY, f"{where}: crosses a 4 KiB boundary"
        end = self.base + len(self.data)
        outside = address < self.base or address + total > end
        assert not outside, f"{where}: outside {self.base:#x}..{end:#x}"
        return Burst(name or 0, address, beats, self.cycle + self.latency)


def busy(cycles: Sequence[int]) -> float:
    """Beats a cycle from the first beat to the last."""
    return len(cycles) / (cycles[-1] - cycles[0] + 1) if cycles else 0.0
