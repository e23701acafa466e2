"""The allocator as a serving engine calls it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speckv_pynq.allocator.config import AllocatorConfig
from speckv_pynq.allocator.memory import SpeckvAllocator
from speckv_pynq.allocator.view import READ, WRITE, View


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
        depth_k: int = 4,
    ) -> None:
        """Brings the blocks of positions cur_pos..cur_pos + depth_k up; returns at once.

        recent_tokens are taken for callers that have them: which blocks attention reads next does
        not depend on them here.
        """
        tokens = self.memory.config.block_tokens
        blocks = (cur_pos + depth_k) // tokens - cur_pos // tokens + 1
        self.memory.prefetch(req_id, layer, cur_pos, blocks)

    def free(self, req_id: int) -> None:
        """Ends a request and its pointers."""
        self.release_ptrs(req_id)
        self.memory.free(req_id)

    def close(self) -> None:
        self.release_ptrs()
        self.memory.close()
