"""The allocator as a serving engine calls it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speckv_pynq.allocator.config import AllocatorConfig
from speckv_pynq.allocator.memory import SpeckvAllocator
from speckv_pynq.allocator.view import READ, WRITE, View
from speckv_pynq.config import check_tokens
from speckv_pynq.errors import ConfigError


class CxlSpeckvKVAllocator:
    """The allocator as a serving engine calls it: requests are handed out, pointers are looked up.

    A pointer from get_kv_ptr holds its block until release_ptrs() or free().
    """

    def __init__(self, lib_path: str | Path | None = None, *, config: AllocatorConfig) -> None:
        self.memory = SpeckvAllocator(config, lib_path=lib_path)
        self._views: dict[int, list[View]] = {}  # request -> views of its pointers
        self._next_id = 0

    def allocate(self, num_tokens: int, req_id: int | None = None) -> int:
        """Room for `num_tokens` positions; the request's id, a new one unless given."""
        if req_id is None:
            req_id = self._next_id
        self.memory.alloc(req_id, num_tokens)
        self._next_id = max(self._next_id, req_id + 1)
        return req_id

    def get_kv_ptr(
        self,
        req_id: int,
        layer: int,
        pos: int,
        head: int = 0,
        kind: int = 0,
        *,
        write: bool = False,
    ) -> int:
        """Host address of an entry of head_dim elements, decoded, until release_ptrs()."""
        view = self.memory.access(req_id, layer, head, pos, kind, WRITE if write else READ)
        self._views.setdefault(req_id, []).append(view)
        return view.data

    def release_ptrs(self, req_id: int | None = None) -> None:
        """Ends the pointers of a request, or of all."""
        ended = [req_id] if req_id is not None else list(self._views)
        for request in ended:
            for view in self._views.pop(request, []):
                self.memory.release(view)

    def prefetch_step(
        self,
        req_id: int,
        layer: int,
        cur_pos: int,
        recent_tokens: Sequence[int] = (),
        depth_k: int | None = None,
        *,
        candidates: Sequence[int] | None = None,
    ) -> None:
        """Asks for the depth_k blocks that are read once `layer` has been; returns at once.

        In the order of dense attention: the blocks before cur_pos of the following layers, then of the next step's, up
        to this one's; what is decoded already costs nothing. depth_k None: the configured depth. candidates: positions;
        of each layer only the blocks that hold them, in this order. recent_tokens are checked; the dense order is known
        without them. ConfigError for what is out of range.
        """
        memory = self.memory
        depth = memory.prefetch_depth if depth_k is None else depth_k
        if depth < 0:
            raise ConfigError(f"depth_k {depth} < 0")
        check_tokens(recent_tokens)
        tokens, layers = memory.config.block_tokens, memory.config.layers
        if not 0 <= layer < layers:
            raise ConfigError(f"layer {layer} is not within 0..{layers - 1}")
        blocks = cur_pos // tokens
        runs = [(0, blocks)] if blocks > 0 else []  # first block, count
        if candidates is not None:
            chosen = dict.fromkeys(position // tokens for position in candidates)
            runs = [(block, 1) for block in chosen if 0 <= block < blocks]
        for at in (*range(layer + 1, layers), *range(layer + 1)):
            for first, count in runs:
                count = min(count, depth)
                if not count:
                    return
                memory.prefetch(req_id, at, first * tokens, count)
                depth -= count

    def free(self, req_id: int) -> None:
        """Ends a request and its pointers."""
        self.release_ptrs(req_id)
        self.memory.free(req_id)

    def close(self) -> None:
        self.release_ptrs()
        self.memory.close()
