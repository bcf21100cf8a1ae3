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
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_hostile import GOLDEN, mutate
from test_parquet import again, table_of
from test_round_trip import alike, collections

import redaction_serde as rs
from redaction_serde.components import COMPONENTS
from redaction_serde.document import Document, Header, Layout, TaskSpec, record_shape
from redaction_serde.errors import DecodeError, LimitError, Limits, SerdeError
from redaction_serde.fidelity import compare
from redaction_serde.kinds.kind import REQUIRED
from redaction_serde.lessons.cases import CASES, StickMetadata
from redaction_serde.wire import parquet
from redaction_serde.wire.footer import read_footer, row_groups
from redaction_serde.wire.format import Wire
from redaction_serde.wire.places import Places, index_path, seal, write_index
from redaction_serde.wire.registry import FORMATS, WIRES, encode

from icevision.core import AreasRecordComponent, BaseRecord, BBoxesRecordComponent, ClassMap, FilepathRecordComponent
from icevision.data import Dataset, RecordCollection
from torch.utils.data import ConcatDataset, DataLoader

SERVED = [name for name, wire in WIRES.items() if type(wire).places is not Wire.places]
PER_GROUP = 7  # records of a row group, in tables of these tests
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
def text(tmp_path):
    """Thirty records as JSON."""
    path = tmp_path / 'pages.json'
    rs.save(RecordCollection(None).new(alike(30)), path)
    return path


@pytest.fixture
def table(tmp_path, monkeypatch):
    """The same as a table of five row groups."""
    monkeypatch.setattr(parquet, '_GROUP', PER_GROUP)
    path = tmp_path / 'pages.parquet'
    rs.save(RecordCollection(None).new(alike(30)), path)
    return path


@pytest.fixture(params=['text', 'table'])
def saved(request):
    """Either of them."""
    return request.getfixturevalue(request.param)


# ---------------------------------------------------------------- what is loaded


def test_what_is_served():
    assert {'json', 'jsonl', 'parquet'} <= set(SERVED)


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


def test_other_layouts_of_the_text(text):
    saved, whole = text, text.read_bytes()
    saved.write_bytes(whole.replace(b'\n', b'\r\n'))
    check_opened(rs.open(saved), rs.load(saved))
    saved.write_bytes(msgspec.json.format(whole, indent=3))
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
    assert sorted(p.name for p in saved.parent.iterdir()) == [saved.name, index_path(saved).name]


def test_no_index_is_kept_unasked(saved):
    for verify in VERIFY:
        list(rs.open(saved, verify=verify))
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


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
    if data.startswith(b'PAR1') and (place := parquet._place_of_crc(data)) is not None:
        return parquet.sealed(data[:place] + b'0' * 8 + data[place + 8 :])
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


def test_a_damaged_record_is_refused_at_its_place(text):
    saved, whole = text, text.read_bytes()
    rs.open(saved, keep_index=True)
    at = whole.splitlines(True)
    line = next(i for i, found in enumerate(at) if b'"record_id":7,' in found)
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


def test_mistakes_have_the_places_and_words_of_load(text):
    saved, whole = text, text.read_bytes()
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


def test_limits_are_those_of_load(text, table, tmp_path):
    lines = tmp_path / 'a.jsonl'
    rs.save(RecordCollection(None).new(alike(30)), lines)
    for path in (text, lines, table):
        for limits in (Limits(bytes=1000), Limits(records=29), Limits(layouts=0)):
            with pytest.raises(LimitError):
                rs.open(path, limits=limits)
        assert len(rs.open(path, limits=Limits(records=30))) == 30
    with pytest.raises(LimitError):
        rs.open(lines, limits=Limits(line=100))
    record = alike(1)[0]
    record.set_filepath(f'{"x" * 100_000}.png')
    rs.save(RecordCollection(None).new([record]), table)
    assert table.stat().st_size < 50_000
    for read in (rs.load, rs.open):  # of a table, what comes out of the pages counts
        with pytest.raises(LimitError, match='bytes'):
            read(table, limits=Limits(bytes=50_000))


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


