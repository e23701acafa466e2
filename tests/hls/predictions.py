"""kv_prefetch at its C border: states of sequences, steps, and what the oracle says."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from speckv_pynq import spec
from speckv_pynq.device import library
from speckv_pynq.predictor import Predictor
from speckv_pynq.predictor.image import image_of, state_bytes
from speckv_pynq.predictor.model import HIDDEN, RANK
from speckv_pynq.reference.predictor import Candidate, State

ADVANCE = int(spec.PredictionFlag.ADVANCE_ONLY)


def aligned(nbytes: int, data: bytes = b"") -> np.ndarray:
    """(nbytes,) uint8 on a line: `data`, then zeros."""
    memory = np.zeros(nbytes + spec.LINE_BYTES, np.uint8)
    start = -memory.ctypes.data % spec.LINE_BYTES
    memory[start : start + len(data)] = np.frombuffer(data, np.uint8)
    return memory[start : start + nbytes]


class Prefetch:
    """Sequences of one predictor in a build of the library; public arrays may be damaged."""

    def __init__(
        self, model: Predictor, sequences: int = 1, capacity: int = 16, path: Path | None = None
    ) -> None:
        self.model, self.capacity = model, capacity
        self.kernel = ctypes.CDLL(str(path or library.find())).speckv_csim_kv_prefetch
        pointer, u64 = ctypes.c_void_p, ctypes.c_uint64
        buffers = [pointer, u64] * 3
        self.kernel.argtypes = [*buffers, pointer, pointer, ctypes.c_uint32, u64]
        image = image_of(model)
        self.image = aligned(len(image), image)
        self.each = state_bytes(capacity, model.vocabulary)
        self.states = aligned(sequences * self.each)
        self.candidates = np.zeros((0, spec.PREDICTOR_TOP), spec.CANDIDATE)

    def describe(self, sequences: object, tokens: object, **fields: object) -> np.ndarray:
        """(n,) spec.PREDICTION: a step of each sequence; `fields` override."""
        tokens = np.atleast_1d(tokens)
        table = np.zeros(len(tokens), spec.PREDICTION)
        table["state_offset"] = np.asarray(sequences) * self.each
        table["fingerprint"] = self.model.fingerprint
        table["token"], table["capacity"] = tokens, self.capacity
        table["result"], table["top"] = np.arange(len(tokens)), spec.PREDICTOR_TOP
        for name, value in fields.items():
            table[name] = value
        return table

    def call(self, table: np.ndarray, abi_id: int = spec.ABI_ID) -> tuple[int, np.ndarray]:
        """-> (status of the call, completions); the candidates are in `candidates`, (n, 8)."""
        done = np.zeros(len(table), spec.COMPLETION)
        self.candidates = np.zeros((len(table), spec.PREDICTOR_TOP), spec.CANDIDATE)
        self.candidates.view(np.uint8)[:] = 0xA5
        status = self.kernel(
            *(self.image.ctypes.data, self.image.nbytes),
            *(self.states.ctypes.data, self.states.nbytes),
            *(self.candidates.ctypes.data, self.candidates.nbytes),
            *(table.ctypes.data, done.ctypes.data, len(table), abi_id),
        )
        return status, done

    def step(self, sequence: int, token: int, top: int = spec.PREDICTOR_TOP) -> list[Candidate]:
        status, done = self.call(self.describe(sequence, token, top=top))
        assert (status, int(done["status"][0])) == (0, 0)
        assert int(done["record_bytes"][0]) == top * spec.CANDIDATE.itemsize
        assert not self.candidates[0, top:].view(np.uint8).any()
        return listed(self.candidates[0, :top])

    def is_state(self, sequence: int, state: State) -> bool:
        """Whether c, p and the newest tokens are those of the oracle."""
        raw = self.states[sequence * self.each :][: self.each]
        c, p, ring = np.split(raw[64:], [4 * HIDDEN, 4 * HIDDEN + 2 * RANK])
        c, p, ring = (
            c.view(np.int16),
            p.view(np.int8),
            ring[: 8 * self.capacity].view(np.uint32)[::2],
        )
        tokens = state.history.tokens
        newest = range(max(0, len(tokens) - self.capacity), len(tokens))
        return (
            (c.reshape(2, -1) == state.c).all()
            and (p.reshape(2, -1) == state.p).all()
            and all(ring[i % self.capacity] == tokens[i] for i in newest)
        )


def listed(candidates: np.ndarray) -> list[Candidate]:
    scores = candidates["score"].astype(np.uint32).view(np.int32)
    columns = [
        candidates["token"],
        scores,
        *(candidates[n] for n in ("position", "match", "count")),
    ]
    return [Candidate(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]
