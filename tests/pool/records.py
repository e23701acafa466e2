"""Operations on a file store and what must be there after them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from speckv_pynq.pool import FileStore

CAPACITY_BYTES = 1 << 16
FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None
Model = dict[bytes, bytes]


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


@dataclass
class Operation:
    """Records to store in one call, or a key to delete; both empty: compact."""

    stored: Model = field(default_factory=dict)
    deleted: bytes = b""

    @classmethod
    def random(cls, rng: random.Random, keys: int = 12, most_bytes: int = 700) -> Operation:
        kind = rng.random()
        if kind < 0.05:
            return cls()
        if kind < 0.25:
            return cls(deleted=key(rng.randrange(keys)))
        count = rng.choice([1, 1, 2, 10])
        return cls(
            {
                key(rng.randrange(keys)): rng.randbytes(rng.randint(1, most_bytes))
                for _ in range(count)
            }
        )

    def run(self, store: FileStore) -> None:
        if self.stored:
            store.store_many(self.stored)
        elif self.deleted:
            store.delete(self.deleted)
        else:
            store.compact()

    def applied(self, model: Model) -> Model:
        after = {**model, **self.stored}
        after.pop(self.deleted, None)
        return after


def content(store: FileStore) -> Model:
    """All records; none may be damaged."""
    found, keys = {}, store.keys()
    for one in keys:
        record = store.load(one)
        assert record is not None
        found[one] = record
    assert len(store) == len(found) == store.stats().records
    return found


def check_between(found: Model, before: Model, operation: Operation) -> None:
    """What a crash during the operation may leave: each key as before it or as after it."""
    after = operation.applied(before)
    for one in before.keys() | after.keys() | found.keys():
        assert found.get(one) in (before.get(one), after.get(one))