def test_a_budget_of_objects_of_a_table(tmp_path, monkeypatch):
    """The same, where the layout of a record is known only to its row group."""
    tasks = tuple(TaskSpec(chr(ord('0') + k), 0, ('Size',)) for k in range(40))
    header = Header(layouts=[Layout(tasks[:1]), Layout(tasks)])
    structs = [record_shape(layout, k).wide_struct for k, layout in enumerate(header.layouts)]
    few = msgspec.convert({'0': {}}, structs[0])
    many = msgspec.convert({'layout': 1, **{task.name: {} for task in tasks}}, structs[1])
    for rows, verdict in (([few] * 999 + [many], 'whole'), ([few] + [many] * 999, 'refused')):
        path = tmp_path / 'a.parquet'
        path.write_bytes(encode(Document(header, rows), 'parquet'))
        with monkeypatch.context() as patched:
            for module in ('errors', 'opened'):
                patched.setattr(f'redaction_serde.{module}.FREE_OBJECTS', 20_000)
            assert verdict_of_open(path) == verdict_of_load(path) == verdict
            if verdict == 'refused':  # at once
                with pytest.raises(LimitError, match='objects out of'):
                    rs.open(path)


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


# ---------------------------------------------------------------- row groups


def groups_read(opened, monkeypatch):
    """The row groups that are read from now on, in their order."""
    found, groups = [], opened._source.places
    table = groups.table
    monkeypatch.setattr(groups, 'table', lambda g, *args: found.append(g) or table(g, *args))
    return found


def test_a_record_is_read_with_its_row_group_and_no_other(table, monkeypatch):
    opened = rs.open(table)
    found = groups_read(opened, monkeypatch)
    assert opened.raw(8) and opened[9].record_id == 9
    assert found == [1]
    assert opened[-1].record_id == 29 and opened[12].record_id == 12
    assert found == [1, 4]


