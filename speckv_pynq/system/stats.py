"""What a system holds and has done, as a plain object and as text for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from speckv_pynq.tiers import TierStats


@dataclass(frozen=True)
class SystemStats:
    """requests, mapped_blocks: of the page table, blocks counted once a request. agents, leases: of the directory.

    metadata_bytes: page table and directory; the tiers' own is in `tiers`.
    """

    tiers: TierStats
    requests: int
    mapped_blocks: int
    agents: int
    leases: int
    recalls: int
    fenced_agents: int
    metadata_bytes: int

    @property
    def held_bytes(self) -> int:
        """Memory of all tiers and tables."""
        return self.tiers.held_bytes + self.metadata_bytes


def prometheus(stats: SystemStats) -> str:
    """The text exposition format, version 0.0.4."""
    return "\n".join(_lines(stats)) + "\n"


def _lines(stats: SystemStats) -> Iterator[str]:
    tiers = stats.tiers
    yield from _metric(
        "speckv_tier_bytes", "gauge", "Memory that a tier holds.",
        [('tier="l1"', tiers.l1_bytes), ('tier="l2"', tiers.l2_bytes), ('tier="l3"', tiers.l3_bytes)],
    )  # fmt: skip
    yield from _metric(
        "speckv_l1_blocks", "gauge", "Blocks decoded in L1, by the decayed number of their uses (policy heat).",
        [('heat="hot"', tiers.l1_hot_blocks), ('heat="cold"', tiers.l1_blocks - tiers.l1_hot_blocks)],
    )  # fmt: skip
    yield from _metric(
        "speckv_metadata_bytes", "gauge", "Tables beside the tiers.",
        [("", tiers.metadata_bytes + stats.metadata_bytes)],
    )  # fmt: skip
    yield from _metric("speckv_blocks", "gauge", "Blocks held.", [("", tiers.blocks)])
    yield from _metric(
        "speckv_block_fp16_bytes",
        "gauge",
        "What the blocks held would take in FP16.",
        [("", tiers.block_fp16_bytes)],
    )
    yield from _metric(
        "speckv_record_bytes", "gauge", "Records of those blocks.", [("", tiers.record_bytes)]
    )
    yield from _metric(
        "speckv_requests",
        "gauge",
        "Requests with blocks in the page table.",
        [("", stats.requests)],
    )
    yield from _metric(
        "speckv_mapped_blocks", "gauge", "Entries of the page table.", [("", stats.mapped_blocks)]
    )
    yield from _metric("speckv_leases", "gauge", "Leases that agents hold.", [("", stats.leases)])
    yield from _metric("speckv_agents", "gauge", "Agents registered.", [("", stats.agents)])
    yield from _metric(
        "speckv_lookups_total", "counter", "Blocks looked up, by where they were found.",
        [('tier="l1"', tiers.hits_l1), ('tier="l2"', tiers.hits_l2), ('tier="l3"', tiers.misses)],
    )  # fmt: skip
    yield from _metric(
        "speckv_prefetched_blocks_total", "counter", "Blocks asked to L2 early, by what became of them.",
        [
            ('outcome="came"', tiers.prefetched),
            ('outcome="failed"', tiers.prefetch_failed),
            ('outcome="cancelled"', tiers.prefetch_cancelled),
        ],
    )  # fmt: skip
    yield from _metric(
        "speckv_codec_bytes_total", "counter", "Bytes of decoded blocks through the kernels.",
        [('direction="encode"', tiers.bytes_encoded), ('direction="decode"', tiers.bytes_decoded)],
    )  # fmt: skip
    yield from _metric(
        "speckv_shared_blocks_total",
        "counter",
        "Blocks that were held already.",
        [("", tiers.shared_blocks)],
    )
    yield from _metric(
        "speckv_fallback_records_total", "counter", "Records in a plainer scheme than the one asked for.",
        [('scheme="raw"', tiers.raw_fallbacks), ('scheme="int4"', tiers.int4_fallbacks)],
    )  # fmt: skip
    yield from _metric("speckv_recalls_total", "counter", "Leases recalled.", [("", stats.recalls)])
    yield from _metric(
        "speckv_fenced_agents_total", "counter", "Agents fenced.", [("", stats.fenced_agents)]
    )


def _metric(name: str, kind: str, text: str, samples: list[tuple[str, int]]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"
