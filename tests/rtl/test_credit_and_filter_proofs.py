"""Proofs for all inputs: credits keep a sender from over-running, and no block is skipped that is not there."""

import pytest

from tests.rtl.prove import PROOFS, proven, rtl
from tests.rtl.simulate import RTL

CREDITS = ("credit_giver", "credit_taker")
FILTER = ("residency_filter", "ram_1r1w")


def test_a_sender_that_keeps_to_its_credits_never_over_runs():
    assert proven("credits_proof", [*rtl(*CREDITS), PROOFS / "credits_proof.sv"])


def test_a_key_is_found_only_if_it_was_inserted_and_not_removed_since():
    assert proven("residency_proof", [*rtl(*FILTER), PROOFS / "residency_proof.sv"])


@pytest.mark.parametrize(
    ("top", "names", "good", "bad"),
    [
        (
            "credits",
            CREDITS,
            "owed_q  <= CountBits'(Credits);",
            "owed_q  <= CountBits'(Credits + 1);",
        ),
        ("credits", CREDITS, "CountBits'(freed_i) - CountBits'(credit_o)", "CountBits'(freed_i)"),
        ("credits", ("credit_taker", "credit_giver"), "credits_q != '0;", "1'b1;"),
        ("residency", FILTER, "next_ways[i].valid = 1'b0", "next_ways[i].valid = 1'b1"),
        ("residency", FILTER, "ways[i].key == key_q", "ways[i].key[2:0] == key_q[2:0]"),
        ("residency", FILTER, "if (state_q == Clearing) next_ways = '0;", ""),
    ],
)
def test_a_broken_one_is_not_proven(tmp_path, top, names, good, bad):
    text = (RTL / f"{names[0]}.sv").read_text()
    assert text.count(good) == 1
    broken = tmp_path / f"{names[0]}.sv"
    broken.write_text(text.replace(good, bad))
    assert not proven(f"{top}_proof", [broken, *rtl(*names[1:]), PROOFS / f"{top}_proof.sv"])
