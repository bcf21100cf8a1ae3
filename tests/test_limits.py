"""Every limit, from both sides: what is just within it passes, what is just beyond is refused by name, with its remedy."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from test_round_trip import alike

from redaction_serde import values
from redaction_serde.errors import DecodeError, EncodeError, LimitError, Limits
from redaction_serde.fidelity import compare
from redaction_serde.records import dumps, iter_records, load, loads, save
from redaction_serde.values import INT_RANGE, MAX_DEPTH, READABLE_ITEMS, from_value, to_value
from redaction_serde.wire.protobuf import MAX_MESSAGES
from redaction_serde.wire.registry import FORMATS, WIRES, decode, encode, unzip_bytes

from icevision.core import (
    BaseRecord,
    BBox,
    BBoxesRecordComponent,
    FilepathRecordComponent,
    InstancesLabelsRecordComponent,
)
from icevision.data import RecordCollection


def collection(n):
    return RecordCollection(None).new(alike(n))


def refused(name, call, **limits):
    with pytest.raises(LimitError, match=name) as e:
        call(Limits(**limits))
    assert (e.value.path.startswith('$') or Path(e.value.path).is_file()) and str(limits[name]) in str(e.value)


@pytest.mark.parametrize('format', FORMATS)
def test_bytes(format):
    data = dumps(collection(3), format)
    size = len(unzip_bytes(data, Limits()) if format.endswith('.gz') else data)
    assert len(loads(data, limits=Limits(bytes=size))) == 3
    refused('bytes', lambda limits: loads(data, limits=limits), bytes=size - 1)
    refused('bytes', lambda limits: list(decode(data, limits=limits).records), bytes=size - 1)


@pytest.mark.parametrize('format', FORMATS)
def test_bytes_of_a_file(format, tmp_path):
    path = tmp_path / f'c.{format}'
    save(collection(3), path)
    size = len(unzip_bytes(path.read_bytes(), Limits()) if format.endswith('.gz') else path.read_bytes())
    assert len(load(path, limits=Limits(bytes=size))) == 3 == len(list(iter_records(path, limits=Limits(bytes=size))))
    refused('bytes', lambda limits: load(path, limits=limits), bytes=size - 1)
    refused('bytes', lambda limits: list(iter_records(path, limits=limits)), bytes=size - 1)


@pytest.mark.parametrize('format', FORMATS)
def test_records(format):
    data = dumps(collection(3), format)
    assert len(loads(data, limits=Limits(records=3))) == 3
    refused('records', lambda limits: loads(data, limits=limits), records=2)


def test_records_of_version_0():
    text = json.dumps(
        [
            dict(common=dict(record_id=i, filepath='p.png', width=4, height=3), detection=dict(bboxes=[], label_ids=[]))
            for i in range(3)
        ]
    )
    assert len(loads(text, limits=Limits(records=3))) == 3
    refused('records', lambda limits: loads(text, limits=limits), records=2)


@pytest.mark.parametrize('format', FORMATS)
def test_layouts(format):
    shapes = [(), (BBoxesRecordComponent,), (InstancesLabelsRecordComponent,)]
    records = [BaseRecord((FilepathRecordComponent(), *(c() for c in shape))) for shape in shapes]
    for i, r in enumerate(records):
        r.set_record_id(i)
    data = dumps(RecordCollection(None).new(records), format)
    assert len(loads(data, limits=Limits(layouts=3))) == 3
    refused('layouts', lambda limits: loads(data, limits=limits), layouts=2)


@pytest.mark.parametrize('format', ['jsonl', 'jsonl.gz'])
def test_line(format):
    data = dumps(collection(3), format)
    longest = max(map(len, (unzip_bytes(data, Limits()) if format.endswith('.gz') else data).splitlines(keepends=True)))
    assert len(loads(data, limits=Limits(line=longest))) == 3
    refused('line', lambda limits: loads(data, limits=limits), line=longest - 1)


def broken(n):
    """A JSON document with one mistake in each of `n` records."""
    whole = json.loads(dumps(collection(n)))
    for r in whole['records']:
        r['is_new'] = 'perhaps'
    return json.dumps(whole)


def test_problems():
    for limit, found in ((5, 5), (6, 5), (4, 4), (1, 1)):
        with pytest.raises(DecodeError) as e:
            loads(broken(5), limits=Limits(problems=limit), verify=False)
        assert [p.path for p in e.value.problems] == [f'$.records[{i}].is_new' for i in range(found)]


def nested(depth, kind):
    value = 'core'
    for _ in range(depth):
        value = kind(value)
    return value


KINDS = {'list': lambda v: [v], 'dict': lambda v: {'k': v}, 'tuple': lambda v: (v,)}


@pytest.mark.parametrize('kind', KINDS)
def test_depth(kind):
    record = BaseRecord((FilepathRecordComponent(),))
    record.set_record_id(1)
    c = RecordCollection(None).new([record])
    record.note = nested(MAX_DEPTH, KINDS[kind])
    for format in WIRES:
        if format == 'protobuf' and kind == 'tuple':  # a tagged value is a dict around a list: twice as deep
            with pytest.raises(EncodeError, match=f'deeper than {MAX_MESSAGES}') as e:
                dumps(c, format)
            assert e.value.path.startswith('$.records[0].attrs') or e.value.path.startswith('$.records[0].note')
        else:
            assert compare(c, loads(dumps(c, format)))
    record.note = nested(MAX_DEPTH + 1, KINDS[kind])
    for format in WIRES:
        with pytest.raises(EncodeError, match=f'deeper than {MAX_DEPTH}') as e:
            dumps(c, format)
        assert e.value.path.startswith('$.records[0].note')


@pytest.mark.parametrize('kind, most', [('list', MAX_MESSAGES), ('dict', MAX_MESSAGES)])
def test_depth_of_protocol_buffers(kind, most):
    """A document made elsewhere may be deeper than our own writer goes; the deepest that is written can be read."""
    record = BaseRecord((FilepathRecordComponent(),))
    record.set_record_id(1)
    document = decode(dumps(RecordCollection(None).new([record])))
    for depth in range(most - 4, most + 5):
        document.records[0].attrs = {'note': nested(depth, KINDS[kind])}
        try:
            data = encode(document, 'protobuf')
        except EncodeError as e:
            assert depth > most - 3 and f'deeper than {MAX_MESSAGES}' in str(e)
        else:
            assert depth <= most
            assert msgspec.to_builtins(decode(data).records[0].attrs) == {'note': nested(depth, KINDS[kind])}


@pytest.mark.parametrize('dtype', ['|u1', '<f8'])
def test_array_bytes(monkeypatch, dtype):
    monkeypatch.setattr(values, 'MAX_ARRAY_BYTES', 4000)
    most = 4000 // np.dtype(dtype).itemsize
    assert from_value(to_value(np.zeros(most, dtype))).shape == (most,)
    with pytest.raises(EncodeError, match='over the limit of 4000'):
        to_value(np.zeros(most + 1, dtype))  # it could not be read back
    monkeypatch.setattr(values, 'MAX_ARRAY_BYTES', 8000)
    written = to_value(np.zeros(most + 1, dtype))
    monkeypatch.setattr(values, 'MAX_ARRAY_BYTES', 4000)
    with pytest.raises(DecodeError, match='over the limit of 4000'):
        from_value(written)


def test_array_bytes_are_counted_before_they_are_there():
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for shape in ([1 << 31], [1 << 16, 1 << 16], [1 << 62, 1 << 62]):
        with pytest.raises(DecodeError, match='over the limit'):
            from_value({'$ndarray': {'dtype': '<f8', 'shape': shape, 'data': ''}})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10 << 10


@pytest.mark.parametrize('n', [READABLE_ITEMS - 1, READABLE_ITEMS, READABLE_ITEMS + 1])
def test_readable_items(n):
    x = np.arange(n, dtype=np.float32)
    data = to_value(x)['$ndarray']
    assert ('values' in data) == (n <= READABLE_ITEMS) and ('data' in data) == (n > READABLE_ITEMS)
    assert np.array_equal(from_value(to_value(x)), x)


@pytest.mark.parametrize('format', WIRES)
@pytest.mark.parametrize(
    'number, kept',
    [(INT_RANGE.start, True), (INT_RANGE.stop - 1, True), (INT_RANGE.start - 1, False), (INT_RANGE.stop, False)],
)
def test_integers(format, number, kept):
    c = collection(3)
    c[2].detection.bboxes[1] = BBox(0, number, 1, 1)
    if kept:
        assert compare(c, loads(dumps(c, format)))
        return
    with pytest.raises(EncodeError, match='64 bits') as e:
        dumps(c, format)
    assert e.value.path == '$.records[2].detection.bboxes[1][1]'


def test_all_problems_at_once_with_their_remedies():
    c = collection(5)
    c[1].note, c[2].detection.bboxes[0].xmin, c[4].detection.bboxes[0].score = object(), 'left', 1
    c[3].reviewed = [1, {'by': lambda: 0}]
    for format in WIRES:
        with pytest.raises(EncodeError) as e:
            dumps(c, format)
        assert [p.path for p in e.value.problems] == [
            '$.records[1].note',
            '$.records[2].detection.bboxes[0][0]',
            "$.records[3].reviewed[1].by",
            '$.records[4].detection.bboxes[0]',
        ]
    assert 'keep them on the record' in str(e.value)


@pytest.mark.parametrize('name', Limits.__struct_fields__)
def test_every_limit_is_tested_here(name):
    assert f'test_{name}' in globals()


def test_one_mistake_is_one_problem():
    whole = dumps(collection(3))
    with pytest.raises(DecodeError) as e:
        loads(whole.replace(b'"class_maps"', b'"palette":1,\n"class_maps"', 1), verify=False)
    assert [p.path for p in e.value.problems] == ['$.palette']
    c = collection(2)
    c[1].detection.bboxes[0].ymax = 'tall'
    c[1].detection.note = 1
    with pytest.raises(EncodeError) as e:
        dumps(c)
    assert [p.path for p in e.value.problems] == ['$.records[1].detection.bboxes[0][3]']


def test_a_file_that_a_crash_has_left_does_not_matter(tmp_path):
    import os

    (tmp_path / f'.c.json.{os.getpid()}.part').write_bytes(b'half')
    save(collection(1), tmp_path / 'c.json')
    assert load(tmp_path / 'c.json')
