"""The demo's run: one long prompt, one continuation, an exact cache and coded ones side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from transformers import DynamicCache

from speckv_pynq.bench import machine
from speckv_pynq.bench.budgets import l1_share_bytes
from speckv_pynq.bench.decoding import Lane, decode, same_prefix
from speckv_pynq.bench.evaluation import score_text
from speckv_pynq.bench.models import Loaded, need_tokens
from speckv_pynq.bench.quality import Quality
from speckv_pynq.errors import ConfigError
from speckv_pynq.integrations.transformers import CacheConfig, CacheStats, SpecKVCache

QUESTION = "\n\nSay in a few sentences what the text above is about."
Step = Callable[[str, int], None]  # stage, units of it done


@dataclass(frozen=True)
class Settings:
    """Tokens of the prompt, generated, and of text scored after it; l1_share: of the cache's blocks kept in L1."""

    prompt_tokens: int = 3072
    new_tokens: int = 64
    score_tokens: int = 1024
    l1_share: float = 0.25

    def __post_init__(self) -> None:
        for name, least in (("prompt_tokens", 64), ("new_tokens", 1), ("score_tokens", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} {getattr(self, name)} < {least}")
        if not 0 <= self.l1_share <= 1:
            raise ConfigError(f"l1_share {self.l1_share} is not within 0..1")


@dataclass(frozen=True)
class Hits:
    """Blocks read while decoding, by the tier that had them."""

    l1: int
    l2: int
    l3: int

    @property
    def l1_share(self) -> float:
        """Share that L1 had."""
        return self.l1 / max(1, self.l1 + self.l2 + self.l3)


@dataclass(frozen=True)
class Coded:
    """What one coded cache did.

    quality: its interval treats chunks of one block as independent; timeline: after the prompt and after each step.
    same_tokens: first generated tokens that are those of the exact cache. codebook_bytes: 0 without one.
    """

    config: CacheConfig
    quality: Quality
    lane: Lane
    timeline: tuple[CacheStats, ...]
    hits: Hits
    text: str
    same_tokens: int
    codebook_bytes: int

    @property
    def stats(self) -> CacheStats:
        """When the last token was generated."""
        return self.timeline[-1]

    def report(self) -> dict[str, Any]:
        """The figures, flat, for JSON."""
        stats = self.stats
        return {
            "scheme": self.config.scheme,
            "ratio_records": stats.ratio_records,
            "ratio_held": stats.ratio_held,
            "fp16_bytes": stats.fp16_bytes,
            "held_bytes": stats.held_bytes,
            "l1_bytes": stats.tiers.l1_bytes,
            "l2_bytes": stats.tiers.l2_bytes,
            "workspace_bytes": stats.workspace_bytes,
            "codebook_bytes": self.codebook_bytes,
            "raw_fallbacks": stats.tiers.raw_fallbacks,
            "int4_fallbacks": stats.tiers.int4_fallbacks,
            **{k: v for k, v in asdict(self.quality).items() if k not in ("tokens", "sequences")},
            "scored_tokens": self.quality.tokens,
            "same_tokens": self.same_tokens,
            "generated_tokens": len(self.lane.tokens),
            "tokens_per_s": self.lane.tokens_per_s,
            "prefill_s": self.lane.prefill_s,
            "hits": {**asdict(self.hits), "l1_share": self.hits.l1_share},
            "text": self.text,
        }


@dataclass(frozen=True)
class Result:
    """Everything that the demo shows: the exact cache and the coded ones, in the order asked for."""

    settings: Settings
    exact: Lane
    exact_text: str
    coded: tuple[Coded, ...]
    seconds: float
    peak_rss_bytes: int

    def report(self) -> dict[str, Any]:
        """The figures for JSON: those of the first coded cache, and of each under `results`."""
        reports = [coded.report() for coded in self.coded]
        return {
            **reports[0],
            **asdict(self.settings),
            "exact_tokens_per_s": self.exact.tokens_per_s,
            "exact_prefill_s": self.exact.prefill_s,
            "peak_rss_mb": self.peak_rss_bytes / 1e6,
            "seconds": self.seconds,
            "exact_text": self.exact_text,
            "results": reports,
        }


@torch.inference_mode()
def run(
    loaded: Loaded,
    text: str,
    configs: Sequence[CacheConfig],
    settings: Settings,
    step: Step = lambda stage, done: None,
) -> Result:
    """Prompt, `new_tokens` greedy tokens on all caches, then the text's own continuation scored through them."""
    started = time.perf_counter()
    prompt, text_end, rest = _prompt(loaded, text, settings)
    final = len(prompt) + settings.new_tokens
    model, share = loaded.model, settings.l1_share
    configs = [replace(c, l1_bytes=l1_share_bytes(model, c, final, share)) for c in configs]
    exact = Lane("exact", DynamicCache(config=model.config))
    with ExitStack() as stack:
        caches = [stack.enter_context(SpecKVCache.for_model(model, c)) for c in configs]
        lanes = [
            exact,
            *(Lane(c.scheme, cache) for c, cache in zip(configs, caches, strict=True)),
        ]
        for lane in lanes:
            lane.prefill(model, prompt)
            step("prompt", len(prompt))
        timelines = [[cache.stats()] for cache in caches]

        def after_step() -> None:
            for cache, timeline in zip(caches, timelines, strict=True):
                timeline.append(cache.stats())
            step("generate", 1)

        decode(model, lanes, settings.new_tokens, after_step=after_step)
        peak = machine.peak_rss_bytes()  # scoring needs memory for logits that generation does not
        for lane in lanes:
            lane.cache.crop(text_end - lane.cache.get_seq_length())
        scored = score_text(
            model, rest[None], exact.cache, caches, configs[0], lambda n: step("score", n)
        )
        coded = [
            Coded(
                config=config,
                quality=Quality.of(sums[:, 0], seed=0),
                lane=lane,
                timeline=tuple(timeline),
                hits=_hits(timeline[0], timeline[-1]),
                text=loaded.tokenizer.decode(lane.tokens),
                same_tokens=same_prefix(exact.tokens, lane.tokens),
                codebook_bytes=cache.codebook_bytes,
            )
            for config, sums, lane, cache, timeline in zip(
                configs, scored, lanes[1:], caches, timelines, strict=True
            )
        ]
    return Result(
        settings=settings,
        exact=exact,
        exact_text=loaded.tokenizer.decode(exact.tokens),
        coded=tuple(coded),
        seconds=time.perf_counter() - started,
        peak_rss_bytes=peak,
    )


def _prompt(
    loaded: Loaded, text: str, settings: Settings
) -> tuple[torch.Tensor, int, torch.Tensor]:
    """Token ids of the prompt, where the text ends within it, and ids of the text that follows there.

    A chat model gets the text as a message with a question behind it; other models the bare text.
    """
    ids = loaded.encode(text)
    mark = "\x02"
    before, after = "", ""
    if getattr(loaded.tokenizer, "chat_template", None):
        chat = loaded.tokenizer.apply_chat_template(
            [{"role": "user", "content": mark + QUESTION}],
            tokenize=False,
            add_generation_prompt=True,
        )
        before, _, after = chat.partition(mark)
    head, tail = loaded.encode(before), loaded.encode(after)
    taken = settings.prompt_tokens - len(head) - len(tail)
    if taken < 1:
        raise ConfigError(f"prompt_tokens {settings.prompt_tokens} leave no room for the text")
    need_tokens(ids, taken + settings.score_tokens, "the demo's text")
    prompt = torch.cat([head, ids[:taken], tail])
    return prompt, len(head) + taken, ids[taken : taken + settings.score_tokens]


def _hits(before: CacheStats, after: CacheStats) -> Hits:
    a, b = before.tiers, after.tiers
    return Hits(b.hits_l1 - a.hits_l1, b.hits_l2 - a.hits_l2, b.misses - a.misses)
