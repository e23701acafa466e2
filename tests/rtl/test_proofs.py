"""Proofs for all inputs: streams keep what they carry, the directory keeps every block in order."""

import pytest

from tests.rtl.prove import PROOFS, proven, rtl
from tests.rtl.simulate import RTL


def proof(name):
    return PROOFS / f"{name}_proof.sv"


@pytest.mark.parametrize(
    ("name", "depth"), [("axis_register", None), ("fifo", 2), ("fifo", 4), ("fifo", 8)]
)
def test_a_stream_is_neither_lost_nor_doubled_nor_reordered(name, depth):
    parameters = {"Depth": depth} if depth else {}
    assert proven(f"{name}_proof", [*rtl(name), proof(name)], parameters=parameters)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("fifo", "ready_o = ~count_o[IndexBits]", "ready_o = 1'b1"),
        ("fifo", "(!valid_o || ready_i);", "1'b1;"),
        ("fifo", "(!valid_o || ready_i);", "ready_i;"),
        ("fifo", "memory_q[read_q[IndexBits-1:0]]", "memory_q[write_q[IndexBits-1:0]]"),
        ("fifo", "if (pop || ready_i) valid_o", "if (ready_i) valid_o"),
        ("axis_register", "skid_valid_q ? skid_q : data_i", "data_i"),
        ("axis_register", "if (ready_i || !valid_o)", "if (1'b1)"),
        ("axis_register", "skid_valid_q | valid_i", "valid_i"),
    ],
)
def test_a_broken_stream_is_not_proven(tmp_path, name, good, bad):
    text = (RTL / f"{name}.sv").read_text()
    assert text.count(good) == 1
    broken = tmp_path / f"{name}.sv"
    broken.write_text(text.replace(good, bad))
    assert not proven(f"{name}_proof", [broken, proof(name)])


@pytest.mark.parametrize("agents", [2, 3, 64])
def test_every_event_leaves_a_block_in_order(agents):
    sources = [*rtl("directory_apply"), proof("directory")]
    assert proven("directory_proof", sources, parameters={"Agents": agents}, registers=False)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("& ~asking & ~waiting) == '0", "& ~asking) == '0"),
        ("else holders_o |= waiting", "else holders_o = holders_i"),
        ("if (actions_o.drop) holders_o &= ~asking", "if (actions_o.drop) holders_o = '0"),
        ("if (evicts_i) state_o = DirectoryStateInvalid", "if (0) state_o = DirectoryStateInvalid"),
    ],
)
def test_a_broken_directory_is_not_proven(tmp_path, good, bad):
    text = (RTL / "directory_apply.sv").read_text()
    assert text.count(good) == 1
    broken = tmp_path / "directory_apply.sv"
    broken.write_text(text.replace(good, bad))
    parameters = {"Agents": 4}
    assert not proven(
        "directory_proof", [broken, proof("directory")], parameters=parameters, registers=False
    )
