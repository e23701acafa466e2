"""Pack and unpack: strided tensors to block slots and back."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from speckv_pynq import spec
from speckv_pynq.native.binding import U8, U32, U64, address, as_u32, as_u64, load, raise_error
from speckv_pynq.native.layout import Error, Pack, Tensor


class Workers:
    """Threads for pack and unpack; `threads` counts the calling one."""

    def __init__(self, threads: int) -> None:
        self._lib = load()
        self.handle: ctypes.c_void_p | None = None
        handle = ctypes.c_void_p()
        status = self._lib.speckv_workers_create(threads, ctypes.byref(handle))
        if status:
            raise_error(status, Error(), f"{threads} workers")
        self.handle = handle

    def close(self) -> None:
        handle, self.handle = self.handle, None
        if handle is not None:
            self._lib.speckv_workers_destroy(handle)

    def __del__(self) -> None:
        if getattr(self, "handle", None) is not None:
            self.close()


@dataclass(frozen=True)
class SlotLayout:
    """A block's slot: K then V, each (tokens, heads, head_dim).

    Its heads are first_head.. of the tensor.
    """

    tokens: int
    heads: int
    head_dim: int
    dtype: spec.DType
    first_head: int = 0


def pack_blocks(
    slots: U8, offsets: U64, layout: SlotLayout, key: Tensor | None, value: Tensor | None,
    rows: U32, first_tokens: U32, workers: Workers | None = None, portable: bool = False,
) -> int:  # fmt: skip
    """Copies tokens first_tokens[i].. of batch row rows[i] into the slot at offsets[i].

    How many finite values became infinite.
    """
    return _move(
        "pack", slots, offsets, layout, (key, value), rows, first_tokens, workers, portable
    )


def unpack_blocks(
    slots: U8, offsets: U64, layout: SlotLayout, key: Tensor | None, value: Tensor | None,
    rows: U32, first_tokens: U32, workers: Workers | None = None, portable: bool = False,
) -> int:  # fmt: skip
    """Copies the slot at offsets[i] to tokens first_tokens[i].. of batch row rows[i].

    How many finite values became infinite.
    """
    return _move(
        "unpack", slots, offsets, layout, (key, value), rows, first_tokens, workers, portable
    )


def pack_level() -> str:
    """The instructions that pack and unpack use here."""
    return bytes(load().speckv_pack_level()).decode()


_NO_TENSOR = Tensor()


def _move(
    which: str, slots: U8, offsets: U64, layout: SlotLayout,
    kinds: tuple[Tensor | None, Tensor | None],
    rows: U32, first_tokens: U32, workers: Workers | None, portable: bool,
) -> int:  # fmt: skip
    offsets, rows, first_tokens = as_u64(offsets), as_u32(rows), as_u32(first_tokens)
    if not len(offsets) == len(rows) == len(first_tokens):
        raise ValueError(f"{len(offsets)} slots, {len(rows)} rows, {len(first_tokens)} tokens")
    pack = Pack(
        kinds[0] or _NO_TENSOR, kinds[1] or _NO_TENSOR,
        address(slots), slots.nbytes, address(offsets),
        address(rows), address(first_tokens), len(offsets), layout.tokens, layout.heads,
        layout.head_dim, layout.first_head, int(layout.dtype), int(portable), 0,
    )  # fmt: skip
    overflows, error = ctypes.c_uint64(), Error()
    function = load().speckv_unpack_blocks if which == "unpack" else load().speckv_pack_blocks
    handle = workers.handle if workers is not None else None
    status = function(ctypes.byref(pack), handle, ctypes.byref(overflows), ctypes.byref(error))
    if status:
        raise_error(status, error, which)
    return overflows.value
