"""Cache operations against a plain model of them: tensors that are sliced, indexed and concatenated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import numpy as np
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from speckv_pynq import spec
from speckv_pynq.block import BlockShape, block_ids
from speckv_pynq.codec import Codec, LoadedCodebook
from speckv_pynq.device import open_device
from speckv_pynq.integrations.transformers import CacheConfig, SpecKVCache
from tests.integrations.grouped import codebook
from tests.integrations.tiny import HEAD_DIM, HEADS, LAYERS, config

pytestmark = pytest.mark.requires("libspeckv")
BLOCK, SINKS = 16, 4
Operation = tuple[str, object]


@dataclass
class Plain:
    """(layers, 2, rows, heads, tokens, head_dim): what each position must give; coded blocks as decoded.

    Records hold `group` consecutive layers.
    """

    cache: SpecKVCache
    codec: Codec
    kv: torch.Tensor
    group: int = 1
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(3))

    def append(self, tokens: int) -> None:
        rows, before = self.kv.shape[2], self.cache.get_seq_length()
        old = self.blocks()
        shape = (self.layers, 2, rows, HEADS, tokens, HEAD_DIM)
        new = torch.randn(shape, generator=self.generator).to(self.kv.dtype)
        for layer in range(self.layers):
            got = self.cache.update(new[layer, 0], new[layer, 1], layer)
            for kind in range(2):
                want = torch.cat([self.kv[layer, kind], new[layer, kind]], 2)
                assert torch.equal(got[kind], want), f"layer {layer}, after {before} + {tokens}"
        self.kv = torch.cat([self.kv, self.held(new)], 4)
        for row, start in sorted(self.blocks() - old):
            self.code(row, start)

    @property
    def layers(self) -> int:
        return self.kv.shape[0]

    def held(self, new: torch.Tensor) -> torch.Tensor:
        """Tokens as later passes see them until they are coded: in fp16 where blocks are."""
        return new if self.codec.scheme == spec.Scheme.RAW else new.half().to(new.dtype)

    def blocks(self) -> set[tuple[int, int]]:
        """(row, start) of the blocks that are coded, the same in every layer."""
        states = [layer.state for layer in self.cache.layers]
        if states[0] is None:
            return set()
        layout = states[0].layout
        assert all(state.layout is layout for state in states)
        return set(zip(layout.block_rows.tolist(), layout.block_starts.tolist(), strict=True))

    def code(self, row: int, start: int) -> None:
        """The block as the reference codec brings it back, in place."""
        block = self.kv[:, :, row, :, start : start + BLOCK]  # (layers, 2, heads, tokens, dim)
        k, v = block.transpose(2, 3).half().unbind(1)
        if self.codec.scheme == spec.Scheme.RAW:
            return
        padding = self.cache.layers[0].state.layout.padding[row]
        ids = block_ids(np.arange(0, self.layers, self.group), max(0, start - padding))
        k, v = (self.joined(x).numpy() for x in (k, v))
        k, v = self.codec.decode_arrays(self.codec.encode_arrays(k, v, ids), ids)
        decoded = torch.stack([self.parted(torch.from_numpy(x)) for x in (k, v)], 1)
        self.kv[:, :, row, :, start : start + BLOCK] = decoded.transpose(2, 3)

    def joined(self, x: torch.Tensor) -> torch.Tensor:
        """(layers, tokens, heads, dim) -> (records, tokens, heads of a record, dim)."""
        return x.unflatten(0, (-1, self.group)).transpose(1, 2).flatten(2, 3).contiguous()

    def parted(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of `joined`."""
        return x.unflatten(2, (self.group, HEADS)).transpose(1, 2).flatten(0, 1)

    def crop(self, tokens: int) -> None:
        self.cache.crop(-tokens)
        self.kv = self.kv[..., : max(0, self.kv.shape[4] - tokens), :].clone()

    def crop_to(self, length: int) -> None:
        self.cache.crop(length)
        self.kv = self.kv[..., :length, :].clone()

    def reorder(self, rows: list[int]) -> None:
        rows = [row % self.kv.shape[2] for row in rows[: self.kv.shape[2]]]
        rows += [0] * (self.kv.shape[2] - len(rows))
        self.cache.reorder_cache(torch.tensor(rows))
        if self.kv.shape[4]:
            self.kv = self.kv[:, :, rows].clone()

    def select(self, rows: list[int]) -> None:
        if self.kv.shape[4]:
            chosen = torch.tensor([row % self.kv.shape[2] for row in rows])
            self.cache.batch_select_indices(chosen)
            self.kv = self.kv[:, :, chosen].clone()

    def repeat(self, times: int) -> None:
        if self.kv.shape[4] and self.kv.shape[2] * times <= 6:
            self.cache.batch_repeat_interleave(times)
            self.kv = self.kv.repeat_interleave(times, 2)

    def fork(self, _: object) -> None:
        with self.cache:
            self.cache = self.cache.fork()

    def reset(self, rows: int) -> None:
        self.cache.reset()
        self.kv = self.kv.new_empty(self.layers, 2, rows, HEADS, 0, HEAD_DIM)


