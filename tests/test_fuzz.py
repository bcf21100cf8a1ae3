"""Documents at random, and documents made to be costly: every verb says the same, whatever the format, and none costs more than its bytes allow.

A short run of the same documents on every machine here; `make fuzz` runs for minutes with a new seed, and prints what it saw.
"""

import gzip
import os
import threading
import time
import warnings
from pathlib import Path

import pytest

import fuzzing as f
from deep_fuzz import Run, fast_folder, look_at_many
from pace import cpu_seconds
from redaction_serde.checks import check
from redaction_serde.errors import SerdeError
from redaction_serde.records import iter_records, load, load_record, loads
from redaction_serde.wire.registry import WIRES, zip_bytes

SECONDS, TRIES = float(os.environ.get('FUZZ_SECONDS', 0)), int(os.environ.get('FUZZ_TRIES', 160))
SEED = os.environ.get('FUZZ_SEED', '0')
SECONDS_PER_BYTE, BYTES_PER_BYTE = 20e-6, 400  # c of the docs: CPU time and memory for each unpacked byte
SECONDS_AT_LEAST, BYTES_AT_LEAST = 0.5, 64 << 20  # for any document


# ---------------------------------------------------------------- all verbs and formats agree


def test_every_verb_says_the_same_of_every_format():
    with fast_folder() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        run = Run(SEED, folder)
        while run.counts['documents'] < TRIES or time.monotonic() - run.start < SECONDS:
            run.look_at(run.counts['documents'])
    print(f'\n{run.told()}')
    assert not run.faults, run.faults[:5]
    assert run.counts['accepted'] > run.counts['documents'] / 5, (
        'most documents are refused: the generator has to follow the declarations'
    )


def test_a_fault_is_noted_and_does_not_end_the_run(monkeypatch, tmp_path):
    """Else a long run would say that all is well, or nothing."""
    monkeypatch.setattr(f, 'judge', lambda *args: 1 / 0)
    assert not look_at_many('s', first=7, documents=20, log=tmp_path / 'log')
    *faults, told = (tmp_path / 'log').read_text().splitlines()
    assert faults and all(line.endswith(': ZeroDivisionError: division by zero') for line in faults)
    assert faults[-1].startswith('seed s, number ')
    assert f'{len(faults)} crashes' in told and told.endswith('done')


# ---------------------------------------------------------------- a budget

PLAIN = [{'tasks': [{'name': 'common', 'order': 0.3, 'components': ['RecordID']}]}]


def layout(*components):
    return [{'tasks': [*PLAIN[0]['tasks'], {'name': 'detection', 'order': 0.5, 'components': list(components)}]}]


def with_value(value):
    return {'layouts': PLAIN}, [{'common': {'record_id': 1}, 'attrs': {'x': value}}]


def rows(n, make):
    return {'layouts': PLAIN}, [{'common': {'record_id': make(i)}} for i in range(n)]


def boxes(n, box):
    return {'layouts': layout('BBoxes')}, [{'common': {'record_id': 1}, 'detection': {'bboxes': [box] * n}}]


def labels(n, ids):
    header = {'layouts': layout('InstancesLabels'), 'class_maps': [{'classes': ['a']}]}
    return header, [{'common': {'record_id': i}, 'detection': {'label_ids': ids}} for i in range(n)]


SAME_HASH = 2**61 - 1  # multiples of it have one hash, and so have tuples of them

