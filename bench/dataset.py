"""What a data set costs, from writing its records as they come to reading, filtering and verifying them.

    python bench/dataset.py [--records 100000] [--boxes 10] [--format parquet] [--folder FOLDER]

Times are CPU time, files in the system's cache as far as they fit. Memory is resident, libraries included: what this
process holds before the first record, and the most that it holds from then on; Linux only. Records are read from
anywhere by a process that does nothing else: once as raw rows, without icevision, and once as records. The folder must
be a new one; without it a temporary one is used and removed.
"""

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

import data
import targets

import redaction_serde as rs

READS = 200  # records that are read one by one, from anywhere
LARGE = """
import sys, duckdb
connection = duckdb.connect(config={'threads': 1, 'memory_limit': '300MB'})
connection.sql('SET enable_progress_bar = false')  # it would go to standard output
files = f"'{sys.argv[1]}/shards/*.parquet'"
query = f'SELECT count(*) FROM (SELECT unnest(area) AS area FROM {files}) WHERE area > 20000'
print(connection.sql(query).fetchall()[0][0])
print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))
"""
ANYWHERE = """
import random, sys, time
import redaction_serde as rs
folder, reads, verb = sys.argv[1], int(sys.argv[2]), sys.argv[3]
dataset = rs.open_dataset(folder)
places = random.Random(0).sample(range(len(dataset)), min(reads, len(dataset)))
read = getattr(dataset, verb)
read(0)  # libraries are loaded with the first one
start = time.process_time()
for i in places:
    read(i)
print((time.process_time() - start) / len(places))
ids = [dataset[i].record_id for i in places[:20]] if verb == '__getitem__' else [dataset.raw(i).t0.record_id for i in places]
assert ids == places[: len(ids)], 'other records were read'
assert verb == '__getitem__' or 'icevision' not in sys.modules, 'raw rows need no icevision'
print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))
"""
TARGETS = {
    'MB, at most while writing': ('most', 1000),
    'MB, at most while reading': ('most', 1000),
    'MB, at most, by raw rows': ('most', 1000),
}


def seconds(action: Callable) -> tuple:
    """CPU seconds of an action, and what it gave."""
    start = time.process_time()
    found = action()
    return time.process_time() - start, found


def fresh(n: int, boxes: int) -> Iterator:
    """Many records quickly, each with boxes of its own."""
    rng = random.Random(0)
    for record in data.recycled(n, boxes):
        detection = record.detection
        detection.bboxes[:] = [data.box(rng) for _ in range(boxes)]
        detection.areas[:] = [(b.xmax - b.xmin) * (b.ymax - b.ymin) for b in detection.bboxes]
        yield record


def memory(what: str) -> float:
    """MB of this process: 'VmRSS' now, 'VmHWM' at most since it was counted anew."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024 / 1e6


def count_memory_anew() -> None:
    """Forget the most that there was."""
    Path('/proc/self/clear_refs').write_text('5')


def filter_columns(folder: Path) -> tuple[int, float, float]:
    """How many boxes have more than 20,000 square pixels, by DuckDB with one thread, in a process of its own."""
    command = [sys.executable, '-c', LARGE, str(folder)]
    large, held = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return large, used.ru_utime + used.ru_stime, held * 1024 / 1e6


def read_anywhere(folder: Path, verb: str) -> tuple[float, float]:
    """CPU seconds of a record that is read by itself, and the most MB of the process that does nothing else."""
    command = [sys.executable, '-c', ANYWHERE, str(folder), str(READS), verb]
    spent, held = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(spent), int(held) * 1024 / 1e6


def filter_rows(dataset: rs.OpenedDataset) -> int:
    """The same by a loop over the records of the first shard alone."""
    first = dataset[: dataset.manifest.shards[0].records]
    return sum(area > 20_000 for record in first for area in record.detection.areas)


def run(options: argparse.Namespace, folder: Path) -> tuple[dict, dict]:
    """What was found, and the ratios."""
    n, before = options.records, memory('VmRSS')
    count_memory_anew()
    some = min(n, 20_000)
    generated = seconds(lambda: sum(1 for _ in fresh(some, options.boxes)))[0] * n / some
    records = fresh(n, options.boxes)
    written, count = seconds(lambda: rs.write_dataset(records, folder, format=options.format))
    writing = memory('VmHWM')
    count_memory_anew()
    opened, dataset = seconds(lambda: rs.open_dataset(folder))
    raw, held_by_rows = read_anywhere(folder, 'raw')
    record, held_by_records = read_anywhere(folder, '__getitem__')
    verified = seconds(dataset.verify)[0]
    if (count, len(dataset)) != (n, n):
        raise AssertionError(f'of {n} records, {count} were written, {len(dataset)} opened')
    found = {
        'written': written - generated,
        'written, a record': (written - generated) / n,
        'opened': opened,
        'a raw row from anywhere': raw,
        'a record from anywhere': record,
        'verified': verified,
        'filtered by a loop, a record': seconds(lambda: filter_rows(dataset))[0] / dataset.manifest.shards[0].records,
    }
    if options.format == 'parquet':
        large, spent, held = filter_columns(folder)
        found |= {'filtered by columns': spent, 'filtered by columns, a record': spent / n}
        found |= {'MB, of the process that filters': held}
        print(f'{large:,} of {n * options.boxes:,} boxes are large')
    stored = sum(shard.bytes for shard in dataset.manifest.shards)
    found |= {'MB, on disk': stored / 1e6, 'MB, before the first record': before}
    found |= {'MB, at most, by records': held_by_records}
    reading = {'MB, at most while reading': memory('VmHWM'), 'MB, at most, by raw rows': held_by_rows}
    return found, {'MB, at most while writing': writing, **reading}


@contextmanager
def place(folder: Optional[Path]) -> Iterator[Path]:
    """The folder to write to."""
    if folder:
        yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / 'dataset'


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--records', type=int, default=100_000)
    parser.add_argument('--boxes', type=int, default=10)
    parser.add_argument('--format', default='parquet')
    parser.add_argument('--folder', type=Path)
    options = parser.parse_args()
    with place(options.folder) as folder:
        found, ratios = run(options, folder)
    targets.show(found, ratios, TARGETS)
    return 0


if __name__ == '__main__':
    sys.exit(main())
