"""The record format in plain NumPy integers: its definition for readers, and the tests' only oracle.

`record` is the way in: encode_record, decode_record. Each scheme's module says what its payload
holds, every rounding included. Speed does not matter here; agreement with the kernels, byte for byte,
does.
"""

from speckv_pynq.reference.crc32c import crc32c
from speckv_pynq.reference.record import BlockInfo, decode_record, encode_record

__all__ = ["BlockInfo", "crc32c", "decode_record", "encode_record"]
