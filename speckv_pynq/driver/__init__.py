"""Commands for the device in a ring: DMA_BATCH, PREFETCH, SET_PARAM, POLL_DONE.

SpeckvDriver submits and completes them; Completion is what becomes of one; Parameters are what
SET_PARAM sets; command() makes the 64-byte commands that a batch is put together from.
"""

from speckv_pynq.driver.commands import command
from speckv_pynq.driver.completion import Completion
from speckv_pynq.driver.driver import SpeckvDriver
from speckv_pynq.driver.parameters import MAX_RUNS_IN_FLIGHT, Parameters

__all__ = ["MAX_RUNS_IN_FLIGHT", "Completion", "Parameters", "SpeckvDriver", "command"]