OPERATIONS = st.one_of(
    st.tuples(st.just("append"), st.sampled_from([1, 1, 1, 2, 5, 15, 16, 17, 40, 75])),
    st.tuples(st.just("crop"), st.sampled_from([1, 2, 3, 9, 13, 16, 20, 50])),
    st.tuples(st.just("crop_to"), st.sampled_from([2, 20, 33, 60])),
    st.tuples(st.just("reorder"), st.lists(st.integers(0, 5), min_size=1, max_size=6)),
    st.tuples(st.just("select"), st.lists(st.integers(0, 5), min_size=1, max_size=4)),
    st.tuples(st.just("repeat"), st.sampled_from([2, 3])),
    st.tuples(st.just("fork"), st.none()),
    st.tuples(st.just("reset"), st.sampled_from([1, 3])),
)


# Little memory for decoded blocks: hits, misses and evictions all happen. None: layers keep their tensors.
LITTLE = 40 << 10


def plain(
    scheme: str,
    dtype: torch.dtype,
    rows: int,
    padding: list[int] | None = None,
    recent: int = 0,
    l1_bytes: int | None = LITTLE,
    group: int = 0,
    **more: Any,
) -> Plain:
    """group: for scheme klt: layers that its codebook joins; the model has two such groups if it is 2."""
    layers = 4 if group == 2 else LAYERS
    made = config(dtype=dtype, num_hidden_layers=layers)
    book = codebook(made, group) if group else None
    kind = CacheConfig(
        scheme=scheme,
        block_tokens=BLOCK,
        sinks=SINKS,
        recent=recent,
        l1_bytes=l1_bytes,
        codebook=book,
        **more,
    )
    mask = None
    if padding:
        mask = torch.ones(len(padding), 100)
        for row, count in enumerate(padding):
            mask[row, :count] = 0
    cache = SpecKVCache.for_model(made, kind, attention_mask=mask)
    each = max(1, group)
    shape = BlockShape(BLOCK, each * HEADS, HEAD_DIM, spec.DType.FP16)
    device = open_device("csim")
    loaded = None if book is None else LoadedCodebook(device, book)
    codec = Codec(device, shape, spec.Scheme[scheme.upper()], 0, loaded)
    kv = torch.empty(layers, 2, rows, HEADS, 0, HEAD_DIM, dtype=dtype)
    return Plain(cache, codec, kv, each)


def run(model: Plain, operations: list[Operation]) -> None:
    try:
        for name, argument in operations:
            getattr(model, name)(argument)
            assert model.cache.get_seq_length() == model.kv.shape[4]
        model.append(1)
        model.cache.reset()
        stats = model.cache.stats()
        assert (stats.tiers.blocks, stats.tiers.references, stats.exact_bytes) == (0, 0, 0)
    finally:
        model.cache.close()
        model.codec.device.close()


FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
PADDING = st.sampled_from([None, [0, 7, 30], [40, 40, 0]])
RECENT = st.sampled_from([0, 0, 5, 32])
L1 = st.sampled_from([LITTLE, None])


@FEW
@given(st.sampled_from(["raw", "int4"]), PADDING, RECENT, L1, st.lists(OPERATIONS, max_size=14))
@example("raw", [0, 7, 30], 0, LITTLE, [("reorder", [0])])
@example(
    "raw", [0, 7, 30], 0, None, [("reorder", [0]), ("append", 1), ("crop", 20), ("append", 40)]
)
def test_any_sequence(
    scheme: str,
    padding: list[int] | None,
    recent: int,
    l1_bytes: int | None,
    operations: list[Operation],
) -> None:
    run(plain(scheme, torch.float32, 3, padding, recent, l1_bytes), [("append", 60), *operations])


