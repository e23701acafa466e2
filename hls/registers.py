"""The registers of hls/spec.toml with bits worked out, for the templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ACCESSES = ("constant", "ro", "rw", "w1c", "wo")


@dataclass(frozen=True)
class RegisterField:
    """Bits of a register; `reset` of a constant is its value."""

    name: str
    bits: int
    low: int
    reset: int
    doc: str


@dataclass(frozen=True)
class Register:
    """One register of 32 or 64 bits; a 64-bit one has its low word at `offset`."""

    name: str
    offset: int
    access: str
    fields: tuple[RegisterField, ...]

    @property
    def bits(self) -> int:
        """Of all fields together."""
        return sum(field.bits for field in self.fields)

    @property
    def wide(self) -> bool:
        return self.bits > 32

    @property
    def reset(self) -> int:
        return sum(field.reset << field.low for field in self.fields)

    @property
    def reads(self) -> bool:
        return self.access != "wo"

    @property
    def writes(self) -> bool:
        return self.access in ("rw", "w1c", "wo")


def registers_of(spec: dict[str, Any], abi_id: int) -> list[Register]:
    """By rising offset; ValueError for one that overlaps another, has no such access or does not fit."""
    known = {name: spec[name] for name in ("magic", "format_version")} | {"abi_id": abi_id}
    out: list[Register] = []
    end = 0
    for entry in spec["registers"]["map"]:
        fields, low = [], 0
        for name, bits, reset, doc in entry["fields"]:
            fields.append(RegisterField(name, bits, low, known.get(reset, reset), doc))
            low += bits
        register = Register(entry["name"], entry["offset"], entry["access"], tuple(fields))
        size = 8 if register.wide else 4
        if register.access not in ACCESSES:
            raise ValueError(f"register {register.name}: access {register.access}")
        if low > 64 or (low > 32 and register.access in ("w1c", "wo")):
            raise ValueError(f"register {register.name}: {low} bits")
        if register.offset < end or register.offset % size:
            raise ValueError(
                f"register {register.name}: offset {register.offset:#x}, free {end:#x}"
            )
        end = register.offset + size
        out.append(register)
    if end > 1 << spec["registers"]["address_bits"]:
        raise ValueError(f"registers end at {end:#x}, over address_bits")
    return out
