"""Which idle units to bring up before they return, within room, link and what may be in vain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from speckv_pynq.errors import ConfigError
from speckv_pynq.prefetch.returns import ReturnPredictor

LEAST_CHANCE: Final = 0.5  # under it nothing is brought up, however little was in vain so far
MARGIN: Final = 0.9  # of the limit that is planned with


class ReturnsAhead:
    """Chooses units that return within window_s so surely that at most waste_limit of all bytes brought up is in vain.

    In vain is what has not returned window_s after it was chosen. What was in vain so far, and what is expected to be
    of all that is up or on its way, stays under the limit: where chances prove too high, less is brought up.
    """

    def __init__(
        self, predictor: ReturnPredictor, window_s: float = 30.0, waste_limit: float = 0.2
    ) -> None:
        if not window_s > 0 or not 0 <= waste_limit <= 1:
            raise ConfigError(
                f"window_s {window_s} <= 0, or waste_limit {waste_limit} not within 0..1"
            )
        self.window_s, self.waste_limit = window_s, waste_limit
        self.used_bytes = self.wasted_bytes = 0  # of those chosen and settled
        self._predictor = predictor
        self._up: dict[int, tuple[int, float, float]] = {}  # unit: bytes, chance, until when
        self._bytes, self._doubt = (
            0,
            0.0,
        )  # of those up, and how many of them are expected to be in vain

    @property
    def waste(self) -> float:
        """Share of settled bytes that were in vain."""
        return self.wasted_bytes / max(1, self.used_bytes + self.wasted_bytes)

    @property
    def up_bytes(self) -> int:
        """Of those chosen that have neither returned nor stayed away too long."""
        return self._bytes

    def candidates(self, now_s: float) -> list[tuple[int, float]]:
        """Idle units likely enough to be thought of, and their chances, surest first."""
        return self._predictor.likely(now_s, self.window_s, LEAST_CHANCE)

    def choose(self, missing: Callable[[int], int], now_s: float, room_bytes: int) -> list[int]:
        """Units to bring up now, surest first. missing: bytes of an idle unit that are in no fast tier."""
        self.settle(now_s)
        chosen = []
        for unit, chance in self.candidates(now_s):
            nbytes = 0 if unit in self._up else missing(unit)
            if not nbytes:
                continue
            doubt = self.wasted_bytes + self._doubt + (1 - chance) * nbytes
            total = self.used_bytes + self.wasted_bytes + self._bytes + nbytes
            if doubt > MARGIN * self.waste_limit * total:
                break  # those after it are less sure
            if nbytes > room_bytes:
                continue
            room_bytes -= nbytes
            self._up[unit] = nbytes, chance, now_s + self.window_s
            self._bytes += nbytes
            self._doubt += (1 - chance) * nbytes
            chosen.append(unit)
        return chosen

    def began(self, unit: int) -> bool:
        """A turn of a unit begins: whether it had been brought up."""
        if unit not in self._up:
            return False
        self.used_bytes += self._leave(unit)
        return True

    def settle(self, now_s: float) -> list[int]:
        """Those that did not return in time, in vain from now on; their copies may leave."""
        late = [unit for unit, (_, _, until_s) in self._up.items() if until_s < now_s]
        for unit in late:
            self.wasted_bytes += self._leave(unit)
        return late

    def forget(self, unit: int) -> None:
        """It is gone: in vain if it had been brought up."""
        if unit in self._up:
            self.wasted_bytes += self._leave(unit)

    def _leave(self, unit: int) -> int:
        nbytes, chance, _ = self._up.pop(unit)
        self._bytes -= nbytes
        self._doubt -= (1 - chance) * nbytes
        return nbytes
