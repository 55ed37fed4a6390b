"""`make bench`: the bars of the design, each measured against its baseline in one run.

    python -m bench [--quick] [--only NAME]… [--json FILE]

Prints a row for each bar and writes everything that was measured to `bench/results.json`, each row with when and at
what load it was measured; with `--only`, the other rows of the file stay as they are. Everything runs on the
loopback, ends by itself and is cleaned up. Only ratios from one run count, and what is a time rather than a ratio
counts only on a machine that does nothing else. `--quick` is for seeing that all of it works; its numbers say nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from bench.support import Row, Setting

ROWS = {
    "whole_path": "bench.whole_path",
    "scale": "bench.scale",
    "size": "bench.size",
    "latency": "bench.latency",
    "emptied": "bench.emptied",
    "healing": "bench.healing",
    "at_rest": "bench.at_rest",
    "rolling": "bench.rolling",
    "drains": "bench.drains",
    "slow_moves": "bench.slow_moves",
    "deliveries": "bench.deliveries",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small and short: does it all work?")
    parser.add_argument("--only", action="append", choices=list(ROWS), help="one row (may be given again)")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("results.json"), metavar="FILE")
    given = parser.parse_args()
    rows: dict[str, Row] = {}
    kept: dict[str, object] = {}
    if given.only and given.json.exists():
        kept = json.loads(given.json.read_text())["rows"]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="maintd-bench-") as folder:
        for name in given.only or ROWS:
            print(f"{name}:", flush=True)
            at = time.monotonic()
            row: Row = importlib.import_module(ROWS[name]).measure(Setting(Path(folder), given.quick))
            rows[name] = row
            kept[name] = {**asdict(row), "at": _now(), "load": os.getloadavg()}
            print(f"    {row.measured}; bar {row.bar}; took {time.monotonic() - at:.0f} s", flush=True)
    width = max(len(row.what) for row in rows.values())
    print()
    for row in rows.values():
        print(f"{'ok  ' if row.held else 'MISS'}  {row.what:{width}}  bar {row.bar:24}  {row.measured}")
    result = {
        "at": _now(),
        "quick": given.quick,
        "took_s": round(time.monotonic() - began, 1),
        "machine": {"processors": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()},
        "rows": kept,
    }
    given.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nload average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; all numbers are in {given.json}")
    if given.quick:
        print("--quick: these numbers say nothing but that everything runs.")
    return 0 if all(row.held for row in rows.values()) or given.quick else 1


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


if __name__ == "__main__":
    sys.exit(main())