MECHANISMS = {  # each makes header and records that grow with n
    'a shape of many sides': lambda n: with_value({'$ndarray': {'dtype': '<f8', 'shape': [2**62] * n, 'data': ''}}),
    'many arrays of nothing': lambda n: with_value([{'$ndarray': {'dtype': '<f8', 'shape': [0], 'values': []}}] * n),
    'long key, many items': lambda n: with_value({'k' * n: [[]] * n}),
    'many keys': lambda n: with_value({str(i): 0 for i in range(n)}),
    'a set of equal hashes': lambda n: with_value(
        {'$set': [{'$tuple': [1, (i % 4) * SAME_HASH, i // 4 * SAME_HASH]} for i in range(n)]}
    ),
    'a dict of equal hashes': lambda n: with_value(
        {'$dict': [[{'$tuple': [i % 8 * SAME_HASH, i // 8]}, 0] for i in range(n)]}
    ),
    'ids of equal hashes': lambda n: rows(
        n, lambda i: {'$tuple': [i % 4 * SAME_HASH, i // 4 % 4 * SAME_HASH, i // 16 * SAME_HASH]}
    ),
    'equal ids': lambda n: rows(n, lambda i: None),
    'deep lists': lambda n: with_value([f.put([[[[[[[]]]]]]], (), [[[[[[[]]]]]]])] * n),
    'empty tuples': lambda n: with_value([{'$tuple': []}] * n),
    'wrong boxes': lambda n: boxes(n, 0),
    'boxes of whole numbers beyond 63 bits': lambda n: boxes(n, [2**63, 0, 1, 1]),
    'boxes beyond 64 bits': lambda n: boxes(n, [2**64, 0, 1, 1]),
    'labels that no map has': lambda n: labels(n, [5]),
    'labels without names': lambda n: labels(3, [0] * n),
    'class maps': lambda n: ({'layouts': PLAIN, 'class_maps': [{'classes': [i]} for i in range(n)]}, []),
    'wrong class maps': lambda n: ({'layouts': PLAIN, 'class_maps': [0] * n}, []),
    'names of one hash': lambda n: ({'class_maps': [{'classes': [i * SAME_HASH for i in range(n)]}]}, []),
    'keypoints': lambda n: ({'keypoints': [{'name': f'k{i}'} for i in range(n)]}, []),
    'keypoints that are used': lambda n: (
        {'layouts': layout('KeyPoints'), 'keypoints': [{'name': f'k{i}'} for i in range(n // 4)]},
        [{'common': {'record_id': 1}, 'detection': {'keypoints': [{'points': [1, 2, 3], 'metadata': n // 4 - 1}]}}],
    ),
    'tasks': lambda n: (
        {'layouts': [{'tasks': [{'name': str(i), 'order': 0, 'components': ['Size']} for i in range(n // 4)]}]},
        [],
    ),
    'layouts': lambda n: (
        {'layouts': [{'tasks': [{'name': 'a', 'order': i, 'components': ['Size']}]} for i in range(min(n, 900))]},
        [],
    ),
    'keys of an index': lambda n: (
        {'layouts': PLAIN, 'index': {'keys': [[i * SAME_HASH, 0] for i in range(n)]}},
        rows(1, int)[1],
    ),
    'an order without end': lambda n: ({'layouts': PLAIN, 'index': {'order': [0] * n}}, rows(1, int)[1]),
    'pairs without end': lambda n: ({'kind': 'predictions', 'layouts': PLAIN, 'pairs': [[0, 0]] * n}, rows(1, int)[1]),
    'masks': lambda n: (
        {'layouts': layout('InstanceMasks')},
        [{'common': {'record_id': 1}, 'detection': {'masks': [{'type': 'polygon', 'points': []}] * n}}],
    ),
    'unknown fields': lambda n: ({'layouts': PLAIN}, [{'common': {'record_id': 1, **{f'x{i}': 0 for i in range(n)}}}]),
    'attributes that hide': lambda n: (
        {'layouts': PLAIN},
        [{'common': {'record_id': i}, 'attrs': {'record_id': 1}} for i in range(n)],
    ),
    'missing attributes': lambda n: (
        {'layouts': PLAIN},
        [{'common': {'record_id': 1, 'extras': {'RecordID': {'$unset': ['record_id'] * n}}}}],
    ),
    'tiny records': lambda n: rows(n, int),
}


def peak():
    """Resets and reads the highest memory of this process, where the system tells it; else None."""
    try:
        Path('/proc/self/clear_refs').write_text('5')
        status = Path('/proc/self/status').read_text()
    except OSError:
        return None
    return {
        line.split(':')[0]: int(line.split()[1]) << 10
        for line in status.splitlines()
        if line.startswith(('VmHWM', 'VmRSS'))
    }


def cost(read, *args):
    """CPU time and memory that a call takes."""
    before, start = peak(), time.process_time()
    try:
        kept = read(*args, limits=f.LIMITS)
    except SerdeError as e:
        kept = e
    seconds = time.process_time() - start
    after = Path('/proc/self/status').read_text() if before else ''
    highest = [int(line.split()[1]) << 10 for line in after.splitlines() if line.startswith('VmHWM')]
    del kept
    return seconds, highest[0] - before['VmRSS'] if before else 0


def within_budget(size, read, *args):
    """The cost of a call for a document of that size; it must not be above the budget."""
    seconds, memory = cost(read, *args)
    hoped = SECONDS_AT_LEAST + SECONDS_PER_BYTE * size
    if seconds > hoped:
        seconds = cpu_seconds(lambda: cost(read, *args), hoped)
    assert seconds <= hoped, f'{seconds:.2f} s for {size} bytes'
    assert memory <= BYTES_AT_LEAST + BYTES_PER_BYTE * size, f'{memory >> 20} MB for {size} bytes'
    return seconds / size, max(0, memory - (8 << 20)) / size


def rows_of_file(path, limits):
    return sum(1 for _ in iter_records(path, limits=limits))


@pytest.mark.parametrize('mechanism', MECHANISMS)
def test_budget(mechanism, tmp_path):
    worst = (0.0, 0.0)
    for n in (40_000 if SECONDS else 3000,):
        for name, data in f.encodings(*MECHANISMS[mechanism](n)).items():
            suffix = WIRES[name.split()[0]].suffix[1:]
            path, zipped = tmp_path / f'd.{suffix}', tmp_path / f'd.{suffix}.gz'
            path.write_bytes(data)
            zipped.write_bytes(zip_bytes(data))
            calls = [(loads, data), (check, path), (rows_of_file, path)]
            calls += [(load, zipped), (check, zipped)] if SECONDS else [(load, zipped)]
            for read, source in calls:
                worst = tuple(map(max, worst, within_budget(len(data), read, source)))
    print(f'\n{mechanism}: {worst[0] * 1e6:.2f} µs and {worst[1]:.0f} bytes for a byte')


@pytest.mark.parametrize('make', [
    lambda n: [{'common': {'classes': [i], 'filepath': 'x', 'record_id': i}, 'detection': {'label_ids': []}} for i in range(n)],
    lambda n: [{'common': {'classes': [i * SAME_HASH for i in range(n)]}, 'detection': {'label_ids': []}}],
    lambda n: [0] * n,
    lambda n: [{'common': {}, 'detection': {'bboxes': [0] * n}}],
])  # fmt: skip
def test_budget_of_version_0(make):
    data = f.as_json(make(20_000 if SECONDS else 3000))
    within_budget(len(data), loads, data)


@pytest.mark.parametrize('name', sorted(WIRES))
def test_columns_of_nothing(name):
    """Blocks whose columns are all left out: a few bytes that stand for a thousand records each."""
    if name not in ('msgpack', 'protobuf', 'parquet'):
        pytest.skip('rows are spelled out')
    import msgspec
    import zlib

    if name == 'msgpack':
        blocks = [[0, 1000, [None] * 6]] * 3000
        header = {'layouts': [{'tasks': [{'name': 'a', 'order': 0, 'components': ['Size']}]}]}
        body = msgspec.msgpack.encode(['redaction-serde', '1.0', header, blocks, 0])[:-1]
        data = body + b'\xce' + zlib.crc32(body).to_bytes(4, 'big')
    elif name == 'parquet':
        header = {'layouts': [{'tasks': [{'name': 'a', 'order': 0, 'components': ['Size']}]}]}
        data = f.parquet_table(header, dict(layout=[0] * 3_000_000, types=[0] * 3_000_000))
    else:
        from redaction_serde import document_pb2

        whole = document_pb2.Document(format='redaction-serde', version='1.0', records=3_000_000)
        f._to_message({'layouts': [{'tasks': [{'name': 'a', 'order': 0, 'components': ['Size']}]}]}, whole.header)
        for _ in range(3000):
            block = whole.blocks.add(layout=0, count=1000)
            for _ in range(6):
                block.columns.add()
        body = whole.SerializeToString(deterministic=True)
        data = body + b'\x7d' + zlib.crc32(body).to_bytes(4, 'little')
    seconds, memory = cost(loads, gzip.compress(data))
    assert seconds < 30 and memory < 2 << 30
    with pytest.raises(SerdeError, match='objects out of'):
        loads(gzip.compress(data))


# ---------------------------------------------------------------- files that are none


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no pipes here')
@pytest.mark.parametrize(
    'read', [load, check, lambda path: list(iter_records(path)), lambda path: load_record(path, 0)]
)
@pytest.mark.parametrize('kind', ['pipe', 'device', 'link to a device', 'folder'])
def test_only_regular_files_are_read(read, kind, tmp_path):
    path = tmp_path / 'd.jsonl'
    if kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'folder':
        path.mkdir()
    else:
        path.symlink_to('/dev/zero')
    with pytest.raises((SerdeError, OSError)):
        read(Path('/dev/zero') if kind == 'device' else path)


@pytest.mark.parametrize('suffix', ['json', 'jsonl'])
@pytest.mark.parametrize('read', [load, check, rows_of_file])
def test_a_file_that_grows(read, suffix, tmp_path):
    """The size that a file says it has when it is opened is no reason to believe it."""
    path, stop = tmp_path / f'd.{suffix}', threading.Event()
    path.write_bytes(f.WRITERS[suffix](*rows(2, int)) + b' ' * 1000)

    def grow():
        with path.open('ab') as file:
            while not stop.is_set():
                file.write(b' ' * 65536)
                file.flush()
                if file.tell() > 200 << 20:
                    return

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        seconds, memory = cost(read, path)
    finally:
        stop.set()
        thread.join()
    assert memory < 400 << 20 and seconds < 20


@pytest.mark.parametrize('suffix', ['json', 'jsonl', 'msgpack', 'pb', 'parquet'])
def test_a_bomb(suffix, tmp_path):
    path = tmp_path / f'd.{suffix}.gz'
    name = 'protobuf' if suffix == 'pb' else suffix
    start = f.WRITERS[name](*rows(2, int))[:60]
    path.write_bytes(gzip.compress(start + bytes(100 << 20), 9))
    for read in (load, check, rows_of_file):
        seconds, memory = cost(read, path)
        assert memory < 100 << 20 and seconds < 5  # f.LIMITS are 16 MiB


@pytest.mark.parametrize('depth', [d for d in f.DEPTHS if d <= 500])  # from 900 on Python's encoder may give up itself
def test_lists_in_lists_are_written_as_json(depth):
    """A writer that gave up early would take the deep documents away from the formats that are JSON."""
    value = []
    for _ in range(depth - 1):
        value = [value]
    assert f.as_json(value) == b'[' * depth + b']' * depth


def test_bytes_beside_a_tag_are_not_written_as_json():
    for torn in ({'$bytes': b'x', 'note': 1}, [{'a': {'$ndarray': [{'data': b'x'}], 'note': 1}}]):
        with pytest.raises(f.Unwritable, match='no tag'):
            f.as_json(torn)
    assert f.as_json({'$bytes': b'x'}) == b'{"$bytes":"eA=="}'
