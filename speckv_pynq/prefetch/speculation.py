"""Algorithm 1 of the seed: predicted tokens, where they stood before, and so which blocks to bring up."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from speckv_pynq.closing import Closing
from speckv_pynq.device.protocol import Device
from speckv_pynq.errors import PoolFull
from speckv_pynq.predictor import Predictor
from speckv_pynq.prefetch.tokens import TokenPredictor


@dataclass
class _Followed:
    """A request that the predictor follows. first: the sequence's position of the first token that it saw."""

    first: int
    count: int
    positions: tuple[int, ...]


class Speculation(Closing):
    """Positions of predicted tokens, of up to `max_sequences` requests; the one followed longest ago makes room.

    Each step of a request costs the predictor one token, whatever the layers that ask. Safe from several threads.
    """

    def __init__(
        self,
        device: Device,
        predictor: Predictor,
        capacity: int = 4096,
        max_sequences: int = 64,
    ) -> None:
        """capacity: tokens of a sequence, the newest, in which predicted ones are looked for; a power of two."""
        self._tokens = TokenPredictor(device, predictor, capacity, max_sequences)
        self._lock = threading.Lock()
        self._followed: dict[int, _Followed] = {}  # least recently used first

    @property
    def nbytes(self) -> int:
        """Device memory held, that reserved for sequences included."""
        return self._tokens.nbytes

    def positions(self, req_id: int, cur_pos: int, recent_tokens: Sequence[int]) -> tuple[int, ...]:
        """Where the tokens stand that are predicted to come at cur_pos, the likeliest first; those seen nowhere
        are left out.

        recent_tokens: the last ones before cur_pos, the newest last. Those that the predictor has not seen are taken
        in; where it has missed some, or the sequence was cropped, it begins anew with them. PredictorError for a
        token outside the vocabulary: then nothing has changed.
        """
        recent = list(recent_tokens)[-cur_pos:] if cur_pos else []
        if not recent:
            return ()
        with self._lock:
            known = self._followed.pop(req_id, None)
            if known is not None:
                self._followed[req_id] = known
                new = cur_pos - known.first - known.count
                if new == 0:
                    return known.positions
                if 0 < new <= len(recent):
                    return self._take(req_id, known, recent[-new:])
            self._tokens.check(recent)
            if known is not None:
                self._drop(req_id)
            return self._begin(req_id, cur_pos, recent)

    def forget(self, req_id: int) -> None:
        """The request has ended; harmless for one that was not followed."""
        with self._lock:
            if req_id in self._followed:
                self._drop(req_id)

    def close(self) -> None:
        """Gives the memory back; harmless when repeated."""
        with self._lock:
            self._followed.clear()
            self._tokens.close()

    def _begin(self, req_id: int, cur_pos: int, recent: list[int]) -> tuple[int, ...]:
        try:
            self._tokens.open(req_id)
        except PoolFull:
            if not self._followed:
                raise
            self._drop(next(iter(self._followed)))
            self._tokens.open(req_id)
        known = self._followed[req_id] = _Followed(cur_pos - len(recent), 0, ())
        return self._take(req_id, known, recent)

    def _take(self, req_id: int, known: _Followed, new: list[int]) -> tuple[int, ...]:
        self._tokens.check(new)
        self._tokens.extend(req_id, new[:-1])
        found = self._tokens.step([req_id], new[-1:])
        known.count += len(new)
        there = found.position[0][found.known[0]].tolist()
        known.positions = tuple(dict.fromkeys(known.first + int(at) for at in there))
        return known.positions

    def _drop(self, req_id: int) -> None:
        del self._followed[req_id]
        self._tokens.close(req_id)