@FEW
@given(st.sampled_from([1, 2, 3]), PADDING, RECENT, L1, st.lists(OPERATIONS, max_size=14))
@example(2, [0, 7, 30], 0, LITTLE, [("crop", 20), ("append", 40), ("fork", None)])
@example(3, None, 5, None, [("repeat", 2), ("reset", 1), ("append", 60), ("crop_to", 33)])
def test_any_sequence_of_groups(
    group: int,
    padding: list[int] | None,
    recent: int,
    l1_bytes: int | None,
    operations: list[Operation],
) -> None:
    model = plain("klt", torch.float32, 3, padding, recent, l1_bytes, group)
    run(model, [("append", 60), *operations])


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(FEW, max_examples=300)
@given(
    st.sampled_from([1, 2, 3]),
    st.sampled_from([torch.float32, torch.float16]),
    PADDING,
    RECENT,
    L1,
    st.lists(OPERATIONS, max_size=40),
)
def test_any_long_sequence_of_groups(
    group: int,
    dtype: torch.dtype,
    padding: list[int] | None,
    recent: int,
    l1_bytes: int | None,
    operations: list[Operation],
) -> None:
    run(plain("klt", dtype, 3, padding, recent, l1_bytes, group), operations)


@pytest.mark.slow
@settings(FEW, max_examples=1000)
@given(
    st.sampled_from(["raw", "int4", "int8_delta_rle"]),
    st.sampled_from([torch.float32, torch.float16]),
    PADDING,
    RECENT,
    L1,
    st.lists(OPERATIONS, max_size=40),
)
def test_any_long_sequence(
    scheme: str,
    dtype: torch.dtype,
    padding: list[int] | None,
    recent: int,
    l1_bytes: int | None,
    operations: list[Operation],
) -> None:
    run(plain(scheme, dtype, 3, padding, recent, l1_bytes), operations)


@pytest.mark.parametrize("scheme", ["raw", "int4"])
@pytest.mark.parametrize("removed", [3, 16, 17, 31])
def test_a_hundred_crops(scheme: str, removed: int) -> None:
    """Nothing that a crop leaves ever changes, and memory follows the tokens, not the crops."""
    model = plain(scheme, torch.float16, 1)
    model.append(100)
    most = 0.0
    for _ in range(100):
        model.append(removed)
        model.crop(removed)
        stats = model.cache.stats()
        most = max(most, (stats.tiers.record_bytes + stats.exact_bytes) / stats.fp16_bytes)
    model.append(1)
    assert model.kv.shape[4] == 101
    assert most < 1.5
    model.cache.close()


def test_memory_stays_bounded_when_each_crop_leaves_a_token() -> None:
    model = plain("int4", torch.float16, 1)
    model.append(40)
    for _ in range(100):
        model.append(3 * BLOCK)
        model.crop(3 * BLOCK - 1)
    model.append(1)
    stats = model.cache.stats()
    assert stats.tokens == 141
    assert stats.tiers.record_bytes + stats.exact_bytes < 1.5 * stats.fp16_bytes
    model.cache.close()


def test_sinks_and_the_open_block_are_exact() -> None:
    model = plain("int4", torch.float32, 2, padding=[0, 21])
    exact = model.held(torch.randn(LAYERS, 2, 2, HEADS, 107, HEAD_DIM))
    for layer in range(LAYERS):
        model.cache.update(exact[layer, 0], exact[layer, 1], layer)
    for layer in range(LAYERS):
        one = torch.randn(2, HEADS, 1, HEAD_DIM)
        got = model.cache.update(one, one, layer)
        for kind in range(2):
            same = (got[kind][:, :, :107] == exact[layer, kind]).all(3).all(1)  # (rows, tokens)
            assert same[0].tolist() == [p < 4 or p >= 4 + 6 * BLOCK for p in range(107)]
            # Row 1: a block of padding, what is left of it with the sinks, blocks, the open run.
            assert same[1].tolist() == [16 <= p < 25 or p >= 25 + 5 * BLOCK for p in range(107)]
    model.cache.close()


def test_recent_tokens_stay_exact_though_they_fill_blocks() -> None:
    model = plain("int4", torch.float32, 1, recent=20)
    exact = model.held(torch.randn(LAYERS, 2, 1, HEADS, 104, HEAD_DIM))
    for layer in range(LAYERS):
        model.cache.update(exact[layer, 0], exact[layer, 1], layer)
    one = torch.randn(1, HEADS, 1, HEAD_DIM)
    for layer in range(LAYERS):
        got = model.cache.update(one, one, layer)
        for kind in range(2):
            same = (got[kind][:, :, :104] == exact[layer, kind]).all(3).all(1)[0]
            assert same.tolist() == [p < 4 or p >= 4 + 5 * BLOCK for p in range(104)]
    model.cache.close()


def test_layers_that_keep_their_tensors_fetch_a_block_once() -> None:
    model = plain("int4", torch.float16, 1, l1_bytes=None)
    model.append(100)
    for _ in range(20):
        model.append(1)
    tiers = model.cache.stats().tiers
    assert tiers.misses == tiers.blocks
    assert tiers.hits_l1 >= LAYERS * 19 * 6
    assert tiers.l1_bytes >= tiers.l1_blocks * 2 * BLOCK * HEADS * HEAD_DIM * 2
    model.cache.close()
