"""`speckv bench prefetch`: hits beside a prefetch; dense decoding with prefetch and on demand."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from speckv_pynq.bench import machine, prefetch
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output

NAME = "prefetch"

DESCRIPTION = """\
Hits: the tier manager with 8 KV heads of 128 (int4), csim with two engines: one thread prefetches many blocks from L3
into L2, another reads one block that is in L1, over and over. On csim the kernels take the cores that the reader runs
on; its 99th percentile shows that.

Dense decoding: each step reads all blocks of all layers in order and computes between: matrices of Llama 3.2 1B's sizes
(random weights, one set for all layers, the output layer cut) and attention over the K and V that were fetched, on one
thread of torch. int4 blocks, csim with one engine, L1 a quarter, L2 an eighth of the cache, staging included. Between
L3 and the device stands a MODEL of a link: 2 us, and 1.2 times the bytes that must come up in the time of a step whose
blocks are all in L1, which is measured again in each round; waiting for it takes no CPU time. Prefetch and demand run
by turns on the same engine and link.

With --compute cuda the dense decoding runs on a GPU, and nothing is a model: 16 layers of Llama 3.1 70B's sizes, L3 raw
FP16 blocks in pinned host memory, L1 and L2 as above on the GPU. Copies run on a stream beside the computation, ahead
of it in the planner's order, or when a layer asks (demand). The sequence is as long as the link carries 1.2 times what
must come up in a step.
"""
EPILOG = """\
examples:
  speckv bench prefetch
  speckv bench prefetch --blocks 1000 --json prefetch.json
  speckv bench prefetch --compute cuda

JSON keys: hit_idle_us, hit_us, hit_p99_us, hits, call_us_per_block, prefetch_gb_s; of dense decoding on_time (share of
blocks in L1 or L2 at the instant their layer asks), speedup (of a step, over demand), resident_ms, prefetch_ms,
demand_ms (a step with all blocks in L1, with prefetch, on demand), wasted (share of the bytes moved), link_mb_s (the
model's), link_over_demand, step_mb (what must come up in a step), moved_mb (what did), tokens, layers, steps. With
--compute cuda: on_time, speedup, resident_ms, prefetch_ms, demand_ms, wasted, link_gb_s (measured), demand_gb_s
(step_mb / resident_ms), link_over_demand, step_mb, tokens, steps, exact, gpu.
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
        ("rounds", 3, "of dense decoding, with prefetch and on demand by turns"),
        ("steps", 5, "measured in each"),
        ("tokens", 2048, "of the sequence; on a GPU it is chosen"),
        ("layers", 16, "of the model; on a GPU always 16"),
    )
    options.add_measurement(parser, NAME, measure)


def measure(arguments: argparse.Namespace, output: Output) -> dict[str, Any]:
    if arguments.compute == "cuda":
        return _cuda(arguments.rounds, arguments.steps, output)
    figures = _hits(arguments.repeats, arguments.blocks, output)
    figures |= _dense(arguments, output)
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


def _dense(arguments: argparse.Namespace, output: Output) -> dict[str, Any]:
    from speckv_pynq.bench import prefetch_dense

    settings = prefetch_dense.Settings(
        arguments.tokens, arguments.layers, arguments.rounds, arguments.steps
    )
    with output.progress("measuring dense decoding", settings.rounds) as advance:
        figures = prefetch_dense.measure(settings, advance)
    rows = [
        *_steps(figures.on_time, figures.speedup, figures.wasted),
        ("a step, all blocks in L1", f"{figures.resident_ms:.0f} ms"),
        ("a step, prefetch", f"{figures.prefetch_ms:.0f} ms"),
        ("a step, demand", f"{figures.demand_ms:.0f} ms"),
        ("records to bring up a step", f"{figures.step_mb:.1f} MB; {figures.moved_mb:.1f} came"),
        ("link, a MODEL", f"{figures.link_mb_s:.1f} MB/s, {figures.link_over_demand:.2f}x demand"),
    ]
    title = f"Dense decoding, {settings.tokens} tokens x {settings.layers} layers, {figures.steps} steps of each"
    output.table(title, ("", ""), rows)
    return asdict(figures)


def _steps(on_time: float, speedup: float, wasted: float) -> list[tuple[str, str]]:
    return [
        ("blocks there when their layer asks", f"{100 * on_time:.2f} %"),
        ("a step over demand", f"{speedup:.2f}x as fast"),
        ("moved and never read", f"{100 * wasted:.1f} % of bytes"),
    ]


def _cuda(rounds: int, steps: int, output: Output) -> dict[str, Any]:
    from speckv_pynq.bench import prefetch_cuda

    with output.progress("measuring dense decoding", 2 * rounds) as advance:
        figures = prefetch_cuda.measure(rounds, steps, advance=advance)
    rows = [
        *_steps(figures.on_time, figures.speedup, figures.wasted),
        ("a step, all blocks on the GPU", f"{figures.resident_ms:.2f} ms"),
        ("a step, prefetch", f"{figures.prefetch_ms:.2f} ms"),
        ("a step, demand", f"{figures.demand_ms:.2f} ms"),
        ("link, measured", f"{figures.link_gb_s:.1f} GB/s"),
        ("demand", f"{figures.demand_gb_s:.1f} GB/s ({figures.link_over_demand:.2f}x in the link)"),
        ("bytes are those of L3", "yes" if figures.exact else "NO"),
    ]
    title = f"{figures.tokens} tokens, {figures.step_mb:.0f} MB to bring up a step, {figures.steps} steps of each"
    output.table(title, ("", ""), rows)
    output.note(f"{figures.gpu}; {machine.one_line(machine.describe())}")
    return asdict(figures)
