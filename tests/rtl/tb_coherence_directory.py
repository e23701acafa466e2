"""coherence_directory against the reference directory: every answer and every notice, by every order of requests."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from speckv_pynq import spec
from speckv_pynq.spec import DirectoryEvent, DirectoryState, HomeAnswer, HomeRequest
from tests.rtl.bench import Coverage, begin, report, rng, setting
from tests.rtl.directory_home import HOME, ExpectedHome, Notice, Request, set_of

CELLS = [
    f"{state.name}:{event.name}"
    for state in DirectoryState
    for event in DirectoryEvent
    if spec.DIRECTORY_TABLE[state][event].legal
]
# They are about all blocks.
WITHOUT_KEY = (HomeRequest.FENCE, HomeRequest.JOIN)


class Bench:
    """Asks one thing after another and compares; notices may come later, in order, up to the next eviction."""

    def __init__(self, dut: Any) -> None:
        self.dut, self.chance = dut, rng()
        self.agents, self.ways = setting("agents", 4), setting("ways", 4)
        self.home = ExpectedHome(set_of(setting("sets", 4)), self.ways)
        self.stall = setting("stall", 0.0)
        self.coverage = Coverage(
            cell=CELLS, answer=[a.name for a in HomeAnswer], request=[r.name for r in HomeRequest]
        )
        self.expected: deque[Counter[Notice]] = deque()
        self.seen: list[Notice] = []
        self.held: Notice | None = None
        self.operations = self.longest = self.longest_fence = self.cycles = 0

    async def start(self) -> None:
        names = ("request_valid_i", "request_op_i", "request_agent_i", "request_key_i")
        await begin(self.dut, [*names, "answer_ready_i", "notice_ready_i"])

    async def cycle(self) -> int | None:
        """One clock cycle; returns the answer taken in it. Notices taken are checked."""
        dut = self.dut
        take_answer = self.chance.random() >= self.stall
        take_notice = self.chance.random() >= self.stall
        dut.answer_ready_i.value, dut.notice_ready_i.value = take_answer, take_notice
        await ReadOnly()
        self.cycles += 1
        self.offered = bool(dut.answer_valid_o.value)
        self.accepted = bool(dut.request_ready_o.value)
        answer = int(dut.answer_o.value) if self.offered and take_answer else None
        if dut.notice_valid_o.value:
            notice = self.notice()
            assert self.held in (None, notice), "a notice changed while it waited"
            self.held = None if take_notice else notice
            if take_notice:
                self.seen.append(notice)
        else:
            assert self.held is None, "a notice was withdrawn"
        await FallingEdge(dut.clk_i)
        return answer

    def notice(self) -> Notice:
        dut = self.dut
        recall, served = bool(dut.notice_recall_o.value), bool(dut.notice_serve_o.value)
        return Notice(
            int(dut.notice_key_o.value),
            int(dut.notice_recalled_o.value) if recall else 0,
            recall and bool(dut.notice_downgrade_o.value),
            recall and bool(dut.notice_evict_o.value),
            int(dut.notice_served_o.value) if served else None,
            served and bool(dut.notice_write_o.value),
            bool(dut.notice_lost_o.value),
        )

    async def send(self, request: Request) -> HomeAnswer:
        dut = self.dut
        dut.request_op_i.value, dut.request_agent_i.value = int(request.op), request.agent
        dut.request_key_i.value = request.key
        dut.request_valid_i.value = 1
        for _ in range(100_000):
            await self.cycle()
            if self.accepted:
                break
        dut.request_valid_i.value = 0
        latency = 0
        for waited in range(1, 100_000):
            answer = await self.cycle()
            if self.offered and not latency:
                latency = waited
            if answer is not None:
                if request.op == HomeRequest.FENCE:
                    self.longest_fence = max(self.longest_fence, latency)
                else:
                    self.longest = max(self.longest, latency)
                return HomeAnswer(answer)
        raise AssertionError(f"no answer to {request}")

    async def drain(self) -> None:
        """Until every notice that is due has come; a stray one would be found by the next check."""
        for _ in range(200):
            if len(self.seen) >= sum(sum(group.values()) for group in self.expected):
                break
            await self.cycle()

    def settle(self) -> None:
        """Compares the notices that have come."""
        while self.expected and len(self.seen) >= self.expected[0].total():
            group = self.expected.popleft()
            got = Counter(self.seen[: group.total()])
            assert got == group, f"notices {got}, not {group}"
            del self.seen[: group.total()]

    def check(self) -> None:
        self.settle()
        assert not self.seen or self.expected, f"nothing said, but {self.seen}"

    async def ask(self, request: Request) -> HomeAnswer:
        self.operations += 1
        self.coverage.hit("request", request.op.name)
        victims = self.home.victims(request)
        got = await self.send(request)
        self.coverage.hit("answer", got.name)
        if victims is None:
            want, notices = self.home.ask(request)
            self.note(notices)
        else:
            inside = self.home.neighbours(request.key)
            evicting = any(b.waiter == HOME for b in inside.values())
            want = HomeAnswer.EVICTING if victims or evicting else HomeAnswer.BUSY
            if victims:
                await self.drain()
                self.settle()
                while not self.seen:
                    await self.cycle()
                assert self.seen[0].key in victims, f"evicts {self.seen[0]}, not one of {victims}"
                self.note([self.home.evict(self.seen[0].key)])
        assert got == want, (
            f"{request}: {got.name}, not {want.name}; {self.home.block(request.key)}"
        )
        return got

    def note(self, notices: list[Notice]) -> None:
        for state, event in self.home.cells():
            self.coverage.hit("cell", f"{state.name}:{event.name}")
        if notices:
            self.expected.append(Counter(notices))
        self.check()

    async def finish(self) -> None:
        await self.drain()
        for _ in range(20):
            await self.cycle()
        self.check()
        assert not self.expected, f"never said: {self.expected}"
        dut, model = self.dut, self.home.model
        assert int(dut.write_backs_o.value) == model.write_backs
        assert int(dut.losses_o.value) == model.lost
        assert int(dut.recalls_o.value) == model.recalls
        report(operations=self.operations, latency_cycles=self.longest, cycles=self.cycles)


@cocotb.test()
async def random_requests(dut: Any) -> None:
    """Agents that mostly keep the rules, and sometimes do not."""
    bench = Bench(dut)
    await bench.start()
    chance = bench.chance
    keys: list[int] = []
    while len(keys) < setting("keys", 24):
        key = chance.getrandbits(spec.ADDRESS_BITS)
        if bench.home.set_of(key) < setting("in_sets", 1 << 32):
            keys.append(key)
    for _ in range(setting("operations", 6000)):
        await bench.ask(next(requests(bench, keys)))
    await bench.finish()
    report(longest_fence=bench.longest_fence)
    bench.coverage.finish()


def requests(bench: Bench, keys: list[int]) -> Iterator[Request]:
    chance, home = bench.chance, bench.home
    while True:
        agent, key = chance.randrange(bench.agents), chance.choice(keys)
        if agent not in home.model.agents and chance.random() < 0.6:
            yield Request(HomeRequest.JOIN, agent)
        elif chance.random() < 0.03:
            several = [r for b in home.model.blocks.values() if len(r := b.recalled()) > 1]
            yield Request(HomeRequest.FENCE, min(chance.choice(several)) if several else agent)
        elif chance.random() < 0.1:
            yield Request(chance.choice(list(HomeRequest)[:6]), agent, key)
        else:
            busy = [k for k, b in home.model.blocks.items() if agent in b.recalled()]
            held = [k for k, b in home.model.blocks.items() if agent in (*b.holders, b.waiter)]
            key = chance.choice(busy if busy and chance.random() < 0.5 else held or keys)
            block = home.block(key)
            if not held or chance.random() < 0.6:
                op = chance.choice([HomeRequest.GET_SHARED, HomeRequest.GET_MODIFIED])
                key = key if chance.random() < 0.3 else keys[int(len(keys) * chance.random() ** 4)]
            elif agent in block.holders and home.model.has_writer(block.state):
                op = chance.choice(list(HomeRequest)[2:6])
            else:
                op = chance.choice([HomeRequest.PUT_CLEAN, HomeRequest.ACK])
            yield Request(op, agent, key)


@cocotb.test()
async def every_state(dut: Any) -> None:
    """Every request in every state that a few agents and blocks can reach with one entry: a walk through all."""
    bench = Bench(dut)
    await bench.start()
    keys = range(setting("keys", 2))
    requests = [
        Request(op, agent, key)
        for op in HomeRequest
        for agent in range(bench.agents)
        for key in (keys if op not in WITHOUT_KEY else keys[:1])
    ]
    todo: dict[Any, list[Request]] = {}
    edges: dict[Any, dict[Request, Any]] = {}

    def here() -> Any:
        model = bench.home.model
        blocks = sorted((k, b.state, b.holders, b.waiter) for k, b in model.blocks.items())
        return tuple(blocks), frozenset(model.agents)

    async def step(request: Request) -> None:
        before = here()
        await bench.ask(request)
        edges.setdefault(before, {})[request] = here()
        todo.setdefault(here(), requests.copy())

    todo[here()] = requests.copy()
    while True:
        state = here()
        if todo[state]:
            await step(todo[state].pop())
            continue
        way = path(edges, state, lambda s: bool(todo[s]))
        if way is None:
            break
        for request in way:
            await step(request)
    await bench.finish()
    assert not any(todo.values())
    report(states=len(todo), transitions=len(todo) * len(requests))
    bench.coverage.finish()


def path(edges: dict[Any, dict[Request, Any]], start: Any, wanted: Any) -> list[Request] | None:
    """The shortest way to a wanted state by requests whose effect is known."""
    before: dict[Any, tuple[Any, Request] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        if wanted(state):
            way = []
            while (step := before[state]) is not None:
                state = step[0]
                way.append(step[1])
            return way[::-1]
        for request, after in edges.get(state, {}).items():
            if after not in before:
                before[after] = (state, request)
                queue.append(after)
    return None
