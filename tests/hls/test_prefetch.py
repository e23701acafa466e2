"""kv_prefetch equals the integer oracle in every candidate and every state."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq import spec
from speckv_pynq.address import pack_address
from speckv_pynq.predictor import Predictor
from speckv_pynq.reference.predictor import NOWHERE, History, State, step
from tests.hls.predictions import ADVANCE, Prefetch, listed
from tests.reference.predictors import random_predictor

# Vocabulary, classes, opened, always scored, spread: a class alone, classes without tokens, blocks filled up or not.
FORMS = [
    (300, 6, 2, None, 20.0),
    (16, 1, 1, 8, 40.0),
    (1000, 40, 8, 9, 20.0),
    (64, 60, 3, 33, 5.0),
    (2500, 3, 1, 1100, 127.0),
]


@functools.cache
def model_of(number: int) -> Predictor:
    vocabulary, classes, opened, always, spread = FORMS[number]
    model = random_predictor(vocabulary, classes, opened, number, spread, always)
    bonus = np.random.default_rng(number).integers(-16384, 32768, (8, 4))
    return dataclasses.replace(model, bonus=bonus.astype(np.int16))


@functools.cache
def echo() -> Predictor:
    """Predicts what followed before."""
    calm = random_predictor(seed=5, spread=1)
    return dataclasses.replace(calm, bonus=np.full((8, 4), 32767, np.int16))


@settings(deadline=None, max_examples=60)
@given(
    form=st.integers(0, len(FORMS) - 1),
    capacity=st.sampled_from([16, 32, 128]),
    alphabet=st.sampled_from([1, 2, 4, 12, 5000]),
    tokens=st.lists(st.integers(0, 1 << 30), min_size=1, max_size=70),
    top=st.integers(1, 8),
)
def test_candidates_and_state_are_those_of_the_oracle(
    form: int, capacity: int, alphabet: int, tokens: list[int], top: int
) -> None:
    model = model_of(form)
    kernel, state = Prefetch(model, capacity=capacity), State(History(capacity))
    for token in tokens:
        token %= min(alphabet, model.vocabulary)
        assert kernel.step(0, token, top) == step(model, state, token, top)
    assert kernel.is_state(0, state)


def test_equal_scores_go_by_token() -> None:
    flat = random_predictor(
        40, 3, 2, always=20, spread=0
    )  # rows differ, but what they meet is zero
    kernel, state = Prefetch(flat), State(History(16))
    for token in (3, 1, 3, 1, 2):
        got = kernel.step(0, token)
        assert got == step(flat, state, token)
    assert len({c.score for c in got}) < len(got)


def test_positions_go_on_behind_the_ring() -> None:
    model = echo()
    kernel, state = Prefetch(model, capacity=16), State(History(16))
    tokens = np.random.default_rng(1).integers(0, 5, 200).tolist()
    for token in tokens:
        got = kernel.step(0, token)
        assert got == step(model, state, token)
    known = [c.position for c in got if c.position != NOWHERE]
    assert known
    assert min(known) >= len(tokens) - 16


def test_addresses_are_those_of_the_positions() -> None:
    kernel = Prefetch(echo())
    for token in (5, 6, 7, 5, 6):
        kernel.step(0, token)
    kernel.call(kernel.describe(0, 7, req_id=0xDEADBEEF, layer=79, head=7, kind=1))
    row = kernel.candidates[0]
    for candidate, found in zip(listed(row), row, strict=True):
        words = int(found["address_high"]), int(found["address_low"])
        known = candidate.position != NOWHERE
        assert bool(found["flags"] & spec.CandidateFlag.KNOWN) == known
        want = pack_address(0xDEADBEEF, 79, 7, candidate.position, 1) if known else (0, 0)
        assert words == want
    assert (row["flags"] != 0).any()


def test_taking_in_a_prompt_is_the_same_as_stepping() -> None:
    model, tokens = model_of(0), np.random.default_rng(2).integers(0, 9, 80)
    stepped, taken = Prefetch(model, capacity=32), Prefetch(model, capacity=32)
    for token in tokens:
        stepped.step(0, int(token))
    status, done = taken.call(taken.describe(0, tokens, flags=ADVANCE, result=1 << 30))
    assert status == 0
    assert not done.view(np.uint8).any()
    assert (taken.candidates.view(np.uint8) == 0xA5).all()
    assert taken.states.tobytes() == stepped.states.tobytes()


def test_sequences_of_a_batch_do_not_meet() -> None:
    model, rng = model_of(2), np.random.default_rng(3)
    batch, states = Prefetch(model, sequences=3), [State(History(16)) for _ in range(3)]
    for _ in range(12):
        sequences = rng.integers(0, 3, 5)  # some twice: in order
        tokens = rng.integers(0, 7, 5)
        status, done = batch.call(batch.describe(sequences, tokens))
        assert status == 0
        assert not done["status"].any()
        for i, (sequence, token) in enumerate(zip(sequences, tokens, strict=True)):
            want = step(model, states[sequence], int(token))
            assert listed(batch.candidates[i]) == want
    assert all(batch.is_state(i, state) for i, state in enumerate(states))


STATUS = spec.Status
REFUSED = {
    "token outside": ({"token": 300}, STATUS.BAD_TOKEN, 300, 299),
    "another predictor": ({"fingerprint": 5}, STATUS.PREDICTOR_MISMATCH, 5, None),
    "no candidates": ({"top": 0}, STATUS.BAD_SHAPE, 0, 8),
    "too many candidates": ({"top": 9}, STATUS.BAD_SHAPE, 9, 8),
    "kind": ({"kind": 2}, STATUS.BAD_SHAPE, 2, 1),
    "capacity odd": ({"capacity": 24}, STATUS.BAD_SHAPE, 24, 16),
    "capacity small": ({"capacity": 8}, STATUS.BAD_SHAPE, 8, 16),
    "capacity other": ({"capacity": 32}, STATUS.OUT_OF_RANGE, 0, 0),
    "unknown flag": ({"flags": 2}, STATUS.BAD_FLAGS, 2, 1),
    "reserved": ({"reserved0": 7}, STATUS.BAD_FLAGS, 1, 0),
    "state between lines": ({"state_offset": 32}, STATUS.MISALIGNED, 32, 64),
    "state beyond": ({"state_offset": 64}, STATUS.OUT_OF_RANGE, 64, 0),
    "state far beyond": ({"state_offset": 2**64 - 64}, STATUS.OUT_OF_RANGE, 2**32 - 64, 0),
    "result beyond": ({"result": 1}, STATUS.OUT_OF_RANGE, 256, 0),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_changes_nothing(case: str) -> None:
    fields, status, value, limit = REFUSED[case]
    kernel = Prefetch(model_of(0))
    kernel.step(0, 3)
    before = kernel.states.tobytes()
    got, done = kernel.call(kernel.describe(0, 4, **fields))
    assert got == 0
    assert STATUS(int(done["status"][0])) == status
    assert int(done["value"][0]) == value
    assert limit is None or int(done["limit"][0]) == limit
    assert done["record_bytes"][0] == 0
    assert kernel.states.tobytes() == before
    assert (kernel.candidates.view(np.uint8) == 0xA5).all()


def test_a_state_belongs_to_its_predictor_and_capacity() -> None:
    first, other = model_of(0), random_predictor(seed=9)
    kernel = Prefetch(first, capacity=32)
    kernel.step(0, 3)
    strange = Prefetch(other, capacity=32)
    strange.states[:] = kernel.states
    before = strange.states.tobytes()
    _, done = strange.call(strange.describe(0, 3))
    assert STATUS(int(done["status"][0])) == STATUS.BAD_STATE
    _, done = kernel.call(kernel.describe(0, 3, capacity=16))
    assert STATUS(int(done["status"][0])) == STATUS.BAD_STATE
    assert kernel.states.tobytes() == strange.states.tobytes() == before


def test_a_refused_step_does_not_stop_the_others() -> None:
    model = model_of(0)
    kernel, state = Prefetch(model), State(History(16))
    table = kernel.describe(0, [1, 300, 2, 3])
    table["state_offset"][2] = 1 << 40
    status, done = kernel.call(table)
    assert status == 0
    assert done["status"].tolist() == [0, STATUS.BAD_TOKEN, STATUS.OUT_OF_RANGE, 0]
    step(model, state, 1)
    assert listed(kernel.candidates[3]) == step(model, state, 3)


def test_another_contract_is_refused_as_a_whole() -> None:
    kernel = Prefetch(model_of(0))
    status, done = kernel.call(kernel.describe(0, [1, 2]), abi_id=1)
    assert status == STATUS.ABI_MISMATCH
    assert (done["status"] == STATUS.ABI_MISMATCH).all()
    assert not kernel.states.any()


@settings(deadline=None, max_examples=150)
@given(
    where=st.sampled_from(["header", "image", "state"]),
    hits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
)
def test_damage_is_refused_or_harmless(where: str, hits: list[tuple[float, int]]) -> None:
    """What is refused changes nothing; the fuzz harness looks for accesses outside, under a sanitizer."""
    kernel = Prefetch(model_of(3))
    for token in (1, 2, 1, 2, 3):
        kernel.step(0, token)
    hit = {"header": kernel.image[:64], "image": kernel.image, "state": kernel.states}[where]
    for at, value in hits:
        hit[int(at * len(hit))] = value
    before = kernel.states.tobytes()
    status, done = kernel.call(kernel.describe(0, 2))
    assert status == 0
    if done["status"][0]:
        assert kernel.states.tobytes() == before
        assert (kernel.candidates.view(np.uint8) == 0xA5).all()
    else:
        assert int(done["record_bytes"][0]) == 8 * spec.CANDIDATE.itemsize
