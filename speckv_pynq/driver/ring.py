"""The ring that commands wait in: fixed slots, and a head and a tail that only grow."""

from __future__ import annotations

import numpy as np

from speckv_pynq import spec
from speckv_pynq.driver.commands import Commands
from speckv_pynq.errors import ConfigError

MAX_SLOTS = 1 << 16


class Ring:
    """Command number i stands in slot i % slots from its push until its pop. Not locked."""

    def __init__(self, slots: int) -> None:
        if not 1 <= slots <= MAX_SLOTS or slots & (slots - 1):
            raise ConfigError(f"slots {slots} is not a power of two within 1..{MAX_SLOTS}")
        self._commands = np.zeros(slots, spec.COMMAND)
        self._mask = slots - 1
        self.head = 0  # number of the oldest command
        self.tail = 0  # number that the next command gets

    @property
    def free(self) -> int:
        """Commands that it can still take."""
        return len(self._commands) - (self.tail - self.head)

    def push(self, row: np.void) -> int:
        """Copies a command in; its number. The caller has looked at `free`."""
        number = self.tail
        self._commands[number & self._mask] = row
        self.tail += 1
        return number

    def pop(self) -> Commands:
        """The oldest command, copied out, (1,) spec.COMMAND. The caller has looked at `free`."""
        slot = self.head & self._mask
        self.head += 1
        return self._commands[slot : slot + 1].copy()
