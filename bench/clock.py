"""Times of ways that take turns, and the memory of those that load.

Why our own clockwork: pyperf (2.11) can be given any timer, so it could count the collector's
bill, but it runs one benchmark after the other, each in processes of its own that would all build
the data again; pytest-benchmark (5.3) switches the collector off or leaves it and counts nothing
afterwards, and it, too, finishes one before it starts the next. On a shared machine a ratio of two
benchmarks that ran minutes apart says little. Here the ways take turns, and each round gives a
ratio of its own.
"""

import gc
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import data
from report import FOUND, OFF
from ways import Way, discard, lost, size

COLLECTORS = (FOUND, OFF)
ACTIONS = ('dumps', 'loads')


def timed(action: Callable, given, collector: str) -> tuple[float, object]:
    """CPU seconds and the result of `action(given)`.

    With the collector as found, its bill is counted to the end: pausing it during the action only
    defers a collection of young objects, which whoever runs next would pay.
    """
    if collector == OFF:
        gc.disable()
    try:
        start = time.process_time()
        result = action(given)
        if collector == FOUND:
            gc.collect(0)
        return time.process_time() - start, result
    finally:
        gc.enable()


@dataclass
class Samples:
    """What was measured of one way: seconds of each round, by collector and action."""

    way: Way
    seconds: dict = field(default_factory=lambda: {(c, a): [] for c in COLLECTORS for a in ACTIONS})
    bytes: int = 0
    lost: list | None = None

    def sample(self, given, collector: str):
        """Save and load once, from a clean state; the first time, see what came back."""
        gc.collect()
        seconds, stored = timed(self.way.dump, given, collector)
        self.seconds[collector, 'dumps'].append(seconds)
        seconds, again = timed(self.way.load, stored, collector)
        self.seconds[collector, 'loads'].append(seconds)
        self.bytes = size(stored)
        if self.lost is None:
            self.lost = lost(self.way, given, again, data.counts)
        discard(stored)


def turns(ways: list[Way], turn: int) -> list[Way]:
    """The ways in the order of one round: ours first, and who begins changes.

    Ours come first because a pickler gives every object a `__dict__` for good, which makes it
    slower to read for whoever comes next.
    """
    found = []
    for group in ([w for w in ways if w.ours], [w for w in ways if not w.ours]):
        start = turn % max(len(group), 1)
        found += group[start:] + group[:start]
    return found


def measure(
    ways: list[Way],
    build: Callable,  # makes the collection; a new one for each round
    rounds: int,
    few_rounds: int,  # for ways that take long
    say: Callable = lambda text: None,  # told what is being done
) -> dict[str, Samples]:
    """Samples of all ways, which take turns."""
    found = {way.name: Samples(way) for way in ways}
    for turn in range(rounds):
        given = build()
        for way in turns(ways, turn):
            if way.long and turn >= few_rounds:
                continue
            say(f'round {turn + 1} of {rounds}: {way.name}')
            for collector in COLLECTORS:
                found[way.name].sample(given, collector)
        del given
    return found


def odd_costs(kinds: dict, formats: tuple, rounds: int, say: Callable) -> dict:
    """What collections with odd records cost over a regular one: (kind, action, format) -> ratios.

    Collector off; regular and odd take turns.
    """
    from redaction_serde import dumps, loads

    found = {}
    for format in formats:
        stored = {kind: dumps(given, format) for kind, given in kinds.items()}
        for _ in range(rounds):
            say(f'odd records: {format}')
            seconds = {}
            for kind, given in kinds.items():
                gc.collect()
                seconds[kind, 'dumps'], _ = timed(partial(dumps, format=format), given, OFF)
                seconds[kind, 'loads'], _ = timed(loads, stored[kind], OFF)
            for (kind, action), spent in seconds.items():
                if kind != 'regular':
                    ratio = spent / seconds['regular', action]
                    found.setdefault((kind, action, format), []).append(ratio)
    return found


def memory(way: Way, n: int, boxes: int) -> dict[str, float]:
    """Peak of a load over what it returns, and that over what was saved (tracemalloc)."""
    way.load(way.dump(data.collection(data.made(20, boxes))))  # what is made once, such as classes
    gc.collect()
    tracemalloc.start()
    given = data.collection(data.made(n, boxes))
    gc.collect()
    saved, _ = tracemalloc.get_traced_memory()
    stored = way.dump(given)
    del given
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    again = way.load(stored)
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del again
    peak, loaded = (peak - before) / (now - before), (now - before) / saved
    return dict(peak=round(peak, 3), loaded=round(loaded, 3))


def resident_mb() -> float:
    """MB of this process now; the most it has had, where the system tells only that."""
    try:
        pages = int(Path('/proc/self/statm').read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / 1e6 if sys.platform == 'darwin' else most / 1e3


def in_process(function: Callable, *args):
    """Call a function of this file in a new process, which is small and has none of the peers."""
    with ProcessPoolExecutor(1, get_context('spawn')) as pool:
        return pool.submit(function, *args).result()


def loop_growth(format: str, n: int, boxes: int, times: int) -> dict[str, float]:
    """How the process grows, in MB, while it loads again and again and drops what it loaded.

    `one` is what the first load adds, `first` what the first half of the loop adds at most, and
    `second` what the second half adds to that.
    """
    from redaction_serde import dumps, loads

    given = data.collection(data.made(n, boxes))  # stays, or the first load would move into its room
    stored = dumps(given, format)
    gc.collect()
    start, sizes = resident_mb(), []
    for _ in range(times):
        again = loads(stored)
        sizes.append(resident_mb())
        del again
    first, most = max(sizes[: times // 2]), max(sizes)
    found = dict(one=sizes[0] - start, first=first - start, second=most - first)
    return {name: round(grown, 1) for name, grown in found.items()}


def stream_growth(n: int, boxes: int, folder: Path) -> float:
    """MB by which the process grows at most while that many records are written and read back."""
    from redaction_serde import iter_records, write_records

    path = folder / 'stream.jsonl'
    start = resident_mb()
    sizes = [start]
    write_records(path, data.recycled(n, boxes), progress=lambda _: sizes.append(resident_mb()))
    found = 0
    for _ in iter_records(path):
        found += 1
        if found % 1000 == 0:
            sizes.append(resident_mb())
    path.unlink()
    if found != n:
        raise AssertionError(f'{found:,} of {n:,} records came back from the stream')
    return max(sizes) - start
