"""`speckv bench fragmentation`: a simulated day of requests through the pool."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from speckv_pynq.bench import fragmentation, machine
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output, mb

NAME = "fragmentation"

DESCRIPTION = """\
A day of requests in about a minute: Poisson arrivals whose rate swings twice a day, log-normal lengths and lives,
records of varying sizes, straight into the native core, the pool about 90 % full and over full at the peaks. Shown
for each hour: how broken up the pool is, and puts that failed although their bytes were free. Build-up is an error:
more than a twentieth of the pool free when a put fails, or anything left when all have gone.
"""
EPILOG = """\
examples:
  speckv bench fragmentation
  speckv bench fragmentation --requests 400000 --occupancy 0.95 --json day.json

JSON: requests, records, evicted_requests, broken_up (puts refused with their bytes free), full (with too few),
stranded_percent (of the pool, free when a put was refused, at most), growth_percent (free runs of the last quarter
over those of the same load half a day before), hours.
"""
STRANDED_PERCENT = 5.0
GROWTH_PERCENT = 20.0


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME,
        help="a day of requests through the pool (not part of all)",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument(
        "--requests", type=options.positive, default=100_000, metavar="N", help="default: 100000"
    )
    parser.add_argument(
        "--occupancy", type=options.share, default=0.9, metavar="X", help="mean; default: 0.9"
    )
    parser.add_argument(
        "--pool",
        type=options.megabytes,
        default=256 << 20,
        metavar="MIB",
        help="of the pool; default: 256",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, output: Output) -> int:
    settings = fragmentation.Settings(
        arguments.requests, arguments.pool, arguments.occupancy, seed=arguments.seed
    )
    with output.progress("a day of requests", fragmentation.HOURS) as advance:
        day = fragmentation.simulate(settings, advance)
    output.json(f"bench {NAME}", show(day, output))
    sound = (
        100 * day.stranded_share <= STRANDED_PERCENT
        and day.growth_percent <= GROWTH_PERCENT
        and day.end_held_bytes == day.end_free_runs == 0
    )
    if not sound:
        output.fail(f"bench {NAME}: the pool breaks up, or keeps what was released")
    return 0 if sound else 1


def show(day: fragmentation.Day, output: Output) -> dict[str, Any]:
    rows = [
        (
            str(h.hour), f"{100 * h.occupancy:.1f} %", f"{h.free_runs:,}", mb(h.free_bytes),
            mb(h.largest_free_bytes), f"{100 * h.slack_share:.1f} %", f"{h.puts:,}", str(h.full),
            str(h.broken_up),
        )
        for h in day.hours
    ]  # fmt: skip
    columns = (
        "hour", "in use", "free runs", "free", "largest run", "slack", "puts", "full", "broken up",
    )  # fmt: skip
    output.table(f"{day.requests:,} requests, {day.records:,} records", columns, rows)
    figures = {
        "requests": day.requests,
        "records": day.records,
        "evicted_requests": day.evicted_requests,
        "full": day.full,
        "broken_up": day.broken_up,
        "stranded_percent": 100 * day.stranded_share,
        "growth_percent": day.growth_percent,
        "end_held_bytes": day.end_held_bytes,
        "end_free_runs": day.end_free_runs,
    }
    output.note(
        f"full: refused with too few bytes free; broken up: refused with enough, {100 * day.stranded_share:.1f} % of "
        f"the pool at most. Free runs of the last quarter: {day.growth_percent:+.0f} % over the same load half a day "
        f"before. After the day: {day.end_held_bytes} bytes held, {day.end_free_runs} free runs."
    )
    output.note(machine.one_line(machine.describe()))
    return {**figures, "hours": [asdict(hour) for hour in day.hours]}
