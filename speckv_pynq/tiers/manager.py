"""Blocks in and out of the tiers.

put: pack -> encode in staging, worst-case slots -> lines of L3 for the bytes that came out. All or
nothing.
get: L1 and L2 hits are unpacked where they are; misses are decoded, into the L1 slots that the
policy gives them or into staging, one round ahead of the unpacking.
prefetch: commands for a driver, decoded into reserved slots of L2 while others call; later calls take in
what has ended, a get only what it wants. No call waits but a get of the very blocks that a command is decoding.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.block import BlockShape
from speckv_pynq.closing import Closing
from speckv_pynq.codec import Codec, LoadedCodebook
from speckv_pynq.config import TierConfig
from speckv_pynq.device.protocol import DEFAULT_TIMEOUT_S, Device, DeviceBuffer
from speckv_pynq.errors import ConfigError, DeviceError, ShapeError
from speckv_pynq.native import U8, Core, Tier, Workers
from speckv_pynq.native.layout import CoreConfig
from speckv_pynq.pool import open_pool
from speckv_pynq.tiers.lookahead import Lookahead
from speckv_pynq.tiers.places import Places
from speckv_pynq.tiers.policies import Policy, make_policy
from speckv_pynq.tiers.prefetching import Prefetcher
from speckv_pynq.tiers.rounds import Fetcher
from speckv_pynq.tiers.staging import Staging
from speckv_pynq.tiers.stats import TierStats
from speckv_pynq.tiers.storing import Keys, Storer
from speckv_pynq.tiers.strided import StridedKV

Handles = npt.NDArray[np.uint64]
Ahead = tuple[int, int]  # sequence, layer


class TierManager(Closing):
    """The tiered cache of one model's blocks; device and codebook stay the caller's.

    layers: of the model. Where the codebook joins several in a record, a block's layer is the first of them.

    Safe to use from several threads: calls are serialised, whole. A call that raises has changed
    nothing, except that a get may have written other blocks of its destination.
    """

    def __init__(
        self,
        device: Device,
        shape: BlockShape,
        scheme: spec.Scheme,
        config: TierConfig,
        layout_fingerprint: int = 0,
        *,
        layers: int,
        codebook: LoadedCodebook | None = None,
        policy: Policy | None = None,
    ) -> None:
        """policy: instead of the one that config names."""
        self.shape, self.config, self.layers = shape, config, layers
        self.codec = Codec(device, shape, scheme, layout_fingerprint, codebook)
        if codebook is not None:
            codebook.check(shape, range(0, layers, codebook.layer_count))
        self._streams = config.prefetch == "dense"
        self._lock = threading.Lock()
        self._closed = False
        self._buffers: list[DeviceBuffer] = []
        share = 8 if self._streams else 1  # the rest of L2 is for blocks ahead
        self._staging = Staging(device, self.codec, config.l2_bytes, share)
        self._policy = policy or make_policy(config.policy, even=self._streams)
        try:
            self._core = self._make_core(device)
            self._workers = Workers(device.num_engines)
        except BaseException:
            self._free()
            raise
        self._fetcher = Fetcher(
            self.codec, self._core, self._staging, self._memories, self._policy, self._workers
        )
        self._prefetcher = Prefetcher(self.codec, self._core, self._staging, self._memories)
        self._lookahead: Lookahead | None = None
        if self._streams:
            self._lookahead = Lookahead(self._core, self._prefetcher, config)
        pool = self._memories[Tier.L3]
        assert pool is not None
        self._storer = Storer(self._core, self._staging, pool, self._workers, scheme, config)

    def put(
        self,
        layer: int,
        positions: npt.ArrayLike,
        rows: npt.ArrayLike,
        offsets: npt.ArrayLike,
        source: StridedKV,
        keys: Keys | None = None,
    ) -> Handles:
        """Codes n blocks of a layer; their handles, (n,) uint64, with one reference each.

        Block j: batch row rows[j], tokens offsets[j].. of source, first position positions[j].
        keys: (n,), 32 bytes or None each: blocks with the same key are the same to the caller, and are coded and held
        once (see sharing.PrefixKeys); config.share_equal finds blocks with equal records besides.
        """
        places = Places.of(self.shape, rows, offsets, source)
        at = np.ascontiguousarray(positions, np.uint32)
        if len(at) != len(places):
            raise ValueError(f"{len(at)} positions for {len(places)} blocks")
        self._check_layer(layer)
        if keys is not None and len(keys) != len(at):
            raise ValueError(f"{len(keys)} keys for {len(at)} blocks")
        with self._lock:
            self._begin()
            self._fetcher.settle()
            return self._storer.put(layer, at, places, keys)

    def put_records(
        self, layer: int, positions: npt.ArrayLike, records: Sequence[bytes]
    ) -> Handles:
        """Stores blocks whose records are there already, such as `records` gave; their handles, (n,), all or none.

        Record j: of all parts in a row, for the block whose first position is positions[j]. It is checked when it is
        decoded, as every record is: RecordError then, and here where its length is not what its header says.
        """
        at = np.ascontiguousarray(positions, np.uint32)
        if len(at) != len(records):
            raise ValueError(f"{len(at)} positions for {len(records)} records")
        self._check_layer(layer)
        with self._lock:
            self._begin()
            self._fetcher.settle()
            return self._storer.put_records(layer, at, records)

    def get(
        self,
        handles: npt.ArrayLike,
        rows: npt.ArrayLike,
        offsets: npt.ArrayLike,
        dest: StridedKV,
        *,
        ahead: Ahead | None = None,
    ) -> None:
        """Writes block j to batch row rows[j], tokens offsets[j].. of dest.

        RecordError for a damaged record names its block; nothing of that block is written. ahead: (sequence, layer) of
        a get that comes once a step, after that of the layer before: with config.prefetch "dense" the blocks of later
        layers, then of the next step, begin to come up once this get has what it asked for.
        """
        places = Places.of(self.shape, rows, offsets, dest)
        if not dest.writable:
            raise ShapeError("dest is read-only")
        wanted = np.ascontiguousarray(handles, np.uint64)
        if len(wanted) != len(places):
            raise ValueError(f"{len(wanted)} handles for {len(places)} places")
        with self._lock:
            self._check_open()
            running = self._prefetcher.claim(wanted)
            if not running:
                self._read(wanted, places, ahead)
                return
        self._prefetcher.wait(running)  # not under the lock: others may hit meanwhile
        with self._lock:
            self._check_open()
            self._prefetcher.claim(wanted)
            self._prefetcher.give_up(wanted)
            self._read(wanted, places, ahead)

    def expect(self, ahead: Ahead, handles: npt.ArrayLike) -> None:
        """Says what the next get with `ahead` will read; none: the layer, or the sequence, has ended.

        Needed where blocks were put, or given up, since its last get. StaleHandle changes nothing.
        """
        with self._lock:
            self._begin()
            if self._lookahead is not None:
                self._lookahead.expect(*ahead, np.ascontiguousarray(handles, np.uint64))

    @property
    def prefetch_depth(self) -> int | None:
        """As in the configuration; may be changed at any time. Without prefetch "dense" it has no effect."""
        return 0 if self._lookahead is None else self._lookahead.planner.depth

    @prefetch_depth.setter
    def prefetch_depth(self, depth: int | None) -> None:
        with self._lock:
            if self._lookahead is not None:
                self._lookahead.planner.depth = depth

    def resident(self, handles: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which blocks are decoded, in L1 or L2, at this instant, (n,); waits for nothing and counts as no hit."""
        with self._lock:
            self._begin()
            plan = self._core.plan_get(np.ascontiguousarray(handles, np.uint64), counted=False)
            there: npt.NDArray[np.bool_] = plan.tiers != Tier.L3
            return there

    def prefetch(self, handles: npt.ArrayLike) -> int:
        """Begins to decode blocks into L2 ahead of their get, oldest ones leaving; how many it could take.

        Returns at once: a driver, opened by the first call, does the work in the background. A block hits L2 once
        it has come; a get before that waits shortly for the command that decodes it, or decodes it itself. What
        does not come (a damaged record, a device that fails) is a miss, counted in stats(). A block leaves L2 with
        the get that reads it.
        """
        with self._lock:
            self._check_open()
            return self._prefetcher.start(np.ascontiguousarray(handles, np.uint64))

    @property
    def l2_slots(self) -> int:
        """Blocks that L2 has room for, beside staging."""
        return self._core.total_slots(Tier.L2)

    def poll(self) -> int:
        """Takes in what has been brought up, as most calls do; how many blocks are still on their way."""
        with self._lock:
            self._begin()
            return self._prefetcher.under_way

    def wait_prefetched(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Waits until no block is on its way to L2; DeviceTimeout: some are after timeout_s."""
        with self._lock:
            self._check_open()
        self._prefetcher.wait_all(timeout_s)
        self.poll()

    def retain(self, handles: npt.ArrayLike) -> None:
        """One reference more for each: a block may stand in several rows."""
        with self._lock:
            self._begin()
            self._core.retain(np.ascontiguousarray(handles, np.uint64))

    def release(self, handles: npt.ArrayLike) -> None:
        """One reference less for each; a block without references leaves all tiers."""
        with self._lock:
            self._begin()
            self._fetcher.settle()
            gone = np.ascontiguousarray(handles, np.uint64)
            self._core.release(gone)
            self._prefetcher.give_up(gone, stale_only=True)

    @property
    def overflows(self) -> int:
        """As in `stats`, for callers that ask around every put."""
        return self._storer.done.overflows

    def stats(self) -> TierStats:
        """What is held and has been done."""
        with self._lock:
            self._begin()
            core, done, early = self._core.stats(), self._storer.done, self._prefetcher
            elements = self.shape.block_bytes // spec.DTYPE_BYTES[self.shape.dtype]
            return TierStats(
                blocks=core.blocks,
                references=core.references,
                block_fp16_bytes=core.blocks * elements * 2,
                record_bytes=core.record_bytes,
                record_bytes_by_layer=tuple(self._core.layer_bytes().tolist()),
                l1_bytes=core.held_bytes[0],
                l1_blocks=core.slots[0],
                l1_hot_blocks=self._policy.hot_blocks(self._core),
                l2_bytes=self._staging.held_bytes + core.held_bytes[1],
                l2_blocks=core.slots[1],
                l3_bytes=core.held_bytes[2],
                l3_slack_bytes=core.held_bytes[2] - core.used_bytes[2],
                metadata_bytes=core.metadata_bytes
                + self._storer.shared.nbytes
                + self._policy.nbytes
                + early.table_bytes,
                hits_l1=core.hits[0],
                hits_l2=core.hits[1],
                misses=core.misses,
                bytes_decoded=(self._fetcher.decoded + early.decoded) * self.shape.block_bytes,
                bytes_encoded=done.coded * self.shape.block_bytes,
                shared_blocks=done.shared,
                raw_fallbacks=done.raw,
                int4_fallbacks=done.int4,
                prefetching=early.under_way,
                prefetched=early.fetched,
                prefetch_failed=early.failed,
                prefetch_cancelled=early.cancelled,
                overflows=done.overflows,
            )

    def records(self, handle: int) -> list[U8]:
        """The records of a block as they lie in L3, one a part; valid until its release."""
        with self._lock:
            self._check_open()
            references, offsets, sizes = self._core.block(handle)
            if not references:
                self._core.retain(np.array([handle], np.uint64))  # raises StaleHandle
            pool = self._memories[Tier.L3]
            assert pool is not None
            pairs = zip(offsets.tolist(), sizes.tolist(), strict=True)
            return [pool.array[at : at + size] for at, size in pairs]

    def close(self) -> None:
        """Gives all memory back; harmless when repeated."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for end in (self._fetcher.settle, self._prefetcher.close):
                with contextlib.suppress(DeviceError):  # buffers in use live until their run ends
                    end()
            self._core.close()
            self._workers.close()
            self._free()

    def _read(self, handles: Handles, places: Places, ahead: Ahead | None) -> None:
        self._fetcher.get(handles, places)
        if ahead is not None and self._lookahead is not None:
            self._lookahead.has_read(*ahead, handles)

    def _check_layer(self, layer: int) -> None:
        if not 0 <= layer < self.layers:
            raise ValueError(f"layer {layer} is not within 0..{self.layers - 1}")

    def _make_core(self, device: Device) -> Core:
        block = self.shape.block_bytes
        budgets = (
            self.config.l1_bytes if self.config.l1_bytes >= block else 0,
            self.config.l2_bytes - self._staging.nbytes,
            self.config.l3_bytes,
        )
        config = CoreConfig()
        config.frame_bytes = max(spec.FRAME_BYTES, mmap.PAGESIZE)
        if self.config.l3_bytes < config.frame_bytes:
            raise ConfigError(f"l3_bytes {self.config.l3_bytes} < {config.frame_bytes}, one frame")
        config.block_bytes, config.parts, config.layers = block, len(self.codec.parts), self.layers
        self._memories: list[DeviceBuffer | None] = []
        for i, budget in enumerate(budgets):
            size = budget // config.frame_bytes * config.frame_bytes
            self._memories.append(None)
            if not size:
                continue
            pool = open_pool(self.config.l3_pool if i == Tier.L3 else "device", size, device)
            try:
                memory = pool.attach(device)
            except BaseException:
                pool.close()
                raise
            self._memories[i] = memory
            self._buffers.append(memory)
            config.base[i], config.bytes[i] = memory.array.ctypes.data, pool.nbytes
            gives_back = pool.gives_back and pool.page_bytes <= config.frame_bytes
            # Slots that blocks pass through all the time would be given back and faulted in again each time.
            config.give_back[i] = gives_back and not (i == Tier.L2 and self._streams)
        return Core(config)

    def _free(self) -> None:
        self._staging.free()
        for buffer in self._buffers:
            buffer.free()

    def _begin(self) -> None:
        """Of each call: takes in what the driver has done meanwhile."""
        self._check_open()
        self._prefetcher.collect()

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError("the tier manager is closed")
