"""Real cache blocks for tests: python tests/data/make_smollm2_blocks.py writes smollm2_blocks.npz.

SmolLM2-135M-Instruct reads English prose (speckv_pynq.integrations.smollm2); from six layers one block
of 32 tokens is kept. Arrays: layers (6,), key and value (6, 32, 3, 64) float16: (tokens, KV heads,
head_dim), keys after RoPE, as a cache holds them. The file is checked in; numbers that depend on the
machine's floating-point order make it differ a little when it is made again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from speckv_pynq.integrations.smollm2 import load_smollm2, python_prose

OUTPUT = Path(__file__).parent / "smollm2_blocks.npz"
LAYERS = (0, 1, 8, 15, 22, 29)
FIRST, TOKENS = 448, 32


def main() -> None:
    model, tokenizer = load_smollm2()
    ids = tokenizer(python_prose(20_000), return_tensors="pt").input_ids[:, : FIRST + TOKENS]
    with torch.inference_mode():
        cache = model(ids, use_cache=True).past_key_values
    kinds = {"key": [], "value": []}
    for layer in LAYERS:
        held = cache.layers[layer]
        for name, states in (("key", held.keys), ("value", held.values)):
            block = states[0, :, FIRST : FIRST + TOKENS].transpose(0, 1)  # tokens, heads, head_dim
            kinds[name].append(block.to(torch.float16).numpy())
    arrays = {name: np.stack(blocks) for name, blocks in kinds.items()}
    np.savez_compressed(OUTPUT, layers=np.array(LAYERS), **arrays)
    print(f"{OUTPUT}: {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
