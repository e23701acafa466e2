"""CRC32C (Castagnoli, RFC 3720 appendix B.4): reflected polynomial 0x82F63B78, all-ones in and out.

Vectorised: a CRC register is linear in its input, so the register after a message is the XOR of what
each byte alone would leave. Chunks of 64 bytes are gathered from a table by (place, byte), then
folded pairwise; a fold advances the left half over as many zero bytes as the right half is long.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

POLYNOMIAL = 0x82F63B78
CHUNK = 64
ONES = 0xFFFFFFFF


def _byte_table() -> np.ndarray:
    """(256,) uint32: the register that a byte leaves when it meets a zero register."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(POLYNOMIAL), np.uint32(0))
    return table


BYTE_TABLE = _byte_table()


def _advance_byte(register: np.ndarray) -> np.ndarray:
    """Registers (uint32) after one zero byte more."""
    return (register >> 8) ^ BYTE_TABLE[register & 0xFF]


@lru_cache(maxsize=1)
def _place_table() -> np.ndarray:
    """(CHUNK, 256) uint32: what a byte at this place of a chunk leaves at the chunk's end."""
    rows = [BYTE_TABLE]
    for _ in range(CHUNK - 1):
        rows.append(_advance_byte(rows[-1]))
    return np.stack(rows[::-1])


@lru_cache(maxsize=64)
def _advance_table(chunks_log2: int) -> np.ndarray:
    """(4, 256) uint32: advance a register over 2**chunks_log2 chunks of zeros, by its four bytes."""
    bytes_of_register = np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], "u4")
    if chunks_log2:
        half = chunks_log2 - 1
        return _advance(_advance(bytes_of_register, half), half)
    for _ in range(CHUNK):
        bytes_of_register = _advance_byte(bytes_of_register)
    return bytes_of_register


def _advance(register: np.ndarray, chunks_log2: int) -> np.ndarray:
    table = _advance_table(chunks_log2)
    out = table[0][register & 0xFF]
    for lane in (1, 2, 3):
        out = out ^ table[lane][register >> 8 * lane & 0xFF]
    return out


def crc32c(data: bytes | np.ndarray, seed: int = 0) -> int:
    """CRC32C of data (bytes or uint8 array); seed: CRC of what came before, 0 at the start."""
    message = np.frombuffer(data, np.uint8)
    register = seed ^ ONES
    if message.size < 4:
        for byte in message.tolist():
            register = register >> 8 ^ int(BYTE_TABLE[(register ^ byte) & 0xFF])
        return register ^ ONES
    chunks = 1 << (-(-message.size // CHUNK) - 1).bit_length()
    padded = np.zeros(chunks * CHUNK, np.uint8)  # zeros in front leave a zero register at zero
    start = padded.size - message.size
    padded[start:] = message
    padded[start : start + 4] ^= np.frombuffer(register.to_bytes(4, "little"), np.uint8)
    gathered = _place_table()[np.arange(CHUNK), padded.reshape(chunks, CHUNK)]
    registers = np.bitwise_xor.reduce(gathered, axis=1)
    level = 0
    while registers.size > 1:
        registers = _advance(registers[0::2], level) ^ registers[1::2]
        level += 1
    return int(registers[0]) ^ ONES
