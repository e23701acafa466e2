"""Requests of many conversations, agents and callers of an API: made up from published figures.

- Chats: 4.6 turns on average (142,808 shared conversations: ShareChat, arXiv 2512.17843, abstract); 73 % have more
  than one (ShareGPT, by CachedAttention, arXiv 2403.19708). 80 % of returns within 10 minutes (KVCache Cache in the
  Wild, arXiv 2506.02634, trace A).
- Agents: 9.2 requests a session, median 1, 90th percentile 18; 7.8 steps after a tool's call a request, median 1, 90th
  percentile 20 (TraceLab, arXiv 2606.30560, counts per session). Gaps while a tool runs: median 2 s, mean 5 s; a
  session's first own tokens: median 5,000, mean 15,000 (AIPerf 0.13, manifest of its agentic data set); tools of one
  name take times of their own, from milliseconds to tens of seconds (Continuum, arXiv 2511.02230). Common beginnings
  of 890 to 17,300 tokens of tools and 498 to 7,460 of system prompt (cc-traces-weka-042026). Answers of 182 tokens on
  average (Mooncake, arXiv 2407.00079, sec. 4.2).
- API callers: hardly any return; what is read again are prompts' common beginnings (97 %: 2506.02634, trace B).
- Answers' lengths are exponential, prompts' log-normal, arrivals burstier than Poisson's (ServeGen, arXiv 2505.09999).

All else is chosen: rates, spreads, lengths that no figure above gives, Zipf's law for what is popular.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

BLOCK_TOKENS: Final = 512  # as in Mooncake's traces
TOKEN_S: Final = 0.02  # of an answer: 50 tokens a second; chosen
Rng = np.random.Generator
Gap = tuple[str, float, float]  # what a turn ends with, pace and length in s of what follows


@dataclass(frozen=True)
class Request:
    """blocks: (n,) ids of all whole blocks that it has when it ends, those of its prompt's beginning first.

    ends_s: when its answer is complete. kind: what it ended with, as far as a server knows: whose it is, and which tool
    it called. pace_s: of made traces, the scale that the gap after it was drawn with; no predictor is told, but where
    the most that any could know is asked for.
    """

    starts_s: float
    ends_s: float
    blocks: npt.NDArray[np.int64]
    kind: str = ""
    pace_s: float = 1.0


@dataclass(frozen=True)
class RequestTrace:
    """requests: by start; their blocks are 0..blocks - 1."""

    name: str
    requests: list[Request]
    blocks: int

    def first(self, requests: int) -> RequestTrace:
        """Of its first requests alone."""
        return renumbered(self.name, self.requests[:requests])

    def live(self) -> float:
        """Blocks that were read and will be read again, on average over requests: room enough to find all of them."""
        first, last = np.full(self.blocks, -1), np.zeros(self.blocks, np.int64)
        for i, request in enumerate(self.requests):
            new = request.blocks[first[request.blocks] < 0]
            first[new] = i
            last[request.blocks] = i
        return float((last - first).sum()) / max(1, len(self.requests))

    def events(self) -> list[tuple[int, bool]]:
        """Requests as they begin and end (True), in order of time; at the same time ends come first."""
        found: list[tuple[int, bool]] = []
        under_way: list[tuple[float, int]] = []
        for i, request in enumerate(self.requests):
            while under_way and under_way[0][0] <= request.starts_s:
                found.append((heapq.heappop(under_way)[1], True))
            found.append((i, False))
            heapq.heappush(under_way, (request.ends_s, i))
        return found

    @property
    def uses(self) -> int:
        return sum(len(request.blocks) for request in self.requests)

    @property
    def calls(self) -> list[npt.NDArray[np.int64]]:
        """The blocks of each request."""
        return [request.blocks for request in self.requests]


def renumbered(name: str, requests: list[Request]) -> RequestTrace:
    """A trace with blocks numbered from 0 in order of first use; requests: in any order."""
    ordered = sorted(requests, key=lambda request: request.starts_s)
    if not ordered:
        return RequestTrace(name, [], 0)
    every = np.concatenate([request.blocks for request in ordered])
    _, first, numbers = np.unique(every, return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    ends = np.cumsum([len(request.blocks) for request in ordered])[:-1]
    blocks = np.split(place[numbers], ends)
    found = [replace(request, blocks=those) for request, those in zip(ordered, blocks, strict=True)]
    return RequestTrace(name, found, len(first))


# Sessions that begin in an hour, chosen so that each trace has a few thousand requests.
PER_HOUR: Final = {"chat": 600, "agents": 60, "api": 2400}
BURSTS: Final = 0.5  # shape of the gamma distribution of arrivals; 1 would be Poisson's
# Median; spread of the logarithm between people; of one: 80 % under 600 s in all.
HUMAN_S: Final = (120.0, 1.2, 1.47)
TOOL_S: Final = (2.0, 1.1, 0.8)  # the same of tools: mean 5 s in all, spread 1.35
TOOLS: Final = 20  # the same ones in every trace, used by Zipf's law
MOST_TOKENS: Final = 128 << 10  # then a session ends


class _Ids:
    """Blocks of prompts: whole ones alone have an id."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, tokens: float) -> list[int]:
        count = int(tokens) // BLOCK_TOKENS
        self._next += count
        return list(range(self._next - count, self._next))


