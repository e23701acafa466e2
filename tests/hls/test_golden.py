"""Golden records: what was once written must be read for ever, and is still written the same."""

from __future__ import annotations

import json

import pytest

from speckv_pynq import spec
from speckv_pynq.codebook import Codebook
from speckv_pynq.reference import BlockInfo, decode_record, encode_record
from speckv_pynq.spec import DType, Kind, Scheme, Status
from tests.blocks import identity
from tests.hls.kernels import Kernels
from tests.hls.make_golden import (
    MANIFEST,
    RECORDS,
    arrays_of,
    build,
    codebook,
    digest,
    golden_bits,
    splitmix64,
)

ENTRIES = json.loads(MANIFEST.read_text())["records"]
ALL = RECORDS.read_bytes()
each_record = pytest.mark.parametrize(
    "entry", ENTRIES, ids=lambda e: f"{e['style']}-{e['seed']}-{e['scheme']}"
)


def stored(entry: dict) -> tuple[bytes, BlockInfo, Scheme]:
    record = ALL[entry["offset"] : entry["offset"] + entry["bytes"]]
    expect = entry["expect"]
    info = BlockInfo(**{**expect, "dtype": DType(expect["dtype"]), "kinds": Kind(expect["kinds"])})
    return record, info, Scheme[entry["scheme"].upper()]


def book_for(scheme: Scheme) -> Codebook | None:
    return codebook() if scheme == Scheme.KLT else None


def test_files_are_what_the_script_makes() -> None:
    """Fails after a change of the format: then format_version must change, or the change must go."""
    assert build() == (ALL, MANIFEST.read_text())
    assert json.loads(MANIFEST.read_text())["format_version"] == spec.FORMAT_VERSION


@each_record
def test_reference_writes_and_reads_it(entry: dict) -> None:
    record, info, scheme = stored(entry)
    k, v = arrays_of(entry["style"], entry["seed"], info)
    book = book_for(scheme)
    assert encode_record(k, v, scheme, codebook=book, **identity(info)) == record
    assert digest(*decode_record(record, info, book)) == entry["decoded_sha256"]


@each_record
def test_csim_writes_and_reads_it(kernels: Kernels, entry: dict) -> None:
    record, info, scheme = stored(entry)
    k, v = arrays_of(entry["style"], entry["seed"], info)
    book = book_for(scheme)
    slot = book.slots[info.first_layer] if book else 0
    assert kernels.encode(info, k, v, scheme, book, slot)[1] == record
    completion, got_k, got_v = kernels.decode(record, info, book, slot)
    assert completion["status"] == Status.OK
    assert digest(got_k, got_v) == entry["decoded_sha256"]


def test_blocks_come_from_a_published_generator() -> None:
    """splitmix64 with seed 1234567, as in its author's and others' test vectors."""
    assert splitmix64(1234567, 3).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]
    assert golden_bits("zeros", 1, (16, 1, 64), DType.FP16).any()
