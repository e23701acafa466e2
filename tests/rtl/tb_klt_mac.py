"""klt_mac: whole transforms, tile by tile, equal to the reference in both directions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.codebook import Unit
from speckv_pynq.reference import klt
from speckv_pynq.reference.floats import FORMATS, SIGN_BIT, magnitude_from_ratio
from tests.codebooks import Shape, random_codebook, random_unit
from tests.rtl.bench import Coverage, Receiver, Sender, begin, report, rng, run_streams, setting

VALUES = 16
ROWS, TOKENS = setting("rows", spec.KLT_MAC_ROWS), setting("tokens", spec.KLT_MAC_TOKENS)
Ints = npt.NDArray[np.int64]
NAMES = ("rows_tdata", "tokens_tdata", "decodes", "shift", "offset", "limit", "tlast")
SHAPES = [
    Shape(1, 64, pairs=0),
    Shape(2, 80, transforms=2, pairs=0),
    Shape(2, 64, transforms=4, apart=True, pairs=0),
    Shape(1, 96, spec.Kind.VALUE, pairs=0),
]


def packed(values: Any, bits: int) -> int:
    """The first one lowest."""
    return sum((int(v) & (1 << bits) - 1) << i * bits for i, v in enumerate(values))


@dataclass
class Tile:
    """MAC_ROWS rows against MAC_TOKENS tokens of the same n values, n a multiple of 16."""

    rows: Ints
    tokens: Ints
    decodes: bool
    shift: Ints
    offset: Ints  # rounding, or the mean
    limit: Ints

    def beats(self) -> list[tuple[int, ...]]:
        row = (packed(self.shift, 5), packed(self.offset, 31), packed(self.limit, 15))
        out: list[tuple[int, ...]] = []
        for at in range(0, self.rows.shape[1], VALUES):
            part = slice(at, at + VALUES)
            data = (
                int.from_bytes(a[:, part].astype("<i2").tobytes(), "little")
                for a in (self.rows, self.tokens)
            )
            last = at + VALUES == self.rows.shape[1]
            out.append((*data, self.decodes, *row, last))
        return out


def tiles_of(
    rows: Ints, tokens: Ints, decodes: bool, shift: Ints, offset: Ints, limit: Ints
) -> list[Tile]:
    """rows: (m, n), tokens: (T, n), the others (m,): tiles in the order (rows, tokens), the last row repeated."""
    columns = -len(rows[0]) % VALUES
    rows, tokens = (np.pad(a, ((0, 0), (0, columns))) for a in (rows, tokens))
    out = []
    for k in range(0, len(rows), ROWS):
        which = np.minimum(np.arange(k, k + ROWS), len(rows) - 1)
        out += [
            Tile(
                rows[which],
                tokens[t : t + TOKENS],
                decodes,
                shift[which],
                offset[which],
                limit[which],
            )
            for t in range(0, len(tokens), TOKENS)
        ]
    return out


def analysis_tiles(x: Ints, unit: Unit) -> list[Tile]:
    each, out = unit.inputs_each, []
    for j, (first, end) in enumerate(unit.bounds):
        out += tiles_of(
            unit.analysis[first:end, :each],
            x[:, j * each : (j + 1) * each],
            False,
            unit.shift[first:end],
            unit.rounding[first:end],
            unit.limit[first:end],
        )
    return out


def synthesis_tiles(q: Ints, unit: Unit) -> list[Tile]:
    each, out = unit.inputs_each, []
    for j, (first, end) in enumerate(unit.bounds):
        mine = slice(j * each, (j + 1) * each)
        out += tiles_of(
            unit.synthesis[mine, : end - first],
            q[:, first:end],
            True,
            unit.out_shift[mine],
            unit.mean[mine],
            np.zeros(each, np.int64),
        )
    return out


def gathered(values: Ints, heights: list[int], tokens: int) -> Ints:
    """values: (tiles, MAC_ROWS, MAC_TOKENS) of transforms of these heights -> (tokens, all rows)."""
    each, at, out = tokens // TOKENS, 0, []
    for height in heights:
        count = -(-height // ROWS) * each
        part = values[at : at + count].reshape(-1, each, ROWS, TOKENS)
        out.append(part.transpose(1, 3, 0, 2).reshape(tokens, -1)[:, :height])
        at += count
    assert at == len(values)
    return np.concatenate(out, axis=1)


async def run(dut: Any, tiles: list[Tile], stall: float, pressure: float) -> tuple[Ints, Any, int]:
    """-> values (tiles, MAC_ROWS, MAC_TOKENS), which rows are beyond their limit, cycles."""
    beats = [beat for tile in tiles for beat in tile.beats()]
    inputs = tuple(getattr(dut, f"{name}_i") for name in NAMES)
    sender = Sender(inputs, dut.tvalid_i, dut.tready_o, beats, stall=stall)
    outputs = (dut.values_tdata_o, dut.values_beyond_o, dut.values_tlast_o)
    receiver = Receiver(outputs, dut.values_tvalid_o, dut.values_tready_i, stall=pressure)
    count = ROWS * len(tiles)
    cycles = await run_streams(
        dut,
        rng(),
        [sender, receiver],
        until=lambda: len(receiver.items) == count,
        most_cycles=20 * (len(beats) + count) + 100,
    )
    data, beyond, last = zip(*receiver.items, strict=True)
    assert list(last) == [i % ROWS == ROWS - 1 for i in range(count)]
    fields = [[d >> 17 * t & 0x1FFFF for t in range(TOKENS)] for d in data]
    values = np.array(fields, np.int64)
    values -= (values >> 16) << 17
    return values.reshape(-1, ROWS, TOKENS), np.array(beyond, bool).reshape(-1, ROWS), cycles


def extreme_unit(seed: int, shape: Shape) -> Unit:
    """Coefficients as large as sums allow, every shift, rounding up to the last bit, limits that are met."""
    numbers = np.random.default_rng(seed)
    unit = random_unit(numbers, shape, 4)
    each, rank = unit.inputs_each, unit.rank
    in_all = (2**31 - 1) // spec.KLT_INPUT_MAX
    analysis = np.zeros_like(unit.analysis)
    analysis[:, :each] = numbers.choice((-1, 1), (rank, each)) * (in_all // each)
    row = numbers.integers(rank)
    analysis[row] = np.sign(analysis[row]) * ((in_all - 32768) // each)
    analysis[row, 0] = -32768
    room = 2**31 - 1 - np.abs(analysis.astype(np.int64)).sum(axis=1) * spec.KLT_INPUT_MAX
    assert room.min() >= 0
    rounding = room * numbers.choice((0, 1), rank)
    synthesis = unit.synthesis * 4
    return replace(
        unit,
        analysis=analysis,
        rounding=rounding.astype(np.int32),
        shift=numbers.integers(0, 31, rank).astype(np.uint8),
        limit=numbers.choice((0, 1, 1500, 32767), rank).astype(np.int16),
        synthesis=synthesis,
        out_shift=numbers.integers(0, 31, unit.inputs).astype(np.uint8),
        mean=numbers.choice((-spec.KLT_FIXED_MAX, 0, 77, spec.KLT_FIXED_MAX), unit.inputs).astype(
            np.int32
        ),
    )


def inputs_of(numbers: np.random.Generator, tokens: int, unit: Unit) -> Ints:
    """Some all of the largest, of the signs of a row: sums as large as they come."""
    most = spec.KLT_INPUT_MAX
    x = numbers.integers(-most, most + 1, (tokens, unit.inputs))
    x[numbers.random(tokens) < 0.3] //= 1000
    each, rows = unit.inputs_each, unit.analysis.astype(np.int64)
    for t in numbers.integers(0, tokens, 3):
        row = rows[numbers.integers(len(rows)), :each]
        x[t] = np.tile(np.where(row < 0, -most, most) * numbers.choice((-1, 1)), unit.transforms)
    return x


async def encodes(
    dut: Any, unit: Unit, x: Ints, stalls: tuple[float, float], seen: Coverage
) -> int:
    tokens = len(x)
    values, beyond, cycles = await run(dut, analysis_tiles(x, unit), *stalls)
    heights = [end - first for first, end in unit.bounds]
    got = gathered(values, heights, tokens)
    over = gathered(np.repeat(beyond[:, :, None], TOKENS, axis=2), heights, tokens)
    want = klt.quantise(x, replace(unit, limit=np.full(unit.rank, 2**31 - 1)))
    assert want is not None
    # A flag is of a row and MAC_TOKENS tokens.
    each_over = (np.abs(want) > unit.limit).reshape(-1, TOKENS, unit.rank).any(axis=1)
    assert (over == np.repeat(each_over, TOKENS, axis=0)).all()
    assert (got == want)[~over].all()
    for flag in np.unique(over):
        seen.hit("beyond", bool(flag))
    return cycles


async def decodes(
    dut: Any, unit: Unit, q: Ints, stalls: tuple[float, float], seen: Coverage
) -> int:
    tokens = len(q)
    values, _, cycles = await run(dut, synthesis_tiles(q, unit), *stalls)
    got = gathered(values, [unit.inputs_each] * unit.transforms, tokens)
    # To the element type, as the reference goes on from here.
    fmt = FORMATS[spec.DType.BF16]
    book = klt.Book(unit, random_codebook(0, SHAPES[0]).tables)
    want = klt.reconstruct(q, book, fmt)
    natural = np.empty_like(got)
    natural[:, unit.order] = got
    exponent = np.empty(unit.inputs, np.int64)
    exponent[unit.order] = unit.exponent
    bits = magnitude_from_ratio(np.abs(natural), 1, -exponent[None], fmt)
    bits = bits | np.where(natural < 0, np.uint16(SIGN_BIT), np.uint16(0))
    flat = np.concatenate([part.reshape(tokens, -1) for part in want.values()], axis=1)
    assert (bits == flat).all()
    for flag in np.unique(np.abs(got) == spec.KLT_FIXED_MAX):
        seen.hit("clamped", bool(flag))
    return cycles


@cocotb.test()
async def transforms(dut: Any) -> None:
    """Units of several forms, ordinary and extreme, both directions in turn, random stalls."""
    chance = rng()
    await begin(dut, ["tvalid_i", "values_tready_i", *(f"{name}_i" for name in NAMES)])
    seen = Coverage(beyond=(False, True), clamped=(False, True))
    for i in range(setting("units", 6)):
        numbers = np.random.default_rng([cocotb.RANDOM_SEED, i])
        shape = SHAPES[i // 2 % len(SHAPES)]
        unit = extreme_unit(i, shape) if i % 2 else random_unit(numbers, shape, 4)
        tokens = spec.BLOCK_TOKENS_ALLOWED[i % 2]
        stalls = chance.choice(((0.0, 0.0), (0.5, 0.0), (0.0, 0.6), (0.3, 0.3), (0.0, 0.95)))
        await encodes(dut, unit, inputs_of(numbers, tokens, unit), stalls, seen)
        limit = np.minimum(unit.limit, 1500).astype(np.int64)
        q = numbers.integers(-limit, limit + 1, (tokens, unit.rank))
        await decodes(dut, unit, q, stalls, seen)
    seen.finish()


@cocotb.test()
async def rate(dut: Any) -> None:
    """Nothing stalled: the array takes a beat a cycle where a tile has MAC_ROWS beats or more."""
    await begin(dut, ["tvalid_i", "values_tready_i", *(f"{name}_i" for name in NAMES)])
    numbers, used = np.random.default_rng(3), {}
    for n in (16, 32, 64, 128):
        rows, x = (numbers.integers(-8, 9, (m, n)) for m in (64, 32))
        zero = np.zeros(64, np.int64)
        tiles = tiles_of(rows, x, False, zero, zero, zero + 32767)
        _, _, cycles = await run(dut, tiles, 0.0, 0.0)
        used[str(n)] = round(len(tiles) * n / VALUES / cycles, 3)
    one = tiles_of(rows[:ROWS], x[:TOKENS], False, zero, zero, zero + 32767)
    _, _, cycles = await run(dut, one, 0.0, 0.0)
    # From the last beat to the first row of values.
    report(beats_per_cycle=used, latency_cycles=cycles - len(one[0].beats()) - (ROWS - 1))
