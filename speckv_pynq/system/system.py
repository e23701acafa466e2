"""CXLSpecKVSystem: blocks by request, layer and position, over tiers, page table and directory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.block import NUMPY_DTYPES, BlockShape
from speckv_pynq.closing import Closing
from speckv_pynq.codebook import Codebook
from speckv_pynq.codec import Codec, LoadedCodebook
from speckv_pynq.config import TierConfig, check_tokens
from speckv_pynq.device import Device, open_device
from speckv_pynq.errors import ConfigError, NotStored, ShapeError, SpeckvError
from speckv_pynq.native import U64
from speckv_pynq.native.page_table import PageTable, block_keys
from speckv_pynq.pool import FileStore
from speckv_pynq.prefetch.dense import after
from speckv_pynq.system import persistence
from speckv_pynq.system.config import RETURNS, SystemConfig
from speckv_pynq.system.leases import Leases
from speckv_pynq.system.returns import Returns
from speckv_pynq.system.stats import SystemStats
from speckv_pynq.tiers import StridedKV, TierManager
from speckv_pynq.tiers.storing import Keys

Array = npt.NDArray[np.generic]
DEFAULTS = SystemConfig()


@dataclass(frozen=True)
class Geometry:
    """What a model's cache looks like. dtype: of blocks; fingerprint: of model, layout and RoPE, 0: not stated."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: spec.DType = spec.DType.FP16
    fingerprint: int = 0


