"""A collection that is opened gives what one that is loaded gives, in every process, or says why not."""

import copy
import gc
import multiprocessing
import os
import pickle
import random
import re
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from test_hostile import GOLDEN, mutate
from test_round_trip import alike, collections

import redaction_serde as rs
from redaction_serde.components import COMPONENTS
from redaction_serde.errors import DecodeError, LimitError, Limits, SerdeError
from redaction_serde.fidelity import compare
from redaction_serde.kinds.kind import REQUIRED
from redaction_serde.lessons.cases import CASES, StickMetadata
from redaction_serde.wire.format import Wire
from redaction_serde.wire.places import index_path
from redaction_serde.wire.registry import FORMATS, WIRES

from icevision.core import AreasRecordComponent, BaseRecord, BBoxesRecordComponent, FilepathRecordComponent
from icevision.data import Dataset, RecordCollection
from torch.utils.data import DataLoader

SERVED = [name for name, wire in WIRES.items() if type(wire).places is not Wire.places]
VERIFY = ('now', 'on access', False)


def one(record):
    return RecordCollection(None).new([record])


def same(found, expected):
    found, expected = list(found), list(expected)
    return len(found) == len(expected) and all(map(compare, map(one, expected), map(one, found)))


def listed(collection):
    """The records that a collection lists, of which it may hold one twice."""
    return collection._records._list


def check_opened(opened, loaded):
    expected = listed(loaded)
    n = len(expected)
    assert len(opened) == n
    assert same(opened, expected)
    assert same([opened[i] for i in range(-n, n)], expected * 2)
    assert same(opened[1:], expected[1:]) and same(opened[::-2], expected[::-2])
    assert [repr(i) for i in opened.ids] == [repr(r.record_id if hasattr(r, 'record_id') else None) for r in expected]
    for record_id, record in loaded._records.data.items():  # `get_by_record_id` marks what it finds
        assert compare(one(record), one(opened.find(record_id)))
    for i in (n, -n - 1):
        with pytest.raises(IndexError):
            opened[i]
        with pytest.raises(IndexError):
            opened.raw(i)


@pytest.fixture
def saved(tmp_path):
    """Thirty records as JSON, and what they were."""
    path = tmp_path / 'pages.json'
    rs.save(RecordCollection(None).new(alike(30)), path)
    return path


# ---------------------------------------------------------------- what is loaded


def test_json_and_json_lines_are_served():
    assert {'json', 'jsonl'} <= set(SERVED)


@pytest.mark.parametrize('format', SERVED)
@settings(max_examples=40)
@given(collection=collections())
def test_opened_is_what_loaded_is(collection, format, tmp_path_factory):
    path = tmp_path_factory.mktemp('opened') / f'a.{format}'
    try:
        rs.save(collection, path)
    except SerdeError:
        return
    for verify in VERIFY:
        check_opened(rs.open(path, verify=verify), rs.load(path))
    rs.open(path, keep_index=True)
    check_opened(rs.open(path, verify='on access'), rs.load(path))
    check_opened(pickle.loads(pickle.dumps(rs.open(path, verify='on access'))), rs.load(path))


@pytest.mark.parametrize('format', SERVED)
@pytest.mark.parametrize('name', CASES)
def test_cases(name, format, tmp_path):
    path = tmp_path / f'a.{format}'
    try:
        rs.save(CASES[name](), path)
    except SerdeError:
        return
    loaded = rs.load(path)
    if isinstance(loaded, list):
        with pytest.raises(DecodeError, match='predictions'):
            rs.open(path)
        return
    check_opened(rs.open(path), loaded)


@pytest.mark.parametrize('path', [p for p in GOLDEN if p.suffix[1:] in SERVED], ids=lambda p: p.name)
def test_golden_files(path):
    loaded = rs.load(path)
    if not isinstance(loaded, list):
        check_opened(rs.open(path), loaded)


def mixed(n):
    """Records of two layouts, of which the second comes late."""
    records = []
    for i in range(n):
        more = [AreasRecordComponent()] if i >= n // 2 and i % 3 else []
        record = BaseRecord((FilepathRecordComponent(), BBoxesRecordComponent(), *more))
        record.set_record_id(i)
        records.append(record)
    return records


