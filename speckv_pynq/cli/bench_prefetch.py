"""`speckv bench prefetch`: hits beside a prefetch, what starting one costs; dense decoding on a GPU."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from speckv_pynq.bench import machine, prefetch
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output

NAME = "prefetch"

DESCRIPTION = """\
The tier manager with 8 KV heads of 128 (int4), csim with two engines: one thread prefetches many blocks from L3 into
L2, another reads one block that is in L1, over and over. On csim the kernels take the cores that the reader runs on;
its 99th percentile shows that.

With --compute cuda: decoding on a GPU with dense attention, no model of a link in it. Layers of Llama 3.2 1B's size
with random weights; L3 is raw FP16 blocks in pinned host memory, L1 a quarter and L2 an eighth of the cache on the GPU.
Copies run on a stream beside the computation, ahead of it in the planner's order, or when a layer asks (demand). The
sequence is as long as the link carries 1.2 times what must come up in a step.
"""
EPILOG = """\
examples:
  speckv bench prefetch
  speckv bench prefetch --blocks 1000 --json prefetch.json
  speckv bench prefetch --compute cuda

JSON keys: hit_idle_us, hit_us, hit_p99_us, hits, call_us_per_block, prefetch_gb_s. With --compute cuda: on_time (share
of blocks there at the instant their layer asks), speedup (of a step, over demand), resident_ms, prefetch_ms, demand_ms
(a step with all blocks there, with prefetch, on demand), wasted (share of the bytes copied), link_gb_s, demand_gb_s
(what must come up in a step / resident_ms), link_over_demand, step_mb, tokens, steps, exact, gpu.
"""


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME, help="blocks that come up ahead of need", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument(
        "--compute",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where what is measured runs; default: %(default)s",
    )
    options.add_counts(
        parser,
        ("repeats", 7, "prefetches beside hits"),
        ("blocks", 256, "in each"),
        ("rounds", 5, "of dense decoding, with prefetch and on demand by turns"),
        ("steps", 10, "measured in each"),
    )
    options.add_measurement(parser, NAME, measure)


def measure(arguments: argparse.Namespace, output: Output) -> dict[str, Any]:
    if arguments.compute == "cuda":
        return _cuda(arguments.rounds, arguments.steps, output)
    figures = _hits(arguments.repeats, arguments.blocks, output)
    output.note(machine.one_line(machine.describe()))
    return figures


def _hits(repeats: int, blocks: int, output: Output) -> dict[str, Any]:
    with output.progress("measuring prefetch", repeats + 1) as advance:
        figures = prefetch.measure(repeats, blocks, advance)
    rows = [
        ("L1 hit, idle", f"{figures.hit_idle_us:.0f} us"),
        ("L1 hit, a prefetch under way", f"{figures.hit_us:.0f} us"),
        ("  99th percentile", f"{figures.hit_p99_us:.0f} us of {figures.hits} hits"),
        ("prefetch(), a block", f"{figures.call_us_per_block:.1f} us"),
        ("L3 to L2 in the background", f"{figures.prefetch_gb_s:.2f} GB/s"),
    ]
    output.table(f"{repeats} prefetches of {blocks} blocks", ("", ""), rows)
    return {**asdict(figures), "repeats": repeats, "blocks": blocks}


def _cuda(rounds: int, steps: int, output: Output) -> dict[str, Any]:
    from speckv_pynq.bench import prefetch_cuda

    with output.progress("measuring dense decoding", 2 * rounds) as advance:
        figures = prefetch_cuda.measure(rounds, steps, advance=advance)
    rows = [
        ("blocks there when their layer asks", f"{100 * figures.on_time:.2f} %"),
        ("a step, all blocks on the GPU", f"{figures.resident_ms:.2f} ms"),
        ("a step, prefetch", f"{figures.prefetch_ms:.2f} ms"),
        ("a step, demand", f"{figures.demand_ms:.2f} ms"),
        ("speedup over demand", f"{figures.speedup:.2f}x"),
        ("copied, never read", f"{100 * figures.wasted:.1f} % of bytes"),
        ("link, measured", f"{figures.link_gb_s:.1f} GB/s"),
        ("demand", f"{figures.demand_gb_s:.1f} GB/s ({figures.link_over_demand:.2f}x in the link)"),
        ("bytes are those of L3", "yes" if figures.exact else "NO"),
    ]
    title = f"{figures.tokens} tokens, {figures.step_mb:.0f} MB to bring up a step, {figures.steps} steps of each"
    output.table(title, ("", ""), rows)
    output.note(f"{figures.gpu}; {machine.one_line(machine.describe())}")
    return asdict(figures)
