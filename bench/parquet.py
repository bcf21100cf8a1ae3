"""What Parquet takes and gives, beside pickle and our JSON Lines.

    python bench/parquet.py [--records 20000] [--boxes 10] [--rounds 3]

Times are CPU time of this process with the collector off, files in the system's cache, medians over the rounds in
which the ways take turns. DuckDB has one thread. A query gives the same answer both ways, or the script stops. The
class balance over JSON Lines is written as a user would; 'by hand' is the quickest form that we know, which parses
nothing but the list of ids.
"""

import argparse
import gc
import pickle
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import data
import targets

import redaction_serde as rs

TARGETS = {  # what is asked of the format: name -> (the least or the most, its value)
    'bytes, of pickle 5': ('most', 0.35),
    'loads, against pickle 5': ('least', 2),
    'class balance, against JSON Lines': ('least', 20),
    'filter, against a loop': ('least', 5),
}
BALANCE = """
    SELECT label, count(*) FROM (SELECT unnest(label) AS label FROM '{path}') GROUP BY label
"""
OF_LINES = "FROM read_json{}('{path}', format='newline_delimited', maximum_object_size=1000000000)"
BALANCE_OF_LINES = f"""
    SELECT id, count(*) FROM (SELECT unnest(detection.label_ids) AS id {OF_LINES.format('', path='{path}')}) GROUP BY id
"""
QUICKEST_OF_LINES = f"""
    SELECT id, count(*) FROM (
        SELECT unnest(from_json(json->'$.detection.label_ids', '["BIGINT"]')) AS id
        {OF_LINES.format('_objects', path='{path}')}
    ) GROUP BY id
"""
LARGE = """
    SELECT count(*) FROM (SELECT unnest(area) AS area FROM '{path}') WHERE area > 20000
"""


def seconds(action: Callable) -> tuple:
    """CPU seconds of an action with the collector off, and what it gave."""
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        found = action()
        return time.process_time() - start, found
    finally:
        gc.enable()


def balance(connection, query: str, path: Path) -> Counter:
    """How many boxes there are of each class, by DuckDB."""
    return Counter(dict(connection.sql(query.format(path=path)).fetchall()))


def large_boxes(collection) -> int:
    """How many boxes have more than 20,000 square pixels, by a loop over the records."""
    return sum(area > 20_000 for record in collection for area in record.detection.areas)


def times(path: Path, lines: Path, pickled: bytes, collection, connection) -> dict:
    """Seconds of one round, by what is done."""
    content, names = path.read_bytes(), collection[0].detection.class_map._id2class
    actions = {
        'pickle.loads': lambda: pickle.loads(pickled),
        'loads': lambda: rs.loads(content),
        'class balance': lambda: balance(connection, BALANCE, path),
        'class balance, JSON Lines': lambda: balance(connection, BALANCE_OF_LINES, lines),
        'class balance, JSON Lines by hand': lambda: balance(connection, QUICKEST_OF_LINES, lines),
        'filter': lambda: connection.sql(LARGE.format(path=path)).fetchall()[0][0],
        'filter, a loop': lambda: large_boxes(collection),
    }
    spent, gave = {}, {}
    for name, action in actions.items():
        spent[name], gave[name] = seconds(action)
        if name.endswith('loads'):
            del gave[name]
    by_name = {names[i]: count for i, count in gave['class balance, JSON Lines'].items() if i is not None}
    if gave['class balance'] != by_name or gave['filter'] != gave['filter, a loop']:
        raise AssertionError(f'the ways do not agree: {gave}')
    return spent


def run(options: argparse.Namespace, folder: Path) -> dict:
    """All measurements: what was found, and the ratios."""
    import duckdb

    connection = duckdb.connect()
    connection.sql('SET threads = 1')
    path, lines = folder / 'a.parquet', folder / 'a.jsonl'
    collection = data.collection(data.made(options.records, options.boxes))
    rs.save(collection, path)
    rs.save(collection, lines)
    pickled = pickle.dumps(collection, 5)
    rounds = [times(path, lines, pickled, collection, connection) for _ in range(options.rounds)]
    found = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    ratios = {
        'bytes, of pickle 5': path.stat().st_size / len(pickled),
        'loads, against pickle 5': found['pickle.loads'] / found['loads'],
        'class balance, against JSON Lines': found['class balance, JSON Lines'] / found['class balance'],
        'class balance, against by hand': found['class balance, JSON Lines by hand'] / found['class balance'],
        'filter, against a loop': found['filter, a loop'] / found['filter'],
    }
    return dict(found=found, ratios=ratios)


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--records', type=int, default=20_000)
    parser.add_argument('--boxes', type=int, default=10)
    parser.add_argument('--rounds', type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        results = run(options, Path(name))
    targets.show(results['found'], results['ratios'], TARGETS)
    return 0


if __name__ == '__main__':
    sys.exit(main())