def test_a_stream_whose_header_grows(tmp_path):
    path = tmp_path / 'a.jsonl'
    rs.write_records(path, mixed(3000))
    assert path.read_bytes().count(b'{"define":') > 1
    check_opened(rs.open(path), rs.load(path))
    rs.open(path, keep_index=True)
    check_opened(rs.open(path, verify='on access'), rs.load(path))


def test_a_layout_that_comes_later_is_not_known(tmp_path):
    path = tmp_path / 'a.jsonl'
    rs.write_records(path, mixed(3000))
    lines = path.read_bytes().splitlines(True)
    late = next(i for i, line in enumerate(lines) if line.startswith(b'{"layout":1'))
    lines[4], lines[late] = lines[late], lines[4]
    path.write_bytes(b''.join(lines))
    with pytest.raises(DecodeError, match=r'records\[2\].layout'):
        list(rs.iter_records(path, verify=False))
    opened = rs.open(path, verify=False)
    assert opened[0].record_id == 0
    with pytest.raises(DecodeError, match=r'records\[2\].layout') as e:
        list(opened)
    assert e.value.path.startswith('$.records[2]')


def test_other_layouts_of_the_text(saved):
    text = saved.read_bytes()
    saved.write_bytes(text.replace(b'\n', b'\r\n'))
    check_opened(rs.open(saved), rs.load(saved))
    saved.write_bytes(msgspec.json.format(text, indent=3))
    with pytest.raises(DecodeError, match='checksum'):
        rs.open(saved)
    check_opened(rs.open(saved, verify=False), rs.load(saved, verify=False))


def test_roots_and_keypoints_are_those_of_load(tmp_path):
    path = tmp_path / 'a.jsonl'
    rs.save(CASES['keypoints'](), path)
    classes = [StickMetadata]
    assert same(
        rs.open(path, root=tmp_path, keypoints=classes), listed(rs.load(path, root=tmp_path, keypoints=classes))
    )
    evil = path.read_bytes().replace(b'"filepath":"', b'"filepath":"../../')
    path.write_bytes(evil)
    for read in (rs.load, lambda *args, **options: list(rs.open(*args, **options))):
        with pytest.raises(DecodeError, match='outside|leave'):
            read(path, root=tmp_path, verify=False)


@pytest.mark.parametrize('name', [name for name in FORMATS if name not in SERVED])
def test_other_formats_are_refused_with_a_remedy(name, tmp_path):
    path = tmp_path / f'a.{name}'
    rs.save(RecordCollection(None).new(alike(3)), path)
    with pytest.raises(DecodeError, match='load'):
        rs.open(path)


def test_an_index_that_is_that_of_another_file_is_none(saved):
    rs.open(saved, keep_index=True)
    kept = index_path(saved).read_bytes()
    rs.save(RecordCollection(None).new(alike(31)), saved)
    index_path(saved).write_bytes(kept)
    check_opened(rs.open(saved, verify='on access'), rs.load(saved))
    assert sorted(p.name for p in saved.parent.iterdir()) == ['pages.json', 'pages.json.index']


def test_no_index_is_kept_unasked(saved):
    for verify in VERIFY:
        list(rs.open(saved, verify=verify))
    assert [p.name for p in saved.parent.iterdir()] == ['pages.json']


# ---------------------------------------------------------------- what is wrong


def verdict_of_load(path, **options):
    try:
        return 'predictions' if isinstance(rs.load(path, **options), list) else 'whole'
    except SerdeError:
        return 'refused'


def verdict_of_open(path, **options):
    try:
        opened = rs.open(path, **options)
        list(opened)
        if opened.ids:
            opened.find(opened.ids[0])
        return 'whole'
    except SerdeError as e:
        assert str(e) and e.path
        return 'predictions' if 'this file holds predictions' in str(e) else 'refused'


