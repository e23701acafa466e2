"""What was seen of the attention that each block gets."""

from __future__ import annotations

import numpy as np

from speckv_pynq.prefetch.bounds import Floats, Index

FAST, SLOW = 0.3, 0.1  # what the newest observation counts in the running averages
UNSEEN = np.float32(-1)


class History:
    """Of one layer: per row and block, running averages of attention, fast and slow, and of what its keys promised.

    Attention is seen of the blocks that are read, and of no others: theirs stays as it was, which measures better than
    letting it fade. The promise is known of all blocks at each step, so its average tells by how much it misleads.
    """

    def __init__(self, rows: int) -> None:
        self.fast, self.slow, self.promised, self.latest = np.full((4, rows, 0), UNSEEN, np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(held.nbytes for held in vars(self).values())

    def resize(self, blocks: int) -> None:
        """Room for new blocks, of which nothing was seen; or the first `blocks` only."""
        new = max(0, blocks - self.fast.shape[1])
        for name, held in vars(self).items():
            grown = np.pad(held, ((0, 0), (0, new)), constant_values=UNSEEN) if new else held
            setattr(self, name, grown[:, :blocks])

    def select(self, rows: Index) -> None:
        """Row i becomes what row rows[i] is."""
        for name, held in vars(self).items():
            setattr(self, name, held[rows])

    def observe(self, blocks: Index, mass: Floats) -> None:
        """blocks: (rows, n), those read; mass: (rows, n) float32, their shares of the attention among these."""
        for average, rate in ((self.fast, FAST), (self.slow, SLOW)):
            old = np.take_along_axis(average, blocks, 1)
            np.put_along_axis(average, blocks, blend(old, mass, rate), 1)

    def promise(self, promise: Floats) -> None:
        """promise: (rows, blocks), this step's."""
        self.promised = blend(self.promised, promise, SLOW)
        self.latest = promise


def blend(average: Floats, new: Floats, rate: float) -> Floats:
    """The average after one more observation; the first one stands for itself."""
    return np.where(average < 0, new, average + np.float32(rate) * (new - average))