def chat(rng: Rng, hours: float, ids: _Ids) -> Iterator[Request]:
    """People who talk: few turns, minutes between them."""
    prompts = [ids.take(tokens) for tokens in (0, 1024, 2048, 3072)]
    for start in _arrivals(rng, PER_HOUR["chat"], hours):
        turns = 1 if rng.random() < 0.27 else 1 + int(rng.geometric(1 / 4.93))
        pause = HUMAN_S[0] * rng.lognormal(0, HUMAN_S[1])
        yield from _session(
            rng, ids, start, list(prompts[rng.integers(len(prompts))]),
            first_tokens=rng.lognormal(math.log(1500), 1.3),
            last=("chat", pause),
            gaps=(("chat", pause, pause * rng.lognormal(0, HUMAN_S[2])) for _ in range(turns - 1)),
            appended=lambda: rng.lognormal(math.log(150), 1.2),
            answer=lambda: rng.exponential(400),
        )  # fmt: skip


def agents(rng: Rng, hours: float, ids: _Ids) -> Iterator[Request]:
    """Loops of tool calls, seconds apart, and a person between them who may come back."""
    tools = [ids.take(tokens) for tokens in rng.uniform(1400, 24_700, 8)]
    popular = 1 / np.arange(1, len(tools) + 1)
    medians = TOOL_S[0] * np.random.default_rng(TOOLS).lognormal(0, TOOL_S[1], TOOLS)
    used = 1 / np.arange(1, len(medians) + 1)
    used /= used.sum()

    def gaps(person: float) -> Iterator[Gap]:
        for request in range(_tailed(rng, 1.2, 2.1, 150)):
            if request:
                yield "agent", person, person * rng.lognormal(0, HUMAN_S[2])
            for _ in range(_tailed(rng, 1.3, 2.1, 100)):
                tool = int(rng.choice(len(medians), p=used))
                pace = float(medians[tool])
                yield f"tool {tool}", pace, pace * rng.lognormal(0, TOOL_S[2])

    for start in _arrivals(rng, PER_HOUR["agents"], hours):
        person = HUMAN_S[0] * rng.lognormal(0, HUMAN_S[1])
        yield from _session(
            rng, ids, start, list(tools[rng.choice(len(tools), p=popular / popular.sum())]),
            first_tokens=rng.lognormal(math.log(5000), 1.48),
            last=("agent", person),
            gaps=gaps(person),
            appended=lambda: rng.lognormal(math.log(1000), 1.3),
            answer=lambda: rng.exponential(182),
        )  # fmt: skip


def api(rng: Rng, hours: float, ids: _Ids) -> Iterator[Request]:
    """Programs that fill in templates: each call's own part never comes back."""
    templates = [ids.take(tokens) for tokens in rng.lognormal(math.log(2500), 0.8, 60)]
    popular = np.arange(1, len(templates) + 1) ** -1.5
    popular /= popular.sum()
    for start in _arrivals(rng, PER_HOUR["api"], hours):
        yield from _session(
            rng, ids, start, list(templates[rng.choice(len(templates), p=popular)]),
            first_tokens=rng.lognormal(math.log(1500), 1.0),
            last=("api", 1.0),
            gaps=iter(()),
            appended=lambda: 0.0,
            answer=lambda: rng.exponential(182),
        )  # fmt: skip


_PARTS: Final = {"chat": chat, "agents": agents, "api": api}
MIXES: Final = {
    "chat": ("chat",), "agents": ("agents",), "mixed": ("chat", "agents", "api"),
}  # fmt: skip


def made(name: str, seed: int, hours: float = 1.0) -> RequestTrace:
    """A trace of MIXES; the same for the same seed. What goes on after `hours` is cut off."""
    rng, ids = np.random.default_rng([seed, len(name)]), _Ids()
    found = [request for part in MIXES[name] for request in _PARTS[part](rng, hours, ids)]
    return renumbered(name, [request for request in found if request.starts_s < 3600 * hours])


def _arrivals(rng: Rng, per_hour: float, hours: float) -> list[float]:
    count = int(2 * per_hour * hours + 50)
    gaps = rng.gamma(BURSTS, 3600 / per_hour / BURSTS, count)
    times = np.cumsum(gaps)
    return times[times < 3600 * hours].tolist()


def _tailed(rng: Rng, median: float, spread: float, most: int) -> int:
    return min(most, int(rng.lognormal(math.log(median), spread)))


def _session(
    rng: Rng,
    ids: _Ids,
    start_s: float,
    blocks: list[int],
    *,
    first_tokens: float,
    last: tuple[str, float],
    gaps: Iterator[Gap],
    appended: Callable[[], float],
    answer: Callable[[], float],
) -> Iterator[Request]:
    """Its requests; last: of the last turn, what it ends with, and at what pace it would have gone on."""
    tokens, over = first_tokens, 0.0
    while True:
        out = answer()
        over += tokens + out
        new = ids.take(over)
        over -= len(new) * BLOCK_TOKENS
        blocks += new
        ends_s = start_s + TOKEN_S * out
        kind, pace_s, gap_s = next(gaps, (*last, math.inf))
        yield Request(start_s, ends_s, np.array(blocks, np.int64), kind, pace_s)
        if not math.isfinite(gap_s) or len(blocks) * BLOCK_TOKENS > MOST_TOKENS:
            return
        start_s, tokens = ends_s + gap_s, appended()