class CXLSpecKVSystem(Closing):
    """Device, codebook, tiers, page table and directory of one model's cache, opened and closed together.

    Safe to use from several threads. put, get, fork and free name blocks by request, layer and position; `tiers` is
    for adapters that keep handles themselves; agents of `leases` may hold blocks besides. A call that raises has
    changed nothing. A context manager, which closes it.
    """

    def __init__(
        self,
        geometry: Geometry,
        config: SystemConfig = DEFAULTS,
        codebook: Codebook | None = None,
        *,
        device: Device | None = None,
        tiers: TierConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """device: one that is open already and becomes the system's; None: the one that config names.
        tiers: instead of the budgets and policy of config. Where the codebook joins N layers in a record, a block
        has the KV heads of N layers, those of the first one first, and `layer` names the first. clock: seconds, by
        which policy "returns" learns.
        """
        self.geometry, self.config = geometry, config
        scheme = spec.Scheme[config.scheme.upper()]
        if (scheme == spec.Scheme.KLT) != (codebook is not None):
            raise ConfigError(f"scheme {config.scheme}: a codebook goes with klt, and klt with one")
        self.span_layers = 1 if codebook is None else codebook.layer_count
        heads = geometry.kv_heads * self.span_layers
        shape = BlockShape(config.block_tokens, heads, geometry.head_dim, geometry.dtype)
        self.device = device or open_device(config.device, config.num_fpga_engines or None)
        self.returns = Returns(clock) if config.policy == RETURNS else None
        try:
            loaded = None if codebook is None else LoadedCodebook(self.device, codebook)
            self._loaded = loaded
            Codec(self.device, shape, scheme, geometry.fingerprint, loaded).self_test()
            self.tiers = TierManager(
                self.device, shape, scheme, tiers or config.tiers, geometry.fingerprint,
                layers=geometry.layers, codebook=loaded,
                policy=None if self.returns is None else self.returns.policy,
            )  # fmt: skip
        except BaseException:
            self.device.close()
            raise
        self.shape = shape
        self.leases = Leases(config.lease_s)
        self._pages = PageTable()
        self._lock = threading.RLock()  # of the page table with the references that it stands for
        self._closed = False

    # ---- blocks by address

    def put(
        self,
        req_id: int,
        layer: int,
        position: int,
        k: Array,
        v: Array,
        keys: Keys | None = None,
    ) -> None:
        """Stores whole blocks, of positions `position` and following; what stood there before is replaced.

        k, v: (tokens, heads, head_dim) in the blocks' dtype (bf16: its bits as uint16), whole blocks. keys: as for
        TierManager.put. Replacing waits for agents that hold leases on the blocks (LeaseError at its deadline).
        """
        blocks = self._blocks(layer, position, k.shape[0])
        for name, array in (("k", k), ("v", v)):
            want = (k.shape[0], self.shape.heads, self.shape.head_dim)
            if array.shape != want or array.dtype != NUMPY_DTYPES[self.shape.dtype]:
                raise ShapeError(
                    f"{name}: {array.shape} {array.dtype}, not {want} {NUMPY_DTYPES[self.shape.dtype]}"
                )
        offsets = np.arange(len(blocks)) * self.shape.tokens
        halves = (x.transpose(1, 0, 2)[None] for x in (k, v))
        source = StridedKV.of(next(halves), next(halves), self.shape.dtype)
        pages = block_keys(req_id, layer, blocks)
        handles = self.tiers.put(
            layer, position + offsets, np.zeros_like(offsets), offsets, source, keys
        )
        try:
            with self.leases.exclusive(pages), self._lock:
                old = self._pages.map(pages, handles)
                if self.returns is not None:
                    self.returns.stored(req_id, handles, old[old != 0])
        except BaseException:
            self.tiers.release(handles)
            raise
        self.tiers.release(old[old != 0])

    def get(self, req_id: int, layer: int, position: int, tokens: int) -> tuple[Array, Array]:
        """K and V of whole blocks, (tokens, heads, head_dim) each; NotStored names the first block that is not there.

        RecordError for a damaged record: a miss, for the caller to compute or fetch again.
        """
        blocks = self._blocks(layer, position, tokens)
        kind = (1, self.shape.heads, len(blocks) * self.shape.tokens, self.shape.head_dim)
        k, v = (np.empty(kind, NUMPY_DTYPES[self.shape.dtype]) for _ in range(2))
        handles = self._held(req_id, layer, blocks)
        if self.returns is not None:
            self.returns.began(req_id)
        try:
            offsets = np.arange(len(blocks)) * self.shape.tokens
            target = StridedKV.of(k, v, self.shape.dtype)
            self.tiers.get(handles, np.zeros_like(offsets), offsets, target)
        finally:
            self.tiers.release(handles)
        return k[0].transpose(1, 0, 2), v[0].transpose(1, 0, 2)

    def stored(self, req_id: int, layer: int, position: int, tokens: int) -> npt.NDArray[np.bool_]:
        """Which blocks of a range are there, (blocks,)."""
        blocks = self._blocks(layer, position, tokens)
        with self._lock:
            self._check_open()
            return self._pages.lookup(block_keys(req_id, layer, blocks)) != 0

    def prefetch_step(
        self,
        req_id: int,
        layer: int,
        cur_pos: int,
        recent_tokens: Sequence[int] = (),
        depth_k: int | None = None,
        *,
        candidates: Sequence[int] | None = None,
    ) -> int:
        """Begins to bring up what is read once `layer` has been, up to depth_k blocks ahead; how many it could take.

        Returns at once, as TierManager.prefetch does. In the order of dense attention: the blocks before cur_pos of the
        following layers, then of the next step's, up to this one's; what is decoded already is passed over. depth_k
        None: the configured depth. candidates: positions; of each layer only the blocks that hold them, in this order.
        recent_tokens are checked; the dense order is known without them. ConfigError for what is out of range.
        """
        depth = self.config.prefetch_depth if depth_k is None else depth_k
        self._check_step(layer, cur_pos, depth, recent_tokens)
        blocks = np.arange(cur_pos // self.shape.tokens)
        if candidates is not None:
            blocks = _distinct(np.asarray(candidates, np.int64) // self.shape.tokens, blocks)
        wanted: list[U64] = []
        with self._lock:
            self._check_open()
            for at in after(range(0, self.geometry.layers, self.span_layers), layer):
                if sum(map(len, wanted)) >= depth:
                    break
                found = self._pages.lookup(block_keys(req_id, at, blocks))
                found = found[found != 0]
                wanted.append(found[~self.tiers.resident(found)])
            if not wanted:
                return 0
            return self.tiers.prefetch(np.concatenate(wanted)[:depth])

    def idle(self, req_id: int, kind: str = "") -> None:
        """A request's turn is over: until it is read or stored to again, its blocks stay in L1 by what that is worth.

        kind: what the turn ended with, as far as the caller knows ("tool grep", "answer"): kinds return in times of
        their own. For policy "returns"; with others, and for a request in no turn, nothing happens.
        """
        if self.returns is not None:
            self.returns.ended(req_id, kind)

    def prefetch_returns(self) -> int:
        """Begins to bring blocks of idle requests that will soon be read into L2; how many blocks.

        Returns at once. For policy "returns": what is surest first, as long as at most a fifth of all so brought up is
        expected in vain. Call it now and then, a few times a second.
        """
        return 0 if self.returns is None else self.returns.prefetch(self.tiers)

    def fork(self, req_id: int, new_req_id: int) -> int:
        """A new request with the blocks of another, by reference; how many. ConfigError where it has blocks already."""
        with self._lock:
            self._check_open()
            self._check_new(new_req_id)
            pages, handles = self._pages.blocks(req_id)
            pages[:, 0] = new_req_id
            self.tiers.retain(handles)
            try:
                self._pages.map(pages, handles)
            except BaseException:
                self.tiers.release(handles)
                raise
            if self.returns is not None:
                self.returns.forked(req_id, new_req_id)
            return len(handles)

    def free(self, req_id: int) -> int:
        """Drops a request's blocks; how many. Waits for agents that hold leases on them (LeaseError)."""
        with self._lock:
            self._check_open()
            pages = self._pages.blocks(req_id)[0]
        with self.leases.exclusive(pages), self._lock:
            handles = self._pages.free_request(req_id)
            if self.returns is not None:
                self.returns.freed(req_id)
        self.tiers.release(handles)
        return len(handles)

    # ---- beyond the process

    def save(self, req_id: int, store: FileStore) -> int:
        """Writes a request's records to a store, as they are; how many. Durable when it returns, batch by batch before.

        What the store holds of these addresses is replaced. A call that raises may have written some of them.
        """
        with self._lock:
            self._check_open()
            pages, handles = self._pages.blocks(req_id)
            self.tiers.retain(handles)
        try:
            return persistence.write(
                store,
                (
                    (
                        persistence.key_of(req_id, layer, block * self.shape.tokens),
                        b"".join(part.tobytes() for part in self.tiers.records(handle)),
                    )
                    for (_, layer, block), handle in zip(
                        pages.tolist(), handles.tolist(), strict=True
                    )
                ),
            )
        finally:
            self.tiers.release(handles)

    def restore(self, req_id: int, store: FileStore) -> int:
        """Takes a request's records from a store, as they are; how many. ConfigError where it has blocks already.

        A record that came to harm is left out: a miss. One of another model, layout or scheme's codebook is refused
        when it is read (RecordError).
        """
        found: dict[int, tuple[list[int], list[bytes]]] = {}
        for key, layer, position in persistence.keys_of(store, req_id):
            self._blocks(layer, position, self.shape.tokens)
            record = store.load(key)
            if record is not None:
                positions, records = found.setdefault(layer, ([], []))
                positions.append(position)
                records.append(record)
        with self._lock:
            self._check_open()
            self._check_new(req_id)
            taken: list[U64] = []
            try:
                for layer, (positions, records) in found.items():
                    taken.append(self.tiers.put_records(layer, positions, records))
                    blocks = np.array(positions) // self.shape.tokens
                    self._pages.map(block_keys(req_id, layer, blocks), taken[-1])
                if self.returns is not None:
                    for handles in taken:
                        self.returns.stored(req_id, handles, handles[:0])
            except BaseException:
                self._pages.free_request(req_id)
                for handles in taken:
                    self.tiers.release(handles)
                raise
        return sum(map(len, taken))

    # ---- the whole

    def stats(self) -> SystemStats:
        """What is held and has been done."""
        with self._lock:
            self._check_open()
            pages, directory = self._pages.stats(), self.leases.directory.stats()
            return SystemStats(
                tiers=self.tiers.stats(),
                requests=pages.requests,
                mapped_blocks=pages.entries,
                agents=directory.agents - 1,  # one is the system itself
                leases=directory.leases,
                recalls=directory.recalls,
                fenced_agents=directory.fenced,
                metadata_bytes=pages.metadata_bytes
                + directory.metadata_bytes
                + (0 if self.returns is None else self.returns.predictor.nbytes),
            )

    def close(self) -> None:
        """Gives everything back; harmless when repeated."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self.tiers.close()
            if self._loaded is not None:
                self._loaded.close()
            self._pages.close()
            self.leases.close()
            self.device.close()

    # ---- inside

    def _blocks(self, layer: int, position: int, tokens: int) -> npt.NDArray[np.int64]:
        """Block numbers of a range of whole blocks."""
        each = self.shape.tokens
        if position < 0 or position % each or tokens <= 0 or tokens % each:
            raise ShapeError(
                f"positions {position}..{position + tokens - 1} are not whole blocks of {each} tokens"
            )
        if not 0 <= layer < self.geometry.layers or layer % self.span_layers:
            raise ConfigError(
                f"layer {layer} is not one of 0, {self.span_layers}, ... below {self.geometry.layers}"
            )
        return np.arange(position // each, (position + tokens) // each)

    def _check_step(self, layer: int, cur_pos: int, depth: int, tokens: Sequence[int]) -> None:
        if not 0 <= layer < self.geometry.layers:
            raise ConfigError(f"layer {layer} is not within 0..{self.geometry.layers - 1}")
        if cur_pos < 0:
            raise ConfigError(f"cur_pos {cur_pos} < 0")
        if depth < 0:
            raise ConfigError(f"depth_k {depth} < 0")
        check_tokens(tokens)

    def _held(self, req_id: int, layer: int, blocks: npt.NDArray[np.int64]) -> U64:
        """Handles with a reference each, so that nobody's free takes them away under the caller."""
        with self._lock:
            self._check_open()
            handles = self._pages.lookup(block_keys(req_id, layer, blocks))
            missing = np.flatnonzero(handles == 0)
            if len(missing):
                at = int(blocks[missing[0]]) * self.shape.tokens
                raise NotStored(
                    f"request {req_id}, layer {layer}: no block at position {at}; put it first"
                )
            self.tiers.retain(handles)
            return handles

    def _check_new(self, req_id: int) -> None:
        if len(self._pages.blocks(req_id)[0]):
            raise ConfigError(f"request {req_id} has blocks already: free it first")

    def _check_open(self) -> None:
        if self._closed:
            raise SpeckvError("the system is closed")


def _distinct(
    blocks: npt.NDArray[np.int64], allowed: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Those that are allowed, each once, in their order."""
    first = np.sort(np.unique(blocks, return_index=True)[1])
    return blocks[first][np.isin(blocks[first], allowed)]