def resealed(data):
    """The same with the right checksum, where there is a place for it."""
    if data.startswith(b'{"format":"redaction-serde","version":"1.0","crc32":"') and data[61:64] == b'",\n':
        return data[:53] + b'%08x' % zlib.crc32(data[64:]) + data[61:]
    start = data.rfind(b'{"end":')
    at = data.rfind(b'"crc32":"') + len(b'"crc32":"')
    if 0 < start < at and len(data) > at + 8:
        return data[:at] + b'%08x' % zlib.crc32(data[:start]) + data[at + 8 :]
    return data


@pytest.mark.parametrize('format', SERVED)
def test_hostile_files_have_the_verdict_of_load(format, tmp_path):
    rng = random.Random(format)
    files = [p.read_bytes() for p in GOLDEN if p.suffix == f'.{format}']
    path, seen = tmp_path / 'a', set()
    for _ in range(int(os.environ.get('OPEN_TRIES', 1500))):
        data = mutate(rng.choice(files), rng, rng.choice(files))
        path.write_bytes(resealed(data) if rng.random() < 0.7 else data)
        expected, found = verdict_of_load(path), verdict_of_open(path)
        if 'predictions' in (expected, found):  # which are refused before they are read
            assert found != 'whole'
            continue
        assert found == expected, data
        seen.add(found)
    assert seen == {'whole', 'refused'}


@pytest.mark.parametrize('format', SERVED)
def test_any_changed_byte_is_noticed(format, tmp_path):
    path = tmp_path / f'a.{format}'
    rs.save(RecordCollection(None).new(alike(4)), path)
    rs.open(path, keep_index=True)
    whole, expected = path.read_bytes(), listed(rs.load(path))
    rng = random.Random(0)
    for _ in range(150):
        i = rng.randrange(len(whole))
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << rng.randrange(8)]) + whole[i + 1 :])
        for verify in ('now', 'on access'):
            try:
                opened = rs.open(path, verify=verify)
                assert same(opened, expected)
            except SerdeError:
                pass
        path.write_bytes(whole[:i])
        with pytest.raises(SerdeError):
            rs.open(path, verify='now')


def test_a_damaged_record_is_refused_at_its_place(saved):
    whole = saved.read_bytes()
    rs.open(saved, keep_index=True)
    at = whole.splitlines(True)
    line = next(i for i, text in enumerate(at) if b'"record_id":"p7"' in text or b'"record_id":7,' in text)
    start = at[line].index(b'"bboxes":[[') + 11
    digit = at[line][start : start + 1]
    at[line] = at[line][:start] + (b'8' if digit != b'8' else b'7') + at[line][start + 1 :]
    saved.write_bytes(b''.join(at))
    with pytest.raises(DecodeError, match='checksum'):
        rs.open(saved)
    opened = rs.open(saved, verify='on access')
    assert opened[6] and opened[8]
    for read in (opened.__getitem__, opened.raw):
        with pytest.raises(DecodeError, match='checksum') as e:
            read(7)
        assert e.value.path == '$.records[7]'
    given, records = [], iter(opened)
    with pytest.raises(DecodeError):
        for record in records:
            given.append(record)
    assert len(given) == 7


def test_mistakes_have_the_places_and_words_of_load(saved):
    whole = saved.read_bytes()
    for old, new in (
        (b'"label_ids":[', b'"label_ids":["x",'),
        (b'"label_ids":[', b'"label_ids":[99,'),
        (b'"bboxes"', b'"boxes"'),
    ):
        lines = whole.splitlines(True)
        at = [i for i, line in enumerate(lines) if b'"bboxes":' in line][11]
        lines[at] = lines[at].replace(old, new)
        saved.write_bytes(b''.join(lines))
        with pytest.raises(DecodeError) as expected:
            rs.load(saved, verify=False)
        opened = rs.open(saved, verify=False)
        for read in (lambda: opened[11], lambda: list(opened)):
            with pytest.raises(DecodeError) as found:
                read()
            assert found.value.problems == expected.value.problems
        assert opened[12]  # a mistake is not remembered


def test_limits_are_those_of_load(saved, tmp_path):
    lines = tmp_path / 'a.jsonl'
    rs.save(RecordCollection(None).new(alike(30)), lines)
    for path in (saved, lines):
        for limits in (Limits(bytes=1000), Limits(records=29), Limits(layouts=0)):
            with pytest.raises(LimitError):
                rs.open(path, limits=limits)
        assert len(rs.open(path, limits=Limits(records=30))) == 30
    with pytest.raises(LimitError):
        rs.open(lines, limits=Limits(line=100))


