"""What opening a collection costs, beside loading it: time until it is ready, a record, a row, and the memory of workers.

    python bench/opened.py [--records 100000] [--boxes 10] [--rounds 3] [--workers 4]

Times are CPU time of this process, files in the system's cache, medians over the rounds in which the ways take
turns. 'Added' is the proportional set size (PSS) of this process and its workers, after each of them has read every
record once, over the same with a collection of ten records. Linux only.
"""

import argparse
import gc
import multiprocessing
import pickle
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import data
import targets

import redaction_serde as rs

READS = 20_000  # records that are read one by one
TARGETS = {  # what is asked of an opened collection: name -> (the least or the most, its value)
    'ready, not compared': ('least', 50),
    'ready, compared': ('least', 20),
    'a record, in any order': ('most', 2),
    'a record, in a loop': ('most', 2),
    'a raw row': ('most', 0.5),
    'added by fork': ('most', 0.1),
    'added by spawn': ('most', 0.1),
}


def seconds(action: Callable) -> float:
    """CPU seconds of an action, with the young collection that it leaves behind."""
    gc.collect()
    start = time.process_time()
    kept = action()
    gc.collect(0)
    spent = time.process_time() - start
    del kept
    return spent


def paused(action: Callable) -> Callable:
    """The same action with the collector paused."""

    def run():
        gc.disable()
        try:
            return action()
        finally:
            gc.enable()

    return run


def each(read: Callable, positions: Iterable) -> None:
    """Read some records, and drop them."""
    for i in positions:
        read(i)


def times(path: Path, pickled: bytes, n: int) -> dict:
    """Seconds of one round, by what is done; of a record where one is read."""
    opened, reads = rs.open(path), min(READS, n)
    order = random.Random(0).sample(range(n), reads)
    return {
        'pickle.loads, paused': seconds(paused(lambda: pickle.loads(pickled))),
        'load, a record': seconds(lambda: rs.load(path)) / n,
        'open, not compared': seconds(lambda: rs.open(path, verify=False)),
        'open, compared': seconds(lambda: rs.open(path)),
        'opened[i]': seconds(lambda: each(opened.__getitem__, order)) / reads,
        'for record in opened': seconds(lambda: each(lambda record: record, opened[:reads])) / reads,
        'opened.raw(i)': seconds(lambda: each(opened.raw, order)) / reads,
    }


def pss(pid: object = 'self') -> float:
    """MB of a process, of which what is shared counts in part."""
    text = Path(f'/proc/{pid}/smaps_rollup').read_text()
    return int(next(line for line in text.splitlines() if line.startswith('Pss:')).split()[1]) / 1e3


def worker(records: Iterable, done: object, leave: object) -> None:
    """Read every record once, and wait."""
    found = sum(len(record.detection.bboxes) for record in records)
    gc.collect()
    done.put(found)
    leave.wait()


def memory(records: Iterable, method: str, workers: int) -> float:
    """MB of this process and of workers that have read all records."""
    context = multiprocessing.get_context(method)
    done, leave = context.Queue(), context.Event()
    processes = [context.Process(target=worker, args=(records, done, leave)) for _ in range(workers)]
    for process in processes:
        process.start()
    found = {done.get(timeout=600) for _ in processes}
    if len(found) > 1:
        raise AssertionError(f'workers found {found} boxes')
    total = pss() + sum(pss(process.pid) for process in processes)
    leave.set()
    for process in processes:
        process.join()
    return total


def added(path: Path, small: Path, method: str, workers: int) -> tuple:
    """MB that workers add: of a loaded collection, and of an opened one."""
    found = []
    for read in (rs.load, rs.open):
        few = read(small)
        base = memory(few, method, workers)
        many = read(path)
        gc.collect()
        found.append(memory(many, method, workers) - base)
        del many
        gc.collect()
    return tuple(found)


def ratios(found: dict) -> dict:
    """What the targets are about."""
    return {
        'ready, not compared': found['pickle.loads, paused'] / found['open, not compared'],
        'ready, compared': found['pickle.loads, paused'] / found['open, compared'],
        'a record, in any order': found['opened[i]'] / found['load, a record'],
        'a record, in a loop': found['for record in opened'] / found['load, a record'],
        'a raw row': found['opened.raw(i)'] / found['load, a record'],
    }


def run(options: argparse.Namespace, folder: Path) -> dict:
    """All measurements: what was found, and the ratios."""
    n, path, small = options.records, folder / 'many.json', folder / 'few.json'
    rs.save(data.collection(data.made(10, options.boxes)), small)
    collection = data.collection(data.made(n, options.boxes))
    rs.save(collection, path)
    pickled = pickle.dumps(collection, 5)
    del collection
    rounds = [times(path, pickled, n) for _ in range(options.rounds)]
    del pickled
    found = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    wanted = ratios(found)
    for method in ('fork', 'spawn') if options.workers else ():
        loaded, opened = added(path, small, method, options.workers)
        found[f'{method}: MB added, loaded'], found[f'{method}: MB added, opened'] = loaded, opened
        wanted[f'added by {method}'] = opened / loaded
    return dict(found=found, ratios=wanted)


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--records', type=int, default=100_000)
    parser.add_argument('--boxes', type=int, default=10)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--workers', type=int, default=4, help='0: no memory is measured')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        results = run(options, Path(name))
    targets.show(results['found'], results['ratios'], TARGETS)
    return 0


if __name__ == '__main__':
    sys.exit(main())
