"""The native kernels at their C border, with canaries around everything they write.

Tests of the kernels want the border itself (wrong tables, other builds of the library); everything
above goes through speckv_pynq.device.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from speckv_pynq import spec
from speckv_pynq.codebook import Codebook
from speckv_pynq.reference import BlockInfo
from speckv_pynq.reference.record import BITS
from speckv_pynq.spec import DType, Kind, Scheme

CANARY = 0xA5
MARGIN = 4 * spec.LINE_BYTES
Decoded = tuple[np.void, np.ndarray | None, np.ndarray | None]


def descriptor(info: BlockInfo, scheme: Scheme = Scheme.RAW, **fields: int) -> np.ndarray:
    """One spec.DESCRIPTOR for a block that lies at offset 0, V right behind K; fields override."""
    d = np.zeros(1, spec.DESCRIPTOR)
    for name in BlockInfo.__dataclass_fields__:
        d[name] = getattr(info, name)
    d["scheme"] = scheme
    if info.kinds == Kind.BOTH:
        d["value_offset"] = info.block_bytes // 2
    d["record_capacity"] = info.block_bytes + spec.MIN_SLOT_BYTES
    for name, value in fields.items():
        d[name] = value
    return d


def block_bytes_of(k: np.ndarray | None, v: np.ndarray | None) -> np.ndarray:
    """The kinds that there are, K first, as one uint8 array."""
    return np.concatenate([a.reshape(-1).view(np.uint8) for a in (k, v) if a is not None])


def guarded(nbytes: int) -> tuple[np.ndarray, np.ndarray]:
    """(all, inner): `nbytes` of canary, and canary around them."""
    memory = np.full(nbytes + 2 * MARGIN, CANARY, np.uint8)
    return memory, memory[MARGIN : MARGIN + nbytes]


def is_untouched(memory: np.ndarray) -> bool:
    return bool((memory == CANARY).all())


def image_of(codebook: Codebook | None) -> np.ndarray:
    """(lines, 64) uint8, aligned to a line as the kernels want it."""
    data = codebook.image if codebook is not None else b""
    memory = np.zeros(len(data) + spec.LINE_BYTES, np.uint8)
    start = -memory.ctypes.data % spec.LINE_BYTES
    image = memory[start : start + len(data)].reshape(-1, spec.LINE_BYTES)
    image[:] = np.frombuffer(data, np.uint8).reshape(image.shape)
    return image


class Kernels:
    """A build of libspeckv.so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.library = ctypes.CDLL(str(path))
        pointer, u64, u32 = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32
        for name in ("speckv_csim_kv_compress", "speckv_csim_kv_decompress"):
            function = getattr(self.library, name)
            buffers = [pointer, u64, pointer, u64, pointer, u64]
            function.argtypes = [*buffers, pointer, pointer, u32, u64]
            function.restype = ctypes.c_int32
        self.library.speckv_csim_crc32c.argtypes = [u32, pointer, u64]
        self.library.speckv_csim_crc32c.restype = u32
        self.library.speckv_csim_build_info.restype = ctypes.c_char_p

    @property
    def build_info(self) -> str:
        return self.library.speckv_csim_build_info().decode()

    def crc32c(self, data: bytes | np.ndarray, seed: int = 0) -> int:
        message = np.frombuffer(data, np.uint8)
        return self.library.speckv_csim_crc32c(seed, message.ctypes.data, message.size)

    def call(
        self,
        kernel: str,
        source: np.ndarray,
        target: np.ndarray,
        descriptors: np.ndarray,
        abi_id: int = spec.ABI_ID,
        image: np.ndarray | None = None,
    ) -> tuple[int, np.ndarray]:
        """kernel: "compress" or "decompress" -> (status of the call, completions). image: of a codebook."""
        completions = np.zeros(len(descriptors), spec.COMPLETION)
        status = getattr(self.library, f"speckv_csim_kv_{kernel}")(
            source.ctypes.data,
            source.nbytes,
            target.ctypes.data,
            target.nbytes,
            None if image is None else image.ctypes.data,
            0 if image is None else image.nbytes,
            descriptors.ctypes.data,
            completions.ctypes.data,
            len(descriptors),
            abi_id,
        )
        return status, completions

    def encode(
        self,
        info: BlockInfo,
        k: np.ndarray | None,
        v: np.ndarray | None,
        scheme: Scheme,
        codebook: Codebook | None = None,
        slot_number: int = 0,
    ) -> tuple[np.void, bytes]:
        """-> (completion, record); asserts that nothing outside the slot was written."""
        table = descriptor(info, scheme, codebook_slot=slot_number)
        memory, slot = guarded(int(table["record_capacity"][0]))
        source, image = block_bytes_of(k, v), image_of(codebook)
        status, completions = self.call("compress", source, slot, table, image=image)
        assert status == spec.Status.OK
        assert is_untouched(memory[:MARGIN])
        assert is_untouched(memory[-MARGIN:])
        return completions[0], slot[: completions[0]["record_bytes"]].tobytes()

    def decode(
        self,
        record: bytes,
        info: BlockInfo,
        codebook: Codebook | None = None,
        slot_number: int = 0,
    ) -> Decoded:
        """-> (completion, k, v); asserts that an error leaves the destination untouched."""
        return self.decode_many([record], info, codebook, slot_number)[0]

    def decode_many(
        self,
        records: Sequence[bytes],
        info: BlockInfo,
        codebook: Codebook | None = None,
        slot_number: int = 0,
    ) -> list[Decoded]:
        """Decodes records that all should be the same block, in one call."""
        padded = [r + bytes(-len(r) % spec.LINE_BYTES) for r in records]
        sizes = np.array([len(r) for r in padded])
        table = np.repeat(descriptor(info, codebook_slot=slot_number), len(records))
        table["record_offset"] = np.cumsum(sizes) - sizes
        table["record_capacity"] = sizes
        stride = info.block_bytes + MARGIN
        starts = np.arange(len(records)) * stride
        if info.kinds & Kind.KEY:
            table["key_offset"] = starts
        if info.kinds & Kind.VALUE:
            table["value_offset"] += starts.astype(np.uint64)
        memory, blocks = guarded(stride * len(records))
        status, completions = self.call(
            "decompress",
            np.frombuffer(b"".join(padded), np.uint8),
            blocks,
            table,
            image=image_of(codebook),
        )
        assert status == spec.Status.OK
        assert is_untouched(memory[:MARGIN])
        assert is_untouched(blocks.reshape(-1, stride)[:, info.block_bytes :])
        return [
            self._taken(completion, block[: info.block_bytes], info)
            for completion, block in zip(completions, blocks.reshape(-1, stride), strict=True)
        ]

    @staticmethod
    def _taken(completion: np.void, block: np.ndarray, info: BlockInfo) -> Decoded:
        if completion["status"] != spec.Status.OK:
            assert is_untouched(block)
            return completion, None, None
        kinds = info.kind_list
        parts = block.view(BITS[DType(info.dtype)]).reshape(len(kinds), *info.shape)
        arrays = dict(zip(kinds, parts, strict=True))
        return completion, arrays.get(Kind.KEY), arrays.get(Kind.VALUE)


def same(got: np.ndarray | None, want: np.ndarray | None) -> bool:
    """Bit for bit, or both missing."""
    if got is None or want is None:
        return got is want
    return got.shape == want.shape and got.tobytes() == want.tobytes()
