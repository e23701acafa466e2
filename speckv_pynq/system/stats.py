"""What a system holds and has done, as a plain object and as text for Prometheus."""

from __future__ import annotations

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
    lines: list[str] = []
    for name, text, samples in _metrics(stats):
        lines.append(f"# HELP {name} {text}")
        lines.append(f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}")
        for labels, value in samples.items():
            lines.append(f"{name}{{{labels}}} {value}" if labels else f"{name} {value}")
    return "\n".join(lines) + "\n"


def _metrics(stats: SystemStats) -> list[tuple[str, str, dict[str, int]]]:
    """Name, what it is, and values by labels."""
    t = stats.tiers
    return [
        ("speckv_tier_bytes", "Memory that a tier holds.",
         {'tier="l1"': t.l1_bytes, 'tier="l2"': t.l2_bytes, 'tier="l3"': t.l3_bytes}),
        ("speckv_l1_blocks", "Blocks decoded in L1, by the decayed number of their uses (policy heat).",
         {'heat="hot"': t.l1_hot_blocks, 'heat="cold"': t.l1_blocks - t.l1_hot_blocks}),
        ("speckv_metadata_bytes", "Tables beside the tiers.",
         {"": t.metadata_bytes + stats.metadata_bytes}),
        ("speckv_blocks", "Blocks held.", {"": t.blocks}),
        ("speckv_block_fp16_bytes", "What the blocks held would take in FP16.", {"": t.block_fp16_bytes}),
        ("speckv_record_bytes", "Records of those blocks.", {"": t.record_bytes}),
        ("speckv_requests", "Requests with blocks in the page table.", {"": stats.requests}),
        ("speckv_mapped_blocks", "Entries of the page table.", {"": stats.mapped_blocks}),
        ("speckv_leases", "Leases that agents hold.", {"": stats.leases}),
        ("speckv_agents", "Agents registered.", {"": stats.agents}),
        ("speckv_lookups_total", "Blocks looked up, by where they were found.",
         {'tier="l1"': t.hits_l1, 'tier="l2"': t.hits_l2, 'tier="l3"': t.misses}),
        ("speckv_prefetched_blocks_total", "Blocks asked to L2 early, by what became of them.",
         {'outcome="came"': t.prefetched, 'outcome="failed"': t.prefetch_failed,
          'outcome="cancelled"': t.prefetch_cancelled}),
        ("speckv_codec_bytes_total", "Bytes of decoded blocks through the kernels.",
         {'direction="encode"': t.bytes_encoded, 'direction="decode"': t.bytes_decoded}),
        ("speckv_shared_blocks_total", "Blocks that were held already.", {"": t.shared_blocks}),
        ("speckv_fallback_records_total", "Records in a plainer scheme than the one asked for.",
         {'scheme="raw"': t.raw_fallbacks, 'scheme="int4"': t.int4_fallbacks}),
        ("speckv_recalls_total", "Leases recalled.", {"": stats.recalls}),
        ("speckv_fenced_agents_total", "Agents fenced.", {"": stats.fenced_agents}),
    ]  # fmt: skip
