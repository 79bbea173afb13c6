"""Fetch cycles of the event model against cycle-accurate simulators, row by row, and its speed.

    python benchmarks/fetch.py [../shared/cycles.tsv] [--summary]

The table of the simulators' cycles (DRAMsim3, Ramulator 2.1) says for each row what was read from
which memory. Beside the event model stand, on the same rows, the closed form where it is meant for
the memory and the pattern, and bytes over peak bandwidth, which is what simple estimators use.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import record

from hwmodel.closed_form import covers, stream_clocks
from hwmodel.dram.specification import Dram
from hwmodel.fetch import Fetch, Requester, fetch_ranges, fetch_stream
from hwmodel.memory import load_memory

LINE = 64
LARGE = 1 << 20
LOOSE = ("hbm2", "lpddr5-6400")
"""Memories with wider bounds."""
BOUNDS = {"large": (0.3, 1.0), "small": (0.5, 3.0), "loose": (1.0, 4.0)}
"""Mean and worst error in per cent that are allowed."""
SPEED_BOUND = 200_000


@dataclass(frozen=True)
class Row:
    """A row of the simulators' table."""

    memory: str
    request_bytes: int
    pattern: str
    offset: int
    size: int
    cycles: int
    requests: int

    @property
    def bounds(self) -> str:
        """Which bounds it must keep."""
        if self.memory in LOOSE:
            return "loose"
        return "large" if self.size >= LARGE else "small"

    def ranges(self) -> list[tuple[int, int]]:
        """What is read, as byte ranges."""
        start, end = self.offset, self.offset + self.size
        kind = self.pattern.split("_")[0]
        if kind == "skip64of192":
            return [(place, LINE) for place in range(start, end, 192)]
        if kind == "skip4kof16k":
            return [(place, 4096) for place in range(start, end, 16384)]
        if kind == "rand10":
            draw = random.Random(2).random  # noqa: S311 - the draws that the table's were made with
            lines = [k for k in range(self.size // LINE) if draw() < 0.1]
            return [(start + LINE * k, LINE) for k in lines]
        return [(start, self.size)]

    def requester(self) -> Requester:
        """Who reads, how fast."""
        kind, *options = self.pattern.split("_")
        numbers = {option[0]: int(option[1:]) for option in options if option[0] in "rdt"}
        memory = load_memory(self.memory)
        # 64-byte lines that share a burst are merged, unless the row says otherwise.
        apart = self.request_bytes < memory.unit_bytes or memory.unit_bytes < LINE
        line_bytes = LINE if apart else None
        rate = numbers.get("r", 0)
        if kind == "buf":
            return Requester(slots=numbers["d"], drain=rate, line_bytes=line_bytes)
        return Requester(gap=rate, start=numbers.get("t", 0), line_bytes=line_bytes)

    def model(self) -> Fetch:
        """What the event model says."""
        return fetch_ranges(load_memory(self.memory), self.ranges(), self.requester())

    def closed_form(self) -> int | None:
        """What the closed form says, where it is meant for the row."""
        memory = load_memory(self.memory)
        meant = isinstance(memory, Dram) and covers(memory) and self.pattern == "seq"
        if not meant or self.offset or self.request_bytes != memory.unit_bytes:
            return None
        return stream_clocks(memory, self.size)

    def peak(self) -> float:
        """Bytes over peak bandwidth."""
        memory = load_memory(self.memory)
        return self.requests * memory.unit_bytes / memory.peak_bytes_per_clock


def read_rows(path: Path) -> list[Row]:
    """The rows of a table of the simulators' cycles."""
    with path.open(encoding="utf-8") as file:
        lines = (line for line in file if not line.startswith("#"))
        return [
            Row(
                memory=row["memory"],
                request_bytes=int(row["request_bytes"]),
                pattern=row["pattern"],
                offset=int(row["offset"], 16),
                size=int(row["size_bytes"]),
                cycles=int(row["cycles"]),
                requests=int(row["requests"]),
            )
            for row in csv.DictReader(lines, delimiter="\t")
        ]


def error(found: float, right: int) -> float:
    """Error in per cent."""
    return 100 * (found - right) / right


def compare(rows: list[Row]) -> list[dict[str, object]]:
    """The errors of each row."""
    results = []
    for row in rows:
        fetch = row.model()
        closed = row.closed_form()
        results.append(
            {
                "memory": row.memory,
                "request_bytes": row.request_bytes,
                "pattern": row.pattern,
                "offset": row.offset,
                "size_bytes": row.size,
                "requests_equal": fetch.requests == row.requests,
                "simulator_cycles": row.cycles,
                "event_cycles": fetch.cycles,
                "event_error_percent": error(fetch.cycles, row.cycles),
                "closed_form_error_percent": None if closed is None else error(closed, row.cycles),
                "peak_error_percent": error(row.peak(), row.cycles),
                "bounds": row.bounds,
            }
        )
    return results


def speed(name: str, size: int = 16 << 20, repeats: int = 3) -> float:
    """Bursts a second of one core's time of the event form, reading a stream; best of a few runs."""
    memory = load_memory(name)
    fetch_stream(memory, 4096)
    best = 0.0
    for _ in range(repeats):
        start = time.process_time()
        requests = fetch_stream(memory, size).requests
        best = max(best, requests / (time.process_time() - start))
    return best


def show_rows(results: list[dict[str, object]]) -> None:
    """Print the errors of each row."""
    print(
        f"{'memory':22}{'unit':>5} {'pattern':12}{'offset':>8}{'bytes':>10}"
        f"{'simulator':>11}{'event':>10}{'error %':>9}{'closed %':>10}{'peak %':>8}"
    )
    for one in results:
        closed = one["closed_form_error_percent"]
        print(
            f"{one['memory']:22}{one['request_bytes']:>5} {one['pattern']:12}{one['offset']:>8}"
            f"{one['size_bytes']:>10}{one['simulator_cycles']:>11}{one['event_cycles']:>10}"
            f"{one['event_error_percent']:>9.3f}{'' if closed is None else f'{closed:.2f}':>10}"
            f"{one['peak_error_percent']:>8.1f}"
        )


def summarise(results: list[dict[str, object]]) -> list[dict[str, object]]:
    """Mean and worst errors under each bound."""
    summary = []
    for name, (mean_bound, worst_bound) in BOUNDS.items():
        group = [one for one in results if one["bounds"] == name]
        errors = [abs(float(str(one["event_error_percent"]))) for one in group]
        peaks = [abs(float(str(one["peak_error_percent"]))) for one in group]
        if not errors:
            continue
        mean, worst = statistics.fmean(errors), max(errors)
        summary.append(
            {
                "bounds": name,
                "rows": len(group),
                "exact": sum(one["event_cycles"] == one["simulator_cycles"] for one in group),
                "requests_equal": all(one["requests_equal"] for one in group),
                "mean_error_percent": mean,
                "worst_error_percent": worst,
                "mean_bound_percent": mean_bound,
                "worst_bound_percent": worst_bound,
                "peak_mean_error_percent": statistics.fmean(peaks),
                "peak_worst_error_percent": max(peaks),
                "met": mean <= mean_bound and worst <= worst_bound,
            }
        )
    return summary


def tables(summary: list[dict[str, object]], speeds: dict[str, float]) -> list[dict[str, object]]:
    """The figures as they are shown."""
    forms = {"bounds": "bound|{}", "rows": "{}", "exact": "{}"}
    forms |= {"mean_error_percent": "mean error|{:.3f} %", "worst_error_percent": "worst|{:.3f} %"}
    forms |= {
        "mean_bound_percent": "mean allowed|{} %",
        "worst_bound_percent": "worst allowed|{} %",
    }
    forms |= {"peak_mean_error_percent": "bytes over peak bandwidth, mean|{:.1f} %"}
    forms |= {"peak_worst_error_percent": "worst of that|{:.1f} %"}
    rates = [{"memory": name, "bursts": rate} for name, rate in speeds.items()]
    return [
        record.table("Cycles against DRAMsim3 and Ramulator 2.1", summary, forms),
        record.table(
            "Speed of the event model, one core",
            rates,
            {"memory": "{}", "bursts": "bursts a second|{:,.0f}"},
            f"At least {SPEED_BOUND:,} are asked for.",
        ),
    ]


def main() -> int:
    """Run; 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parents[2] / "shared" / "cycles.tsv"
    parser.add_argument("table", nargs="?", type=Path, default=default)
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--summary", action="store_true", help="leave out the single rows")
    arguments = parser.parse_args()
    results = compare(read_rows(arguments.table))
    if not arguments.summary:
        show_rows(results)
        print()
    summary = summarise(results)
    print(
        f"{'bounds':8}{'rows':>6}{'exact':>7}{'mean %':>9}{'worst %':>9}{'allowed':>12}{'peak model %':>16}"
    )
    for one in summary:
        allowed = f"{one['mean_bound_percent']}/{one['worst_bound_percent']}"
        peak = f"{one['peak_mean_error_percent']:.1f}/{one['peak_worst_error_percent']:.1f}"
        print(
            f"{one['bounds']:8}{one['rows']:>6}{one['exact']:>7}{one['mean_error_percent']:>9.3f}"
            f"{one['worst_error_percent']:>9.3f}{allowed:>12}{peak:>16}"
        )
    speeds = {name: speed(name) for name in dict.fromkeys(str(one["memory"]) for one in results)}
    print(f"\n{'memory':24}{'bursts/s':>12}   (at least {SPEED_BOUND:,})")
    for name, rate in speeds.items():
        print(f"{name:24}{rate:>12,.0f}")
    report = {"rows": results, "summary": summary, "bursts_per_second": speeds}
    record.write(__file__, tables(summary, speeds), report, arguments.json)
    met = all(one["met"] and one["requests_equal"] for one in summary)
    return 0 if met and min(speeds.values()) >= SPEED_BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
