"""Play many random stories over the modelled Nova, and count what was false or missed.

    python -m tests.domain.interleavings --runs 100000 [--first SEED] [--jobs 2]

Exit 0 where nothing was false and nothing was missed. Every failure names its seed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time

from tests.domain.modelled_nova import FalseEmptied, Run


def play(seed: int) -> tuple[int, int, str | None, list[str]]:
    """One story: its seed, how many host.emptied it had, what was false, what was missed."""
    run = Run(seed)
    try:
        run.play()
    except FalseEmptied as wrong:
        return seed, run.emptied, str(wrong), []
    return seed, run.emptied, None, run.missed()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    options = parser.parse_args()
    began = time.monotonic()
    emptied = 0
    faults: list[str] = []
    with multiprocessing.Pool(options.jobs) as pool:
        seeds = range(options.first, options.first + options.runs)
        for done, (seed, said, false, missed) in enumerate(pool.imap_unordered(play, seeds, chunksize=50), 1):
            emptied += said
            fault = f"false: {false}" if false else f"missed: {', '.join(missed)}" if missed else ""
            if fault:
                faults.append(f"seed {seed}: {fault}")
                print(faults[-1], flush=True)
            if done % 5000 == 0:
                took_s = time.monotonic() - began
                print(
                    f"{done} of {options.runs} in {took_s:.0f} s: {emptied} emptied, {len(faults)} faults", flush=True
                )
    print(f"{options.runs} interleavings, {emptied} host.emptied, {len(faults)} false or missed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
