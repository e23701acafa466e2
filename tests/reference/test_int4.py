"""int4: its error bound, its groups, worked bytes, and that every payload decodes to something stated."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckv_pynq import spec
from speckv_pynq.errors import RecordError
from speckv_pynq.reference import int4
from speckv_pynq.reference.floats import FORMATS
from speckv_pynq.spec import DType, Kind, Status
from tests.blocks import FINITE_CASES, LOSSY_DTYPES, make_bits, shapes, to_floats

FP16 = FORMATS[DType.FP16]
KINDS = (Kind.KEY, Kind.VALUE)


@given(
    shapes(),
    st.sampled_from(FINITE_CASES),
    st.integers(0, 999),
    st.sampled_from(LOSSY_DTYPES),
    st.sampled_from(KINDS),
)
def test_error_is_within_half_a_step(
    shape: tuple[int, int, int], case: str, seed: int, dtype: DType, kind: Kind
) -> None:
    bits, fmt = make_bits(case, seed, shape, dtype), FORMATS[dtype]
    u, code, z, q = int4.quantise(bits, kind, fmt)
    s, sh = int4.expand(code)
    step, unit = int4.spread((s << sh) * 2.0**u, kind, shape), 2.0**u
    # 0.04: the reciprocal of a step has 18 bits, and a value may be 255 steps away from zero.
    bound = 0.54 * step
    # Steps under 32 units are not known to six bits, so 15 of them may miss the far end of the group and
    # z may not reach it. That is little beside the largest step of the kind, 2,016 units or more.
    small = int4.spread(s, kind, shape)
    bound += np.where(small < 32, np.maximum(8.5, 121 - 16 * small) * unit, 0)
    x = to_floats(bits, dtype)
    y = to_floats(int4.dequantise(u, code, z, q, kind, fmt), dtype)
    last_place = np.maximum(
        np.abs(y) * 2.0**-fmt.mantissa_bits, 2.0 ** (1 - fmt.bias - fmt.mantissa_bits)
    )
    assert (np.abs(x - y) <= bound + last_place / 2).all()


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
@pytest.mark.parametrize("case", ["normal", "channels", "outlier"])
def test_largest_step_uses_its_code_fully(case: str, dtype: DType) -> None:
    bits = make_bits(case, 3, (32, 2, 64), dtype)
    for kind in KINDS:
        _, code, _, _ = int4.quantise(bits, kind, FORMATS[dtype])
        s, sh = int4.expand(code)
        assert 2000 <= (s << sh).max() <= 4032
        assert code.min() >= 1


@pytest.mark.parametrize(
    ("shape", "kind", "groups"),
    [
        ((32, 3, 64), Kind.KEY, (1, 3, 64)),
        ((32, 3, 64), Kind.VALUE, (32, 3, 2)),
        ((64, 2, 80), Kind.KEY, (2, 2, 80)),
        ((64, 2, 80), Kind.VALUE, (64, 2, 3)),
        ((16, 1, 96), Kind.KEY, (1, 1, 96)),
    ],
)
def test_groups(shape: tuple, kind: Kind, groups: tuple) -> None:
    assert int4.group_shape(kind, shape) == groups
    bits = make_bits("normal", 1, shape, DType.FP16)
    low, high = int4.extremes(bits, kind)
    x = to_floats(bits, DType.FP16)
    spread_low, spread_high = (
        to_floats(int4.spread(a, kind, shape), DType.FP16) for a in (low, high)
    )
    assert ((spread_low <= x) & (x <= spread_high)).all()
    assert (x == spread_low).sum() >= np.prod(groups)


def test_a_smollm2_block_takes_112_lines() -> None:
    payload = int4.payload_bytes((32, 3, 64), list(KINDS))
    assert payload == 7104
    assert -(-(64 + payload) // spec.LINE_BYTES) == 112


def test_known_bytes() -> None:
    """Worked by hand: token t of a key channel is t, so 0..15 is 15 steps of 1 from a zero point of 0."""
    ramp = np.arange(16, dtype=np.float16).view(np.uint16)
    bits = np.broadcast_to(ramp[:, None, None], (16, 1, 64)).copy()
    payload, params = int4.encode({Kind.KEY: bits}, FP16)
    # R = 15 * 2**20, T = 2**20 + 0, 12 bits of it: v = 2**11 fits in code (6 << 5) + 32 with U = -11.
    assert params == struct.pack("<hhI", -11, 0, 0)
    assert payload[:64] == bytes([224]) * 64
    assert payload[64 : 64 + 64 + 32] == bytes(96)  # z = 0: low bytes, high nibbles
    assert payload[160:] == b"".join(bytes([t | t << 4]) * 32 for t in range(16))
    back = int4.decode(payload, params, Kind.KEY, bits.shape, FP16)[Kind.KEY]
    assert back.tobytes() == bits.tobytes()


def test_lanes_of_a_run_are_packed_from_both_halves() -> None:
    """head_dim 80 ends in a run of 16; byte j of a run is lane j and lane j + half."""
    q = np.broadcast_to(np.arange(80) % 16, (16, 1, 80))
    packed = int4.pack_values(q)[0, 0]
    assert packed[:16].tolist() == [lane * 17 for lane in range(16)]
    assert packed[32:].tolist() == [lane | (lane + 8) << 4 for lane in range(8)]
    assert np.array_equal(int4.unpack_values(int4.pack_values(q)), q)


@given(
    seed=st.integers(0, 1 << 32),
    u=st.integers(-(1 << 15), (1 << 15) - 1),
    dtype=st.sampled_from(LOSSY_DTYPES),
    kind=st.sampled_from(KINDS),
)
def test_any_payload_decodes_to_the_nearest_finite_value(
    seed: int, u: int, dtype: DType, kind: Kind
) -> None:
    u = u if seed % 2 else u % 300 - 150  # both anywhere, and where values are representable
    shape, fmt = (16, 1, 64), FORMATS[dtype]
    rng = np.random.default_rng(seed)
    payload = rng.bytes(int4.payload_bytes(shape, [kind]))
    params = int4.PARAMS.pack(*(u if k == kind else 0 for k in KINDS), 0)
    got = int4.decode(payload, params, kind, shape, fmt)[kind].reshape(-1)
    assert ((got & 0x7FFF) <= fmt.max_finite).all()
    finite = to_floats(np.arange(fmt.max_finite + 1, dtype=np.uint16), dtype)
    groups = int(np.prod(int4.group_shape(kind, shape)))
    for place in rng.integers(0, got.size, 4).tolist():
        token, channel = divmod(place, 64)
        group = channel if kind == Kind.KEY else 2 * token + channel // 32
        want = exact_value(payload, groups, group, place, u)
        code, magnitude = int(got[place]) & 0x7FFF, abs(want)
        assert (got[place] >> 15 == 1) == (want < 0)
        near = [c for c in (code - 1, code, code + 1) if 0 <= c <= fmt.max_finite]
        distances = {c: abs(Fraction(float(finite[c])) - magnitude) for c in near}
        assert distances[code] == min(distances.values())
        assert list(distances.values()).count(distances[code]) == 1 or code % 2 == 0


def exact_value(payload: bytes, groups: int, group: int, place: int, u: int) -> Fraction:
    """The format's formula for one value of a (16, 1, 64) block, straight from the bytes."""
    code = payload[group]
    high = payload[2 * groups + group // 2] >> 4 * (group % 2) & 15
    z = payload[groups + group] + 256 * (high - 16 if high > 7 else high)
    token, channel = divmod(place, 64)
    run, lane = divmod(channel, 32)
    byte = payload[groups * 5 // 2 + 32 * token + 16 * run + lane % 16]
    q = byte >> 4 if lane >= 16 else byte & 15
    e = code >> 5
    step = (32 + code % 32) << (e - 1) if e else code
    return Fraction(step * (8 * q + z), 8) * Fraction(2) ** u


@pytest.mark.parametrize(
    ("params", "kinds"),
    [((0, 0, 1), Kind.BOTH), ((0, 0, 1 << 31), Kind.KEY), ((-1, 0, 0), Kind.VALUE),
     ((0, 7, 0), Kind.KEY)],
)  # fmt: skip
def test_params_of_nothing_are_refused(params: tuple[int, int, int], kinds: Kind) -> None:
    shape = (16, 1, 64)
    payload = bytes(int4.payload_bytes(shape, [k for k in KINDS if k in kinds]))
    with pytest.raises(RecordError) as caught:
        int4.decode(payload, int4.PARAMS.pack(*params), kinds, shape, FP16)
    assert caught.value.status == Status.BAD_PAYLOAD
