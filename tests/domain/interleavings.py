"""Play many interleavings over many random stories of the simulated Nova, and count what was false or missed.

    python -m tests.domain.interleavings --runs 1000000 [--first STORY] [--jobs 2] [--minutes 60]

An *interleaving* is one order of deliveries, losses and readings over one story of the cloud: what of Nova's
notifications arrives, when, how often and after which others; when each question is asked, as of which moment it is
answered, and which answers fail or come in half. Each story is played by the simulator once and lived through
`ORDERS` times (`modelled_cloud`, `modelled_daemon`), so a run of N is N / ORDERS different stories.

Exit 0 where no `host.emptied` was false, none was missed, and each refill that stayed was said. Every fault names its
story and order: `--story S --order K` plays that one alone, and tells it.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import time
from dataclasses import dataclass, field

from tests.domain.modelled_cloud import T0, CloudStory
from tests.domain.modelled_daemon import Interleaving, Wrong

ORDERS = 5
CHUNK = 20


@dataclass
class Count:
    """What came of some interleavings."""

    runs: int = 0
    emptied: int = 0
    retracted: int = 0
    excused: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, other: Count) -> None:
        self.runs += other.runs
        self.emptied += other.emptied
        self.retracted += other.retracted
        self.excused += other.excused
        self.faults += other.faults


def order_of(story: CloudStory, order: int) -> Interleaving:
    return Interleaving(story, story.seed * 1000 + order)


def play(story: CloudStory, order: int) -> Count:
    """One interleaving, and what is wrong with it."""
    run = order_of(story, order)
    where = f"story {story.seed} order {order}"
    faults: list[str] = []
    try:
        run.play()
    except Wrong as wrong:
        faults.append(f"{where}: false: {wrong}")
    else:
        faults += [f"{where}: missed: {host}" for host in run.missed()]
        faults += [f"{where}: unretracted: {refill}" for refill in run.unretracted()]
    return Count(1, run.emptied, run.retracted, run.excused, faults)


def play_stories(seeds: range, orders: int = ORDERS) -> Count:
    """Some stories, each in so many orders.

    What they leave is collected once, at their end: looking for it all the time takes a quarter of the whole.
    """
    total = Count()
    gc.disable()
    try:
        for seed in seeds:
            story = CloudStory(seed)
            for order in range(orders):
                total.add(play(story, order))
    finally:
        gc.enable()
        gc.collect()
    return total


def tell(story: int, order: int) -> int:
    """Play one interleaving and print what the fleet heard and said."""
    run = order_of(CloudStory(story), order)
    admit, judge = run.admit, run._judge

    def admitting(observations: object) -> None:
        for o in observations:  # type: ignore[attr-defined]
            shown = {name: getattr(o, name) for name in o.__slots__ if getattr(o, name) not in (None, False, "", 0.0)}
            print(f"{run.now - T0:9.3f} {type(o).__name__} {shown}")
            admit((o,))

    def judging(event: object) -> None:
        print(f"{run.now - T0:9.3f}  >>> {event}")
        judge(event)  # type: ignore[arg-type]

    run.admit, run._judge = admitting, judging  # type: ignore[method-assign]
    try:
        run.play()
    except Wrong as wrong:
        print(f"false: {wrong}")
        return 1
    wrong_at_the_end = run.missed() + run.unretracted()
    print(f"missed or unretracted: {wrong_at_the_end}")
    return 1 if wrong_at_the_end else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000, help="interleavings")
    parser.add_argument("--first", type=int, default=0, help="the first story's seed")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--minutes", type=float, help="stop after so many minutes, whatever is left")
    parser.add_argument("--story", type=int, help="tell one story instead")
    parser.add_argument("--order", type=int, default=0)
    options = parser.parse_args()
    if options.story is not None:
        return tell(options.story, options.order)
    began = time.monotonic()
    total, said_at = Count(), 0.0
    last = options.first + -(-options.runs // ORDERS)
    chunks = (range(first, min(first + CHUNK, last)) for first in range(options.first, last, CHUNK))
    with multiprocessing.Pool(options.jobs) as pool:
        for count in pool.imap_unordered(play_stories, chunks):
            total.add(count)
            for fault in count.faults:
                print(fault, flush=True)
            took_s = time.monotonic() - began
            if took_s - said_at >= 30.0:
                said_at = took_s
                print(
                    f"{total.runs} of {options.runs} in {took_s:.0f} s ({total.runs / took_s:.0f}/s): {total.emptied} "
                    f"emptied, {total.retracted} retracted, {total.excused} excused, {len(total.faults)} faults",
                    flush=True,
                )
            if options.minutes is not None and took_s > options.minutes * 60:
                pool.terminate()
                break
    took_s = time.monotonic() - began
    print(
        f"{total.runs} interleavings of {total.runs // ORDERS} stories in {took_s:.0f} s: {total.emptied} emptied, "
        f"{total.retracted} retracted, {total.excused} excused, {len(total.faults)} false, missed or unretracted"
    )
    return 1 if total.faults else 0


if __name__ == "__main__":
    sys.exit(main())
