"""What the tiers hold and have done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TierStats:
    """Bytes are what is held now; counts and `bytes_*` run since the manager was made."""

    blocks: int
    references: int
    block_fp16_bytes: int  # all blocks at two bytes an element
    record_bytes: int  # header, payload, padding to lines
    record_bytes_by_layer: tuple[int, ...]
    l1_bytes: int  # frames of decoded blocks
    l1_blocks: int
    l1_hot_blocks: int  # of them whose uses, decayed, are more than one; 0 but for policy "heat"
    l2_bytes: int  # staging, and frames of blocks brought up early
    l2_blocks: int
    l3_bytes: int  # frames of records
    l3_slack_bytes: int  # of them not in use
    metadata_bytes: int  # the core's tables, of shared blocks, the policy's, of prefetches
    hits_l1: int
    hits_l2: int
    misses: int  # fetched from L3
    bytes_decoded: int
    bytes_encoded: int
    shared_blocks: int  # given out again instead of being held twice
    raw_fallbacks: int  # records kept raw though another scheme was asked for
    int4_fallbacks: (
        int  # records of scheme klt that are int4: the codebook did not fit their values
    )
    prefetching: int  # blocks on their way to L2
    prefetched: int  # blocks that came
    prefetch_failed: int  # blocks that did not: damaged records, errors and deadlines of the device
    prefetch_cancelled: (
        int  # blocks that nobody waited for any more: read or released before they came
    )
    overflows: int  # finite values that became infinite when a block was packed

    @property
    def held_bytes(self) -> int:
        """Memory of all tiers."""
        return self.l1_bytes + self.l2_bytes + self.l3_bytes + self.metadata_bytes