def test_a_budget_of_objects(tmp_path, monkeypatch):
    """More objects than bytes: many tasks of components that say nothing."""
    for module in ('errors', 'opened'):
        monkeypatch.setattr(f'redaction_serde.{module}.FREE_OBJECTS', 0)
    names = [chr(c) for c in range(ord('0'), ord('0') + 40)]
    components = [n for n, c in COMPONENTS.items() if all(f.default is not REQUIRED for f in c.fields)]
    layout = dict(tasks=[dict(name=name, order=0, components=components) for name in names])
    record = '{' + ','.join(f'"{name}":{{}}' for name in names) + '}'
    head = '{"format":"redaction-serde","version":"1.0","crc32":"00000000",\n"layouts":['
    for layouts, more in (([layout], ''), ([dict(tasks=[]), layout], '"layout":1,')):
        text = ','.join(msgspec.json.encode(each).decode() for each in layouts)
        lines = [record.replace('{', '{' + more, 1)] * 1000
        path = tmp_path / 'a.json'
        path.write_text(head + text + '],\n"records":[\n' + ',\n'.join(lines) + '\n]}\n')
        for read in (rs.load, rs.open):
            with pytest.raises(LimitError, match='objects out of'):
                read(path, verify=False)


def test_ids_of_one_hash_are_refused(tmp_path):
    path, prime = tmp_path / 'a.json', 2**61 - 1
    rs.save(RecordCollection(None).new(mixed(300)), path)
    numbers = (f'[{a * prime},{b * prime},{c * prime}]' for a in range(7) for b in range(7) for c in range(7))
    ids = (b'"record_id":{"$tuple":%s}' % text.encode() for text in numbers)
    path.write_bytes(re.sub(rb'"record_id":\d+', lambda match: next(ids), path.read_bytes()))
    with pytest.raises(SerdeError, match='hash'):
        rs.load(path, verify=False)
    opened = rs.open(path, verify=False)
    assert opened[0].record_id == (0, 0, 0)
    with pytest.raises(SerdeError, match='hash'):
        opened.find((0, 0, 0))


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        rs.open(tmp_path / 'none.json')
    with pytest.raises(IsADirectoryError):
        rs.open(tmp_path)
    with pytest.raises(SerdeError, match='device or a pipe'):
        rs.open(os.devnull)
    (tmp_path / 'empty.json').write_bytes(b'')
    with pytest.raises(DecodeError, match='empty'):
        rs.open(tmp_path / 'empty.json')


# ---------------------------------------------------------------- a file that changes


def test_a_changed_file_is_noticed(saved):
    opened, whole = rs.open(saved), saved.read_bytes()
    packed = pickle.dumps(opened)
    saved.write_bytes(whole + b' ')
    for read in (lambda: opened[0], lambda: opened.raw(-1), lambda: list(opened), lambda: pickle.loads(packed)):
        with pytest.raises(SerdeError, match='has changed since it was opened'):
            read()
    saved.write_bytes(whole[:100])  # a map of what is gone would end the process
    with pytest.raises(SerdeError, match='has changed since it was opened'):
        opened[29]


def test_a_replaced_file_stays_what_it_was_here_and_is_noticed_elsewhere(saved):
    opened, expected = rs.open(saved), listed(rs.load(saved))
    packed = pickle.dumps(opened)
    rs.save(RecordCollection(None).new(alike(31)), saved)
    assert same(opened, expected)
    with pytest.raises(SerdeError, match='has changed since it was opened'):
        pickle.loads(packed)


def test_closing(saved):
    with rs.open(saved) as opened:
        part, record = opened[2:], opened[1]
        assert 'pages.json' in repr(opened)
    for closed in (opened, part):
        with pytest.raises(SerdeError, match='closed'):
            closed[0]
    assert record.detection.bboxes and len(opened) == 30
    opened.close()