@given(order=st.lists(st.integers(-30, 29), max_size=40), kept=st.integers(0, 3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_few_row_groups_are_kept(order, kept, table, monkeypatch):
    """Whatever is read, and in any order: the ones that were read last, and one in any case."""
    opened = rs.open(table)
    most = max(1, kept)
    with monkeypatch.context() as patched:
        sizes = [opened._source.places.table(g).nbytes for g in range(5)]
        patched.setattr('redaction_serde.opened._MOST_KEPT', kept * max(sizes))
        found = groups_read(opened, patched)
        rows = [opened.raw(i) for i in order]
        held = opened._source._recent._kept.values()
        assert len(held) == 1 or sum(size for _, size in held) <= kept * max(sizes)
    assert [row.t0.record_id for row in rows] == [i % 30 for i in order]
    assert len(held) >= min(most, len(set(found)))
    assert all(a != b for a, b in zip(found, found[1:]))  # none is read twice running
    assert [row.t0.record_id for i in order for row in opened._source.rows(range(i % 30, 30))] == [
        k for i in order for k in range(i % 30, 30)
    ]


def test_damage_in_one_row_group_leaves_the_others(table):
    rs.open(table, keep_index=True)
    whole, rng = table.read_bytes(), random.Random(0)
    firsts = rs.open(table)._source.places.firsts
    for g, group in enumerate(row_groups(read_footer(whole))):
        at = rng.randrange(group.start, group.end)
        table.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
        with pytest.raises(DecodeError, match='checksum'):
            rs.open(table)
        try:
            opened = rs.open(table, verify='on access')
        except DecodeError:  # the header of a page, which is looked at when the file is opened
            continue
        bad = range(firsts[g], firsts[g + 1])
        for i in range(30):
            if i not in bad:
                assert opened[i].record_id == i
                continue
            for read in (opened.__getitem__, opened.raw):
                with pytest.raises(DecodeError, match=f'row group {g}, with the records {bad[0]} to {bad[-1]}') as e:
                    read(i)
                assert e.value.path == f'$.records[{bad[0]}]'
        before = []
        with pytest.raises(DecodeError):
            for record in opened:
                before.append(record)
        assert len(before) == bad[0]


def test_an_index_of_another_number_of_row_groups_is_none(table):
    opened = rs.open(table)
    places = opened._source.places
    fewer = Places(opened.header, places.starts[1:], places.ends[1:])
    write_index(table, table.read_bytes(), fewer)
    check_opened(rs.open(table, verify='on access'), rs.load(table))
    whole = bytearray(table.read_bytes())
    whole[int(places.starts[0]) + 40] ^= 1
    table.write_bytes(whole)
    with pytest.raises(DecodeError):
        rs.open(table, verify='on access')


WRONG = {
    'layout': (lambda value: 9, '$.records[11]'),
    'label_id': (lambda value: None, '$.records[11]'),
    'rest': (lambda value: msgspec.msgpack.encode([1]), '$.records[11]'),
    'record_id': (lambda value: '1_000', '$'),
    'xmax': (lambda value: [*value, 1.0], '$'),
}


@pytest.mark.parametrize('name', WRONG)
def test_mistakes_in_a_table_have_the_places_and_words_of_load(name, table):
    change, place = WRONG[name]
    data = table.read_bytes()
    columns = table_of(data)
    values = columns[name].to_pylist()
    values[11] = change(values[11])
    field = columns.schema.field(name)
    array = pa.array(values, field.type)
    table.write_bytes(again(columns.set_column(columns.schema.get_field_index(name), field, array), data))
    with pytest.raises(DecodeError) as expected:
        rs.load(table)
    opened = rs.open(table)
    for read in (lambda: opened[11], lambda: opened.raw(11), lambda: list(opened)):
        with pytest.raises(DecodeError) as found:
            read()
        assert found.value.problems == expected.value.problems and found.value.path == place
    assert opened[20].record_id == 20  # of another row group


def test_a_seal_knows_the_checksum_of_a_document(tmp_path):
    """Wherever that stands: in a table it is far from both ends if there are many classes."""
    classes = ClassMap([f'class {i}' for i in range(500)])
    record = alike(1)[0]
    record.detection.set_class_map(classes)
    for format in SERVED:
        data = rs.dumps(RecordCollection(None).new([record]), format)
        place = parquet._place_of_crc(data) if format == 'parquet' else data.rindex(b'"crc32":"') + len('"crc32":"')
        assert seal(data) != seal(data[:place] + b'!' * 8 + data[place + 8 :])


# ---------------------------------------------------------------- a file that changes


def test_a_changed_file_is_noticed(saved):
    opened, whole = rs.open(saved), saved.read_bytes()
    assert opened[0]  # which may be kept
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
        assert saved.name in repr(opened)
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


def work(collections, queue):
    """What a worker does."""
    queue.put(list(map(ids_and_boxes, collections)))


@pytest.mark.parametrize('method', multiprocessing.get_all_start_methods())
def test_another_process(text, table, method):
    context = multiprocessing.get_context(method)
    collections = [part for opened in map(rs.open, (text, table)) for part in (opened, opened[10:20])]
    queue = context.Queue()
    worker = context.Process(target=work, args=(collections, queue))
    worker.start()
    found = queue.get(timeout=120)
    worker.join()
    assert found == list(map(ids_and_boxes, collections))


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
def test_a_data_loader_with_two_workers(text, table, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f'no {method} on this system')
    both = ConcatDataset([Whole(rs.open(text)), Whole(rs.open(table))])
    loader = DataLoader(both, batch_size=7, num_workers=2, collate_fn=collate, multiprocessing_context=method)
    found = [item for batch in loader for item in batch]
    expected = collate([*listed(rs.load(text)), *listed(rs.load(table))])
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
    for other in (copy.copy(opened), copy.deepcopy(opened)):
        assert ids_and_boxes(other) == ids_and_boxes(opened)


def test_a_relative_path_means_the_folder_of_its_opening(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    packed = pickle.dumps(rs.open(Path(saved.name)))
    monkeypatch.chdir('/')
    assert len(pickle.loads(packed)) == 30
