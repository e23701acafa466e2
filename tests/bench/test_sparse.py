"""Replay of sparse attention on traces: against a dense softmax, the product's ranker, and known cases."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from speckv_pynq.bench import sparse, sparse_fit, sparse_guesses, sparse_waste  # noqa: E402
from speckv_pynq.bench.attention_traces import AttentionTrace, record  # noqa: E402
from speckv_pynq.bench.sparse_replay import points, prepare, replay  # noqa: E402
from speckv_pynq.prefetch.ranking import DEFAULT, Ranker  # noqa: E402

pytestmark = pytest.mark.requires("libspeckv")
STEPS, TOKENS, LAYERS = 12, 200, 2


@pytest.fixture(scope="module")
def trace() -> AttentionTrace:
    rng = np.random.default_rng(0)
    return AttentionTrace(
        rng.integers(0, 20, TOKENS),
        rng.normal(0, 2, (LAYERS, STEPS, 4, 8)).astype(np.float16),
        rng.normal(0, 1, (LAYERS, 2, TOKENS, 8)).astype(np.float16),
        0.5,
    )


def test_recorded_attention_is_the_models():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2,
        vocab_size=50, initializer_range=0.3,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    tokens = torch.randint(0, 50, (70,))
    found = record(model, tokens, 10)
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        weights = model(tokens[None], output_attentions=True).attentions
    for layer in range(2):
        want = weights[layer][0, :, -10:].transpose(0, 1).numpy()
        want = np.add.reduceat(want, np.arange(0, 70, 16), axis=2)
        np.testing.assert_allclose(found.mass(layer, 16), want, atol=5e-3)  # keys are fp16


def test_replay_chooses_as_a_ranker_does(trace):
    scene = prepare([trace])
    pointing = points(scene, sparse.known)
    run = replay(scene, 0.4, DEFAULT, pointing)
    ranker = Ranker(LAYERS, 1, 2, 8, scale=trace.scale)
    for step in range(STEPS):
        at = trace.first + step
        candidates = sparse.known(trace.tokens[None, : at + 1])
        for layer in range(LAYERS):
            begin = 0 if step == 0 else at
            ranker.extend(layer, trace.keys[layer, None, :, begin : at + 1].astype(np.float32))
            budget = scene.budget(step, 0.4) if step else scene.blocks(0)
            query = trace.queries[layer, None, step].astype(np.float32)
            read = ranker.choose(layer, query, budget, candidates)
            np.testing.assert_array_equal(read[0], run.chosen[step][layer])
            mass = scene.mass[step, layer][:, read[0]].astype(np.float32)
            ranker.observe(layer, read, (mass / mass.sum(1, keepdims=True)).mean(0)[None])


def test_nothing_holds_more_than_the_oracle_and_all_blocks_hold_all(trace):
    scene = prepare([trace])
    pointing = points(scene, sparse.known)
    held = sparse.masses(scene, 0.4, pointing)
    assert max(held, key=held.__getitem__) == "oracle"
    assert replay(scene, 1.0, DEFAULT, pointing).mean == pytest.approx(1, abs=2e-3)  # fp16 masses


def test_waste_counts_every_fetch_once(trace):
    scene = prepare([trace])
    pointing = points(scene, sparse.known)
    found = sparse_waste.waste(scene, 0.4, pointing, {"copy": sparse_guesses.copy})
    assert [figures.ahead for figures in found] == [*sparse_waste.FETCHED, sparse_waste.AHEAD]
    assert found[0].wasted == 0  # nothing is fetched ahead
    for figures in found:
        assert 0 <= figures.wasted <= 1
        assert 0 <= figures.in_time <= 1


def test_copy_repeats_what_came_after_the_longest_match():
    ids, shares = sparse_guesses.copy(np.array([[7, 1, 2, 3, 9, 2, 4, 1, 2]]))
    assert ids[0].tolist() == [3, 4, -1, -1]
    assert shares.shape == ids.shape


def test_fit_gains_on_what_it_is_fitted_on(trace):
    scene = prepare([trace])
    pointing = points(scene, sparse.known)
    start = sparse.ALONE["position"]
    fitted = sparse_fit.fit([(scene, pointing)], start)
    assert sum(replay(scene, share, fitted, pointing).mean for share in sparse.SHARES) > sum(
        replay(scene, share, start, pointing).mean for share in sparse.SHARES
    )


def test_a_trained_predictor_guesses_as_its_oracle(tmp_path):
    from speckv_pynq.reference.predictor import History, State, step
    from tests.reference.predictors import random_predictor

    pytest.importorskip("safetensors")
    predictor = random_predictor(seed=1)
    predictor.save(tmp_path / "p.safetensors")
    tokens = np.random.default_rng(0).integers(0, predictor.vocabulary, (2, 12))
    guess = sparse_guesses.trained(tmp_path / "p.safetensors", tokens, 6)
    for row in range(2):
        state = State(History(16))
        for n, token in enumerate(tokens[row].tolist()):
            want = [found.token for found in step(predictor, state, token, 4)]
            if n >= 6:
                ids, shares = guess(tokens[:, : n + 1])
                assert ids[row].tolist() == want
                assert shares[row].sum() == pytest.approx(1)
