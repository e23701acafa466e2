"""What stands around prefetch_core in a bench: predictor, translation unit, mover, the owner of L2, and who asks."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from speckv_pynq import spec
from speckv_pynq.address import KVAddress, pack_address
from speckv_pynq.prefetch.dense import after

OK, PUSHED_OUT, CANCELLED, NO_PREDICTION, NO_ROOM = range(5)
SHIFT, TOKENS = 5, 32
SLOT_BYTES = 131072
SLOT_BASE = 1 << 32
KEY_MASK = (
    (1 << 89) - 1 & ~((1 << 41) - (1 << 33)) & ~((TOKENS << 1) - 1)
)  # no head, kind, place in the block


def key_of(req_id: int, layer: int, block: int) -> int:
    high, low = pack_address(req_id, layer, 0, block * TOKENS, 0)
    return high << 64 | low


def request_of(key: int) -> int:
    return key >> 57


def packed(structure: np.dtype, /, **fields: int) -> int:
    one = np.zeros((), structure)
    for name, value in fields.items():
        one[name] = value
    return int.from_bytes(one.tobytes(), "little")


@dataclass
class Hint:
    req_id: int
    layer: int
    position: int
    depth: int
    dense: int = 1
    owner: int = 0
    priority: int = 0


@dataclass
class World:
    """All of it, one cycle at a time. positions: what the predictor says for (req_id, position)."""

    dut: Any
    layers: int = 4
    stall: float = 0.0
    walk_cycles: tuple[int, int] = (4, 4)
    move_cycles: tuple[int, int] = (10, 60)
    fail: float = 0.0  # of moves
    pages: dict[int, dict[str, int]] = field(default_factory=dict)  # key: fields of its entry
    positions: Callable[[int, int], list[int]] = lambda req_id, position: []
    predictor_deaf: bool = False
    predictor_mute: bool = False
    slots: deque[int] = field(default_factory=deque)  # free ones
    no_slots: bool = False

    def __post_init__(self) -> None:
        self.cycle = 0
        self.hints: deque[Hint] = deque()
        self.cancels: deque[int] = deque()
        self.notes: deque[tuple[int, int, int]] = deque()  # resident, address, used
        self.sent: list[Hint] = []
        self.sent_at: list[int] = []
        self.results: dict[int, tuple[int, int]] = {}  # tag: status, issued
        self.result_at: dict[int, int] = {}
        self.answers: deque[tuple[int, int, int]] = deque()  # of the predictor: id, candidate, last
        self.asked: list[tuple[int, int]] = []
        self.lookups: list[tuple[int, int, int]] = []  # due, id, key
        self.looked_up: list[int] = []
        self.moves: dict[int, tuple[int, int, int, int]] = {}  # id: due, key, slot, descriptor
        self.held: dict[int, int] = {}  # slot: key, of blocks in L2
        self.issued: list[tuple[int, int, int]] = []  # cycle, key, slot
        self.lines = 0
        self.most_moving = 0
        self.ended: dict[
            int, tuple[int, bool]
        ] = {}  # slot: key, ok; until it is filled or returned
        self.taken: set[int] = set()  # slots inside the module
        self.cancelled_at: dict[int, int] = {}
        self.returned: list[int] = []
        self.waiting: dict[str, Any] = {}
        self.offered: dict[str, bool] = {}

    def configure(self, **values: int) -> None:
        defaults = {
            "prefetch_depth_i": 8,
            "most_moving_i": 16,
            "rate_i": 0,
            "burst_lines_i": 0,
            "layers_i": self.layers,
            "layer_step_i": 1,
            "block_shift_i": SHIFT,
            "key_mask_i": KEY_MASK,
            "slot_base_i": SLOT_BASE,
        }
        for name, value in (defaults | values).items():
            getattr(self.dut, name).value = value

    def map(
        self, req_id: int, blocks: int, chance: random.Random, holes: float = 0.0, heads: int = 4
    ) -> None:
        """Blocks of a request in every layer."""
        for layer in range(self.layers):
            for block in range(blocks):
                if chance.random() >= holes:
                    self.pages[key_of(req_id, layer, block)] = {
                        "record_offset": 64 * chance.randrange(1 << 20),
                        "record_bytes": 64 * chance.randint(1, 1000),
                        "layout_fingerprint": chance.getrandbits(64),
                        "codebook_fingerprint": chance.getrandbits(64),
                        "first_position": block * TOKENS,
                        "tokens": TOKENS,
                        "heads": heads,
                        "head_dim": 128,
                        "first_layer": layer,
                        "codebook_slot": layer,
                        "dtype": chance.randrange(2),
                        "kinds": chance.choice([1, 2, 3, 3, 3]),
                        "layer_count": 1,
                    }

    # What the module should ask for, by the definition of SpecKV's prefetch_step.
    def wanted(self, hint: Hint) -> list[int]:
        """Mapped keys in the order of their demand, resident ones too."""
        complete = hint.position >> SHIFT
        blocks = list(range(complete))
        if not hint.dense:
            said = [p >> SHIFT for p in self.positions(hint.req_id, hint.position)]
            blocks = [b for b in dict.fromkeys(said) if b < complete]
        keys = [
            key_of(hint.req_id, at, b)
            for at in after(range(self.layers), hint.layer)
            for b in blocks
        ]
        return [key for key in keys if key in self.pages]

    def up(self) -> set[int]:
        """Keys in L2 or on their way."""
        moving = {key for _, key, _, _ in self.moves.values()}
        return moving | set(self.held.values()) | {key for key, _ in self.ended.values()}

    # The cycle.
    def _offer(self, name: str, there: bool) -> bool:
        """Valid of an input: once up it stays."""
        up = self.offered.get(name, False) or (there and self.chance.random() >= self.stall)
        self.offered[name] = up
        getattr(self.dut, f"{name}_valid_i").value = up
        return up

    def _taken(self, name: str) -> bool:
        if self.offered.get(name) and getattr(self.dut, f"{name}_ready_o").value:
            self.offered[name] = False
            return True
        return False

    def drive(self, chance: random.Random) -> None:
        dut, self.chance, self.cycle = self.dut, chance, self.cycle + 1
        if self._offer("hint", bool(self.hints)):
            hint = self.hints[0]
            dut.hint_tag_i.value = len(self.sent)
            dut.hint_req_id_i.value, dut.hint_layer_i.value = hint.req_id, hint.layer
            dut.hint_position_i.value, dut.hint_depth_i.value = hint.position, hint.depth
            dut.hint_owner_i.value, dut.hint_priority_i.value = hint.owner, hint.priority
            dut.hint_dense_i.value = hint.dense
        cancel = bool(self.cancels)
        dut.cancel_i.value = cancel
        if cancel:
            self.cancelled_at[self.cancels[0]] = self.cycle
            dut.cancel_req_id_i.value = self.cancels.popleft()
        if self._offer("candidate", bool(self.answers) and not self.predictor_mute):
            identity, data, last = self.answers[0]
            dut.candidate_id_i.value, dut.candidate_i.value, dut.candidate_last_i.value = (
                identity,
                data,
                last,
            )
        if self._offer("note", bool(self.notes)):
            resident, address, used = self.notes[0]
            dut.note_resident_i.value, dut.note_address_i.value, dut.note_used_i.value = (
                resident,
                address,
                used,
            )
        if self._offer("slot", bool(self.slots) and not self.no_slots):
            dut.slot_i.value = self.slots[0]
        self._translate()
        self._move()
        for name in ("predict", "lookup", "descriptor", "filled", "returned", "result"):
            ready = chance.random() >= self.stall and not (
                name == "predict" and self.predictor_deaf
            )
            self.waiting.setdefault(name, None)
            self.offered[name] = ready
            getattr(dut, f"{name}_ready_i").value = ready

    def _translate(self) -> None:
        dut = self.dut
        due = [one for one in self.lookups if one[0] <= self.cycle]
        dut.translation_valid_i.value = bool(due)
        if due:
            one = self.chance.choice(due)
            self.lookups.remove(one)
            page = self.pages.get(one[2])
            dut.translation_id_i.value = one[1]
            dut.translation_status_i.value = 0 if page else self.chance.randint(1, 4)
            dut.translation_entry_i.value = packed(spec.PAGE_TABLE_ENTRY, **(page or {}))

    def _move(self) -> None:
        dut = self.dut
        due = [(identity, one) for identity, one in self.moves.items() if one[0] <= self.cycle]
        dut.moved_valid_i.value = bool(due)
        if due:
            identity, (_, key, slot, _) = self.chance.choice(due)
            del self.moves[identity]
            ok = self.chance.random() >= self.fail
            self.ended[slot] = key, ok
            dut.moved_id_i.value, dut.moved_ok_i.value = identity, ok

    def _got(self, name: str, *fields: str) -> tuple[int, ...] | None:
        """A transfer from the module; checks that an offer stands until it is taken."""
        dut = self.dut
        if not getattr(dut, f"{name}_valid_o").value:
            assert self.waiting[name] is None, f"cycle {self.cycle}: {name} was withdrawn"
            return None
        item = tuple(int(getattr(dut, one).value) for one in fields)
        assert self.waiting[name] in (None, item), (
            f"cycle {self.cycle}: {name} changed while it waited"
        )
        self.waiting[name] = None if self.offered[name] else item
        return item if self.offered[name] else None

    def settle(self) -> None:
        if self._taken("hint"):
            self.sent.append(self.hints.popleft())
            self.sent_at.append(self.cycle)
        if self._taken("candidate"):
            self.answers.popleft()
        if self._taken("note"):
            self.notes.popleft()
        if self._taken("slot"):
            self.taken.add(self.slots.popleft())
        if got := self._got("predict", "predict_id_o", "predict_req_id_o", "predict_position_o"):
            self.asked.append(got[1:])
            self._predict(*got)
        if got := self._got("lookup", "lookup_id_o", "lookup_address_o"):
            due = self.cycle + self.chance.randint(*self.walk_cycles)
            assert got[1] & KEY_MASK == got[1]
            self.lookups.append((due, *got))
            self.looked_up.append(got[1])
        if got := self._got("descriptor", "descriptor_id_o", "descriptor_o"):
            self._descriptor(*got)
        if got := self._got("filled", "filled_slot_o", "filled_key_o"):
            slot, key = got
            assert self.ended.pop(slot) == (key, True), f"slot {slot} was not filled"
            self.taken.remove(slot)
            self.held[slot] = key
        if got := self._got("returned", "returned_slot_o"):
            key, ok = self.ended.pop(got[0])
            assert not ok or request_of(key) in self.cancelled_at, (
                f"slot {got[0]} returned though filled"
            )
            self.taken.remove(got[0])
            self.returned.append(got[0])
            self.slots.append(got[0])
        if got := self._got("result", "result_tag_o", "result_status_o", "result_issued_o"):
            assert got[0] not in self.results, f"hint {got[0]} has two results"
            self.results[got[0]] = got[1:]
            self.result_at[got[0]] = self.cycle

    def _predict(self, identity: int, req_id: int, position: int) -> None:
        said = self.positions(req_id, position)
        for i, at in enumerate(said):
            high, low = pack_address(*KVAddress(req_id, 0, 0, at, 0))
            fields = {"position": at, "flags": 1, "address_high": high, "address_low": low}
            self.answers.append(
                (identity, packed(spec.CANDIDATE, **fields), int(i == len(said) - 1))
            )
        if not said:
            self.answers.append((identity, 0, 1))

    def _descriptor(self, identity: int, data: int) -> None:
        got = np.frombuffer(data.to_bytes(64, "little"), spec.DESCRIPTOR)[0]
        place = int(got["key_offset"]) or int(got["value_offset"])
        slot = (place - SLOT_BASE) // SLOT_BYTES
        (key,) = (
            k for k, page in self.pages.items() if page["record_offset"] == got["record_offset"]
        )
        page = self.pages[key]
        base = SLOT_BASE + slot * SLOT_BYTES
        same = set(page) - {"record_bytes"}
        want = packed(
            spec.DESCRIPTOR,
            record_capacity=page["record_bytes"],
            key_offset=base if page["kinds"] & 1 else 0,
            value_offset=base + SLOT_BYTES // 2 if page["kinds"] & 2 else 0,
            **{name: page[name] for name in same},
        )
        assert data == want, f"descriptor of {key:#x}: {got}"
        assert slot in self.taken
        assert slot not in [s for _, _, s, _ in self.moves.values()]
        assert slot not in self.held
        assert identity not in self.moves
        self.moves[identity] = (
            self.cycle + self.chance.randint(*self.move_cycles),
            key,
            slot,
            data,
        )
        self.most_moving = max(self.most_moving, len(self.moves))
        self.issued.append((self.cycle, key, slot))
        self.lines += page["record_bytes"] // 64

    def advance(self) -> None:
        pass

    def evict(self, slot: int, used: int) -> None:
        """The owner of L2 needs the slot, or has read it. Only a slot that is held."""
        key = self.held.pop(slot)
        head_and_place = (
            self.chance.getrandbits(6) | self.chance.getrandbits(8) << 33
        )  # named by any address within
        self.notes.append((0, key | head_and_place, used))
        self.slots.append(slot)

    @property
    def settled(self) -> bool:
        return not (self.hints or self.notes or self.moves or self.ended or self.cancels) and len(
            self.results
        ) == len(self.sent)
