"""python -m tests.chaos: as many kills and seeds as one likes; a line a minute, a table, exit code 1 for a fault."""

from __future__ import annotations

import argparse
import logging
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from maintd import log
from tests.chaos.run import Result, run, told
from tests.chaos.trouble import Plan


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="how often maintd is killed (50)")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="so many runs, each with the next seed (1)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep databases, logs and what was received there")
    asked = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything that was started is ended
    log.configure("error", "text")
    logging.getLogger("oslo.messaging").setLevel(logging.CRITICAL)  # that it finds no broker is our own doing
    folder = asked.keep or Path(tempfile.mkdtemp(prefix="maintd-chaos-"))
    results = []
    for seed in range(asked.seed, asked.seed + asked.seeds):
        here = folder / f"seed-{seed}"
        here.mkdir(parents=True)
        results.append(run(seed, here, Plan(asked.kills), say=lambda text: print(text, flush=True)))
        show(results[-1])
    faults = sum(len(result.wrong) for result in results)
    if faults == 0 and asked.keep is None:
        shutil.rmtree(folder)
    print(
        "no event missing, no second id, order kept, the role right"
        if faults == 0
        else f"{faults} faults; everything that was written down is in {folder}"
    )
    return 1 if faults else 0


def show(result: Result) -> None:
    """The table of one run, and its faults."""
    restarts = sorted(result.restarts_s)
    rows = {
        "broke": told(result.broke),
        "people": told(result.did),
        "told": told(result.told),
        "active role moved": str(result.moved),
        "ready after": f"{statistics.median(restarts):.1f} s, at most {restarts[-1]:.1f} s"
        if restarts
        else "never seen",
        "took": f"{result.took_s:.0f} s, of which {result.calm_s:.0f} s to calm down",
    }
    for name, text in rows.items():
        print(f"  {name:<18} {text}")
    for why in result.wrong:
        print(f"WRONG (seed {result.seed}): {why}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
