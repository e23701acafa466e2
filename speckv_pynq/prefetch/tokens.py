"""Token prediction of many sequences on a device: which tokens come next, and where they stood before."""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.closing import Closing
from speckv_pynq.device.protocol import Device, DeviceBuffer, PredictingDevice
from speckv_pynq.errors import ConfigError, DeviceError, PoolFull, PredictorError
from speckv_pynq.predictor import Predictor
from speckv_pynq.predictor.image import image_of, state_bytes

MAX_BATCH: Final = 1024  # steps of one kernel call; longer ones are cut
_SLOT_BYTES: Final = spec.PREDICTOR_TOP * spec.CANDIDATE.itemsize
# A descriptor up to its flags; packed one by one, because NumPy takes longer for few.
_PREDICTION: Final = struct.Struct("<QQ4IH4B")

Integers = npt.ArrayLike


@dataclass(frozen=True, eq=False)
class Candidates:
    """What may come next, best first: of n sequences, `top` each. table: (n, top) spec.CANDIDATE."""

    table: npt.NDArray[np.void]

    @property
    def token(self) -> npt.NDArray[np.uint32]:
        return self.table["token"]

    @property
    def score(self) -> npt.NDArray[np.int32]:
        """In 2**-10."""
        return self.table["score"].view(np.int32)

    @property
    def position(self) -> npt.NDArray[np.uint32]:
        """Where the token stood before, after the longest match if any; 0xFFFFFFFF: nowhere."""
        return self.table["position"]

    @property
    def match(self) -> npt.NDArray[np.uint8]:
        """How many of the last tokens stood before it there; 0: it did not follow the newest one before."""
        return self.table["match"]

    @property
    def count(self) -> npt.NDArray[np.uint8]:
        """How often it followed such a match, 4 at most."""
        return self.table["count"]

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Whether it has a position, and an address in `table`: address_high, address_low."""
        return self.table["flags"] & spec.CandidateFlag.KNOWN != 0


class TokenPredictor(Closing):
    """A predictor in a device's memory with the states of up to `max_sequences` sequences.

    capacity: tokens of a sequence that its history holds, a power of two. May be used from several threads; calls
    run one after another.
    """

    def __init__(
        self,
        device: Device,
        predictor: Predictor,
        capacity: int = 4096,
        max_sequences: int = 64,
    ) -> None:
        if not isinstance(device, PredictingDevice):
            raise DeviceError(f"device {device.name} has no kernel kv_prefetch")
        if not 1 <= max_sequences <= 1 << 20:
            raise ConfigError(f"max_sequences {max_sequences} is not within 1..{1 << 20}")
        self.predictor = predictor
        self.capacity = capacity
        self.state_bytes = state_bytes(capacity, predictor.vocabulary)
        self._device: PredictingDevice = device
        self._lock = threading.Lock()
        self._slots: dict[int, int] = {}
        self._free = list(range(max_sequences))[::-1]
        self._max_sequences = max_sequences
        image = image_of(predictor)
        self._image = device.allocate(len(image))
        self._image.array[:] = np.frombuffer(image, np.uint8)
        self._image.sync_to_device()
        # Pages of states come with use: a sequence touches what its own tokens need.
        self._states = device.allocate(max_sequences * self.state_bytes, reserve=True)
        self._descriptors = device.allocate(MAX_BATCH * spec.PREDICTION.itemsize)
        self._completions = device.allocate(MAX_BATCH * spec.COMPLETION.itemsize)
        self._candidates = device.allocate(MAX_BATCH * _SLOT_BYTES)
        self._table = self._descriptors.array.data
        self._statuses = self._completions.array.view(np.uint16).reshape(MAX_BATCH, -1)[:, 0]
        self._found = self._candidates.array.reshape(MAX_BATCH, _SLOT_BYTES)

    @property
    def image_bytes(self) -> int:
        """Of the parameters in device memory."""
        return self._image.nbytes

    @property
    def nbytes(self) -> int:
        """Of all device memory held: parameters, states (reserved ones included), tables."""
        return sum(buffer.nbytes for buffer in self._buffers)

    @property
    def sequences(self) -> int:
        """How many are open."""
        return len(self._slots)

    def open(self, req_id: int) -> None:
        """Begins a sequence; PredictorError when it is open, PoolFull when there are `max_sequences`."""
        if not 0 <= req_id < 1 << 32:
            raise ConfigError(f"req_id {req_id} is outside 0..{(1 << 32) - 1}")
        with self._lock:
            if req_id in self._slots:
                raise PredictorError(f"request {req_id} is open")
            if not self._free:
                raise PoolFull(
                    f"request {req_id}: {len(self._slots)} sequences of {self._max_sequences} are open; close one, "
                    "or ask for more max_sequences"
                )
            self._slots[req_id] = self._free.pop()

    def extend(self, req_id: int, tokens: Integers) -> None:
        """Takes tokens in and predicts nothing, as for a prompt.

        tokens: (n,) integers. PredictorError for a request that is not open, or a token outside the vocabulary:
        then nothing is taken in.
        """
        taken = self._checked(tokens)
        with self._lock:
            slot = self._slot_of(req_id)
            fixed = 0, req_id, 0, 0, 0, 1, int(spec.PredictionFlag.ADVANCE_ONLY)
            for first in range(0, len(taken), MAX_BATCH):
                part = taken[first : first + MAX_BATCH]
                for i, token in enumerate(part):
                    self._describe(i, slot, token, fixed)
                self._run(len(part))

    def step(
        self,
        req_ids: Integers,
        tokens: Integers,
        top: int = spec.PREDICTOR_TOP,
        layer: int = 0,
        head: int = 0,
        kind: int = 0,
    ) -> Candidates:
        """Takes one token in for each of n requests and predicts the next one of each.

        req_ids, tokens: (n,) integers; where a request stands twice, its second token follows its first.
        layer, head, kind: of the addresses. -> n * top candidates. PredictorError for a request that is not open, a
        token outside the vocabulary or another `top` than 1..8: then nothing is taken in.
        """
        if not 1 <= top <= spec.PREDICTOR_TOP:
            raise PredictorError(f"top {top} is not within 1..{spec.PREDICTOR_TOP}")
        if not (0 <= layer < 1 << 16 and 0 <= head < 1 << 8 and 0 <= kind <= 1):
            raise ConfigError(f"no address has layer {layer}, head {head}, kind {kind}")
        taken = self._checked(tokens)
        requests = np.asarray(req_ids).reshape(-1).tolist()
        if len(requests) != len(taken):
            raise PredictorError(f"{len(requests)} requests, {len(taken)} tokens")
        out = np.empty((len(taken), _SLOT_BYTES), np.uint8)
        with self._lock:
            slots = [self._slot_of(req_id) for req_id in requests]
            for first in range(0, len(taken), MAX_BATCH):
                n = min(MAX_BATCH, len(taken) - first)
                for i in range(n):
                    at = first + i
                    fixed = i, requests[at], layer, head, kind, top, 0
                    self._describe(i, slots[at], taken[at], fixed)
                self._run(n)
                self._candidates.sync_from_device(0, n * _SLOT_BYTES)
                out[first : first + n] = self._found[:n]
        return Candidates(out.view(spec.CANDIDATE)[:, :top])

    def close(self, req_id: int | None = None) -> None:
        """Ends a sequence, so that its memory serves another; None: all, and gives the device's memory back.

        PredictorError for a request that is not open. close() is harmless when repeated.
        """
        with self._lock:
            if req_id is None:
                self._slots.clear()
                self._free.clear()
                for buffer in self._buffers:
                    buffer.free()
                return
            slot = self._slot_of(req_id)
            start = slot * self.state_bytes
            self._states.array[start : start + self.state_bytes] = 0
            self._states.sync_to_device(start, self.state_bytes)
            del self._slots[req_id]
            self._free.append(slot)

    @property
    def _buffers(self) -> tuple[DeviceBuffer, ...]:
        return (
            self._image,
            self._states,
            self._descriptors,
            self._completions,
            self._candidates,
        )

    def _slot_of(self, req_id: int) -> int:
        slot = self._slots.get(req_id)
        if slot is None:
            raise PredictorError(f"request {req_id} is not open")
        return slot

    def _checked(self, tokens: Integers) -> list[int]:
        given = np.asarray(tokens)
        if given.ndim > 1 or (given.size and given.dtype.kind not in "iu"):
            raise PredictorError(f"tokens: {given.ndim}-D {given.dtype}, not (n,) integers")
        taken: list[int] = given.reshape(-1).tolist()
        if taken and not 0 <= min(taken) <= max(taken) < self.predictor.vocabulary:
            raise PredictorError(
                f"tokens {min(taken)}..{max(taken)} are not within 0..{self.predictor.vocabulary - 1}"
            )
        return taken

    def _describe(self, index: int, slot: int, token: int, fixed: tuple[int, ...]) -> None:
        """fixed: result, req_id, layer, head, kind, top, flags."""
        _PREDICTION.pack_into(
            self._table,
            index * spec.PREDICTION.itemsize,
            slot * self.state_bytes,
            self.predictor.fingerprint,
            token,
            self.capacity,
            *fixed,
        )

    def _run(self, count: int) -> None:
        """Runs the first descriptors; PredictorError for a state that the kernel refuses."""
        self._descriptors.sync_to_device(0, count * spec.PREDICTION.itemsize)
        self._device.predict(
            self._image,
            self._states,
            self._descriptors,
            self._completions,
            self._candidates,
            count,
        )
        done_bytes = count * spec.COMPLETION.itemsize
        self._completions.sync_from_device(0, done_bytes)
        if not any(self._statuses[:count].tolist()):
            return
        done = self._completions.array[:done_bytes].view(spec.COMPLETION)
        bad = int(np.flatnonzero(done["status"])[0])
        raise PredictorError(
            f"step {bad} of {count}: status {spec.Status(int(done['status'][bad])).name.lower()}, "
            f"value {done['value'][bad]}, limit {done['limit'][bad]}"
        )
