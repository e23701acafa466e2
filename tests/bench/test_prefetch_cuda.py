"""The GPU measurement's logic on the CPU, over a lane whose copies end when a test lets them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

torch = pytest.importorskip("torch")

from speckv_pynq.bench import prefetch_cuda  # noqa: E402
from speckv_pynq.bench.prefetch_decoder import Decoder, ModelSize  # noqa: E402
from speckv_pynq.bench.prefetch_ring import Ring  # noqa: E402
from speckv_pynq.errors import ConfigError, DependencyMissing  # noqa: E402

pytestmark = pytest.mark.requires("torch")
CPU = torch.device("cpu")
SIZE = ModelSize(layers=4, hidden=64, heads=4, kv_heads=2, head_dim=8, mlp=96, vocabulary=80)
TOKENS = 16 * prefetch_cuda.BLOCK_TOKENS  # 4 blocks of a layer in L1, 12 streamed


@dataclass
class SlowLane:
    """At each instant that somebody looks, `rate` more copies have ended; one that is needed ends at once.

    Events are numbers: of copies, and, negative, of marks.
    """

    rate: int
    waiting: dict[int, tuple] = field(default_factory=dict)
    begun: int = 0
    marks: int = 0
    needed_late: int = 0

    def copy(self, target, source, after) -> int:
        assert after is None or 0 > after >= -self.marks, "a copy into slots that nobody has read"
        assert target.shape == source.shape
        self.begun += 1
        target.fill_(float("nan"))  # what it held is gone from now on
        self.waiting[self.begun] = (target, source)
        return self.begun

    def mark(self) -> int:
        self.marks += 1
        return -self.marks

    def need(self, event: int) -> None:
        self.needed_late += event in self.waiting
        self._end([number for number in self.waiting if number <= event])

    def done(self, event: int) -> bool:
        return event not in self.waiting

    def pass_time(self) -> None:
        self._end(list(self.waiting)[: self.rate])

    def _end(self, numbers) -> None:
        for number in numbers:
            target, source = self.waiting.pop(number)
            target.copy_(source)


def ring_of(lane: SlowLane, monkeypatch: pytest.MonkeyPatch, blocks_a_copy: int = 5) -> tuple:
    source = prefetch_cuda.host_blocks(SIZE, TOKENS, CPU)
    monkeypatch.setattr(
        "speckv_pynq.bench.prefetch_ring.COPY_BYTES", blocks_a_copy * source[0, 0].nbytes
    )
    return source, Ring(source, 4, 20, lane, CPU)


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("blocks_a_copy", [1, 5, 100])
def test_every_layer_reads_what_l3_holds_and_each_block_comes_once_a_step(
    ahead: bool, blocks_a_copy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = SlowLane(rate=1)
    source, ring = ring_of(lane, monkeypatch, blocks_a_copy)
    kv = torch.empty(2, SIZE.kv_heads, TOKENS, SIZE.head_dim, dtype=torch.float16)
    for step in range(1, 6):
        for layer in range(SIZE.layers):
            lane.pass_time()
            ring.get(layer, kv)
            assert torch.equal(kv, source[layer].permute(1, 2, 0, 3, 4).flatten(2, 3))
            if ahead:
                ring.feed()
        assert ring.read == step * SIZE.layers * ring.streamed
        assert 0 <= ring.copied - ring.read <= len(ring.l2)
        assert ahead or ring.copied == ring.read


def test_a_fast_link_is_on_time_and_a_slow_one_is_seen_to_be_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = {}
    for rate in (100, 1):
        lane = SlowLane(rate)
        source, ring = ring_of(lane, monkeypatch, blocks_a_copy=2)
        decoder = Decoder(SIZE, TOKENS, CPU)
        counts = prefetch_cuda.Counts([])
        with torch.inference_mode():
            prefetch_cuda.run(decoder, ring, 3, ahead=True, reach=lane.pass_time, into=counts)
            assert prefetch_cuda.check(ring, decoder, source)
        seen[rate] = counts.on_time / counts.asked
        assert counts.asked == 3 * SIZE.layers * 16
        assert counts.read == 3 * SIZE.layers * 12
    assert seen[100] == 1.0
    assert 0.25 <= seen[1] < 0.9  # L1's quarter is always there


def test_demand_finds_only_l1(monkeypatch: pytest.MonkeyPatch) -> None:
    lane = SlowLane(rate=100)
    _, ring = ring_of(lane, monkeypatch)
    counts = prefetch_cuda.Counts([])
    decoder = Decoder(SIZE, TOKENS, CPU)
    with torch.inference_mode():
        prefetch_cuda.run(decoder, ring, 2, ahead=False, reach=lane.pass_time, into=counts)
    assert counts.on_time / counts.asked == 0.25
    assert counts.copied == counts.read
    assert torch.isfinite(decoder.x).all()


def test_a_ring_takes_a_layer() -> None:
    with pytest.raises(ConfigError, match="slots 11 < 12"):
        Ring(prefetch_cuda.host_blocks(SIZE, TOKENS, CPU), 4, 11, SlowLane(1), CPU)


def test_the_length_leaves_the_link_its_margin() -> None:
    size = ModelSize()
    tokens = prefetch_cuda.fitting_tokens(size, 50e9, 4e-3)
    streamed = tokens * size.token_bytes * 0.75
    assert 50e9 * 4e-3 / streamed >= prefetch_cuda.MARGIN
    assert 50e9 * 4e-3 / (streamed + 128 * size.token_bytes * 0.75) < prefetch_cuda.MARGIN


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is one")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(DependencyMissing, match="CUDA device"):
        prefetch_cuda.measure(1, 1)


@pytest.mark.gpu
def test_on_a_gpu_what_is_read_is_what_l3_holds() -> None:
    found = prefetch_cuda.measure(1, 3)
    assert found.exact
    assert found.on_time > 0.25
