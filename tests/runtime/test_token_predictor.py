"""TokenPredictor: sequences by request, batches, refusals, memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq import spec
from speckv_pynq.address import unpack_address
from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.errors import ConfigError, DeviceBufferError, DeviceError, PoolFull, PredictorError
from speckv_pynq.prefetch.tokens import MAX_BATCH, Candidates, TokenPredictor
from speckv_pynq.reference.predictor import Candidate, History, State, step
from tests.reference.predictors import random_predictor

MODEL = replace(random_predictor(seed=5, spread=3), bonus=np.full((8, 4), 12000, np.int16))
CAPACITY = 32


@pytest.fixture(scope="module")
def device() -> Iterator[CsimDevice]:
    with CsimDevice(1) as opened:
        yield opened


def listed(found: Candidates, row: int) -> list[Candidate]:
    columns = found.token, found.score, found.position, found.match, found.count
    return [Candidate(*one) for one in zip(*(c[row].tolist() for c in columns), strict=True)]


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_any_order_of_calls_gives_what_the_oracle_gives(
    device: CsimDevice, data: st.DataObject
) -> None:
    """Open, extend, step and close at random; a slot that was used before begins anew."""
    oracle: dict[int, State] = {}
    with TokenPredictor(device, MODEL, CAPACITY, max_sequences=3) as predictor:
        for _ in range(data.draw(st.integers(1, 12))):
            what = data.draw(st.sampled_from(["open", "extend", "step", "step", "close"]))
            requests = st.sampled_from(sorted(oracle) or [None])
            if what == "open" and len(oracle) < 3:
                request = data.draw(st.integers(0, 99).filter(lambda r: r not in oracle))
                predictor.open(request)
                oracle[request] = State(History(CAPACITY))
            elif what == "extend" and oracle:
                request = data.draw(requests)
                tokens = data.draw(st.lists(st.integers(0, 6), max_size=40))
                predictor.extend(request, tokens)
                for token in tokens:
                    step(MODEL, oracle[request], token)
            elif what == "step" and oracle:
                chosen = data.draw(st.lists(requests, min_size=1, max_size=4))
                tokens = data.draw(
                    st.lists(st.integers(0, 6), min_size=len(chosen), max_size=len(chosen))
                )
                top = data.draw(st.integers(1, 8))
                found = predictor.step(chosen, np.array(tokens, np.int64), top)
                for row, (request, token) in enumerate(zip(chosen, tokens, strict=True)):
                    assert listed(found, row) == step(MODEL, oracle[request], token, top)
            elif what == "close" and oracle:
                request = data.draw(requests)
                predictor.close(request)
                del oracle[request]
            assert predictor.sequences == len(oracle)


def test_addresses_name_the_request_and_the_position(device: CsimDevice) -> None:
    with TokenPredictor(device, MODEL, CAPACITY) as predictor:
        predictor.open(77)
        predictor.extend(77, [1, 2, 3, 1, 2])
        found = predictor.step(77, 3, layer=5, head=2, kind=1)
        assert found.known.any()
        for row in found.table[0][found.known[0]]:
            address = unpack_address(int(row["address_high"]), int(row["address_low"]))
            assert address == (77, 5, 2, int(row["position"]), 1)


def test_what_is_refused_changes_nothing(device: CsimDevice) -> None:
    with TokenPredictor(device, MODEL, CAPACITY, max_sequences=2) as predictor:
        predictor.open(1)
        predictor.extend(1, [4, 5, 4])
        for refused in (
            lambda: predictor.step([1, 1], [4, 300]),
            lambda: predictor.step([1, 9], [4, 4]),
            lambda: predictor.step([1, 1], [4]),
            lambda: predictor.step(1, 4, top=9),
            lambda: predictor.extend(1, [4, -1]),
            lambda: predictor.extend(1, [0.5]),
            lambda: predictor.extend(9, [4]),
            lambda: predictor.open(1),
            lambda: predictor.close(9),
        ):
            with pytest.raises(PredictorError):
                refused()
        with pytest.raises(ConfigError, match="layer 65536"):
            predictor.step(1, 4, layer=1 << 16)
        with pytest.raises(ConfigError, match="req_id -1"):
            predictor.open(-1)
        state = State(History(CAPACITY))
        for token in (4, 5, 4):
            step(MODEL, state, token)
        assert listed(predictor.step(1, 5), 0) == step(MODEL, state, 5)


def test_a_full_predictor_says_so_and_goes_on(device: CsimDevice) -> None:
    with TokenPredictor(device, MODEL, CAPACITY, max_sequences=2) as predictor:
        predictor.open(1)
        predictor.open(2)
        with pytest.raises(PoolFull, match="2 sequences of 2"):
            predictor.open(3)
        predictor.close(1)
        predictor.open(3)
        with pytest.raises(PredictorError, match="request 1 is not open"):
            predictor.step(1, 0)


def test_batches_longer_than_a_call(device: CsimDevice) -> None:
    tokens = np.arange(MAX_BATCH + 5) % 9
    with TokenPredictor(device, MODEL, CAPACITY, max_sequences=2) as predictor:
        predictor.open(1)
        predictor.open(2)
        predictor.extend(1, tokens)
        found = predictor.step([2] * len(tokens), tokens)
        assert listed(predictor.step(2, 3), 0) == listed(predictor.step(1, 3), 0)
        newest = found.position[-1][found.known[-1]]
        assert newest.min() > len(tokens) - CAPACITY


def test_memory_is_counted_and_given_back(device: CsimDevice) -> None:
    before = device.live_bytes
    predictor = TokenPredictor(device, MODEL, 64, max_sequences=5)
    assert device.live_bytes - before == predictor.nbytes
    lines = 1 + 10 + 64 * 8 // 64 + -(-MODEL.vocabulary * 4 // 64)
    assert predictor.state_bytes == lines * spec.LINE_BYTES
    predictor.close()
    predictor.close()
    assert device.live_bytes == before
    with pytest.raises(PoolFull):
        predictor.open(1)


def test_settings_outside_their_range(device: CsimDevice) -> None:
    for capacity in (0, 8, 24, 2 * spec.PREDICTOR_MAX_CAPACITY):
        with pytest.raises(PredictorError, match=f"capacity {capacity}"):
            TokenPredictor(device, MODEL, capacity)
    with pytest.raises(ConfigError, match="max_sequences 0"):
        TokenPredictor(device, MODEL, CAPACITY, max_sequences=0)


def test_a_damaged_state_is_an_error_that_names_it(device: CsimDevice) -> None:
    with TokenPredictor(device, MODEL, CAPACITY, max_sequences=1) as predictor:
        predictor.open(1)
        predictor.extend(1, [1, 2])
        predictor._states.array[:8] = 9
        with pytest.raises(PredictorError, match="bad_state"):
            predictor.step(1, 3)


def test_tables_and_memory_of_a_call_are_checked(device: CsimDevice) -> None:
    with TokenPredictor(device, MODEL, CAPACITY) as predictor, device.allocate(64) as small:
        image, states, *_, candidates = predictor._buffers
        with pytest.raises(DeviceBufferError, match="2 descriptors"):
            device.predict(image, states, small, small, candidates, 2)
        with pytest.raises(DeviceBufferError, match="-1 descriptors"):
            device.predict(image, states, small, small, candidates, -1)


def test_a_device_without_the_kernel_is_refused() -> None:
    class Other:
        name = "other"

    with pytest.raises(DeviceError, match="device other has no kernel"):
        TokenPredictor(Other(), MODEL)  # type: ignore[arg-type]
