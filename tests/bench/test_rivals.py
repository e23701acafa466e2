"""Rivals code what SpecKV would code, lose what their formula loses, and count what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from speckv_pynq.bench.rivals import BlockLayer, kivi, rival  # noqa: E402
from speckv_pynq.errors import DependencyMissing  # noqa: E402
from speckv_pynq.integrations._forward import forward  # noqa: E402
from speckv_pynq.integrations._layout import Layout  # noqa: E402

HEADS, HEAD_DIM = 2, 64


@dataclass(frozen=True)
class Cut:
    sinks: int = 4
    recent: int = 32
    block_tokens: int = 32


def block(seed=0, tokens=32, dtype=torch.float32):
    made = torch.Generator().manual_seed(seed)
    return torch.randn(1, HEADS, 1, tokens, HEAD_DIM, generator=made).to(dtype)


@given(
    st.lists(st.integers(1, 90), min_size=1, max_size=6),
    st.builds(Cut, st.integers(0, 5), st.sampled_from([0, 7, 32]), st.sampled_from([16, 32])),
)
@settings(max_examples=40)
def test_a_block_layer_codes_what_speckv_codes_and_reads_it_only_afterwards(appends, cut):
    layer = BlockLayer(cut, lambda k, v: (torch.zeros_like(k), torch.zeros_like(v), 7))
    layout = Layout.empty(1, cut.block_tokens, cut.sinks, cut.recent)
    for tokens in appends:
        before = set(layout.block_starts.tolist())
        keys, _ = layer.update(*torch.ones(2, 1, 1, tokens, 2))
        layout = layout.append(tokens).after
        starts = layout.block_starts.tolist()
        want = torch.ones(layout.length)
        for start in before:
            want[start : start + cut.block_tokens] = 0
        assert keys[0, 0, :, 0].tolist() == want.tolist()
        for start in starts:
            want[start : start + cut.block_tokens] = 0
        assert layer.keys[0, 0, :, 0].tolist() == want.tolist()
        assert layer.blocks == len(starts)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_kivi_is_within_half_a_step_and_takes_a_bit_more(bits, dtype):
    keys, values = block(1, dtype=dtype), block(2, dtype=dtype)
    *decoded, nbytes = kivi(bits)(keys, values)
    assert nbytes * 8 == (bits + 1) * (keys.numel() + values.numel())
    for x, got, dim in ((keys, decoded[0], 3), (values.unflatten(4, (2, 32)), decoded[1], 5)):
        assert got.dtype == dtype
        exact, near = x.float(), got.float().reshape(x.shape)
        span = exact.amax(dim, keepdim=True) - exact.amin(dim, keepdim=True)
        step = span / (2**bits - 1)
        assert bool(((near - exact).abs() <= 0.5 * step + 0.02 * span).all())
        levels = torch.movedim(near, dim, -1).reshape(-1, 32)
        assert max(len(row.unique()) for row in levels) <= 2**bits


def test_kivi_keeps_what_its_levels_are():
    grid = torch.arange(32).remainder(16).float()
    keys = grid[:, None].expand(1, HEADS, 1, 32, HEAD_DIM)
    values = grid.repeat(2).expand(1, HEADS, 1, 32, HEAD_DIM)
    got_keys, got_values, _ = kivi(4)(keys, values)
    assert torch.equal(got_keys, keys)
    assert torch.equal(got_values, values)


def test_kivi_of_equal_values():
    keys = torch.full((1, HEADS, 1, 32, HEAD_DIM), 3.0)
    got, _, _ = kivi(2)(keys, keys)
    assert torch.equal(got, keys)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_zstd_is_exact(dtype):
    pytest.importorskip("zstandard")
    keys, values = block(3, dtype=dtype), torch.zeros_like(block(dtype=dtype))
    coding = rival("zstd", Cut()).coding
    got_keys, got_values, nbytes = coding(keys, values)
    assert torch.equal(got_keys, keys)
    assert torch.equal(got_values, values)
    assert 0 < nbytes < 2 * (keys.numel() + values.numel())


def test_sizes_count_every_token_once():
    cut = Cut()
    layer = BlockLayer(cut, kivi(4))
    states = torch.randn(2, 3, HEADS, 4 + 32 + 70, HEAD_DIM)
    layer.update(*states)
    sizes = layer.sizes()
    assert (sizes.blocks, sizes.fp16) == (3 * 2, 2 * states.numel())
    assert sizes.block_fp16 == 2 * 2 * 3 * HEADS * 64 * HEAD_DIM
    assert sizes.records * 16 == sizes.block_fp16 * 5
    assert sizes.held == sizes.records + sizes.fp16 - sizes.block_fp16


@pytest.mark.parametrize("name", ["quanto-int4", "hqq-int2"])
def test_a_backend_of_quantized_cache(name):
    """Its own layer says how many tokens it has coded; where it is not installed the reason says what to do."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=64,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=64,
        num_hidden_layers=1,
        intermediate_size=64,
        vocab_size=32,
    )
    model, quantized = LlamaForCausalLM(config).eval(), rival(name, Cut())
    if not find_spec({"quanto": "optimum", "hqq": "hqq"}[quantized.backend]):
        with (
            pytest.raises(DependencyMissing, match=r"speckv-pynq\[rivals\]"),
            quantized.open(model),
        ):
            pass
        return
    with torch.inference_mode(), quantized.open(model) as cache:
        for _ in range(4):
            forward(model, torch.zeros(1, 52, dtype=torch.int64), cache)
        sizes = quantized.sizes(cache)
    values = 2 * 208 * 64
    assert sizes.fp16 == 2 * values
    assert (
        sizes.block_fp16 == 2 * values
    )  # 52 at first, then 52 + 52 + 52 exact ones make it code all anew
    assert sizes.records * 8 == values * quantized.bits + 2 * 16 * values // 64