def test_nothing_is_left_open(saved):
    before = set(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else set()
    for _ in range(20):
        list(rs.open(saved))
        with pytest.raises(SerdeError):
            rs.open(saved, limits=Limits(records=1))
    gc.collect()
    if before:
        assert len(set(os.listdir('/proc/self/fd')) - before) <= 1


# ---------------------------------------------------------------- a record is its own


def test_a_record_shares_nothing_but_its_class_map(saved):
    opened = rs.open(saved)
    i = max(range(30), key=lambda i: len(opened[i].detection.bboxes))
    first, again = opened[i], opened[i]
    first.detection.bboxes.clear()
    first.detection.label_ids.append(0)
    assert again.detection.bboxes and again.detection.label_ids != first.detection.label_ids
    assert first.detection.class_map is again.detection.class_map
    assert opened.raw(3) is not opened.raw(3)


def test_each_thread_has_a_builder_of_its_own(saved):
    """A builder remembers the folder of the last path; another thread must not change it between two steps."""
    source = rs.open(saved)._source
    found = [source._builder()]
    thread = threading.Thread(target=lambda: found.append(source._builder()))
    thread.start()
    thread.join()
    assert found[0] is source._builder() and found[0] is not found[1]


def test_raw_rows_and_opening_need_no_icevision(saved):
    code = (
        'import sys, redaction_serde as rs\n'
        f'opened = rs.open({str(saved)!r})\n'
        'print(len(opened), len(opened.ids), opened[5:].raw(0).t1.bboxes[0])\n'
        'assert not {"icevision", "torch", "zenml"} & set(sys.modules)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith('30 30 '), done.stderr


def test_the_front_door_leaves_pythons_open_alone():
    assert 'open' not in rs.__all__ and 'open' in dir(rs) and rs.open is rs.open_collection


# ---------------------------------------------------------------- other processes


def ids_and_boxes(opened):
    return [(r.record_id, len(r.detection.bboxes)) for r in opened]


def work(opened, queue):
    """What a worker does."""
    queue.put(ids_and_boxes(opened))


@pytest.mark.parametrize('method', multiprocessing.get_all_start_methods())
def test_other_processes(saved, method):
    context = multiprocessing.get_context(method)
    opened = rs.open(saved)
    queue = context.Queue()
    workers = [context.Process(target=work, args=(part, queue)) for part in (opened, opened[10:20])]
    for worker in workers:
        worker.start()
    found = sorted((queue.get(timeout=120) for _ in workers), key=len)
    for worker in workers:
        worker.join()
    expected = ids_and_boxes(opened)
    assert found == [expected[10:20], expected]


def collate(records):
    return [(r.record_id, np.array([b.xyxy for b in r.detection.bboxes])) for r in records]


class Whole:
    """A data set whose items are records as they are; icevision's own opens their images."""

    def __init__(self, records):
        self.records = records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        return self.records[i]


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_a_data_loader_with_two_workers(saved, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f'no {method} on this system')
    opened = rs.open(saved)
    loader = DataLoader(Whole(opened), batch_size=7, num_workers=2, collate_fn=collate, multiprocessing_context=method)
    found = [item for batch in loader for item in batch]
    expected = collate(listed(rs.load(saved)))
    assert [i for i, _ in found] == [i for i, _ in expected]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(found, expected))


def test_icevisions_data_set(pages, tmp_path):
    rs.save(pages, tmp_path / 'pages.json')
    opened = rs.open(tmp_path / 'pages.json')
    data = Dataset(opened[:3])
    assert len(data) == 3
    for found, expected in zip((data[i] for i in range(3)), (Dataset(listed(pages))[i] for i in range(3))):
        assert np.array_equal(found.img, expected.img) and found.record_id == expected.record_id
    assert opened[0].img is None  # the next one is fresh


def test_copies(saved):
    opened = rs.open(saved)
    for again in (copy.copy(opened), copy.deepcopy(opened)):
        assert ids_and_boxes(again) == ids_and_boxes(opened)


def test_a_relative_path_means_the_folder_of_its_opening(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    packed = pickle.dumps(rs.open(Path('pages.json')))
    monkeypatch.chdir('/')
    assert len(pickle.loads(packed)) == 30
