"""Documents that once left `root`, set what no field allows, or passed one verb and not another; their checksums fit."""

import gzip
import json
import zlib

import fuzzing as f
import pytest

from redaction_serde.checks import check
from redaction_serde.errors import SerdeError
from redaction_serde.records import dumps, iter_records, load_record, loads
from redaction_serde.wire.registry import WIRES

COMMON = [{'tasks': [{'name': 'common', 'order': 0.3, 'components': ['RecordID', 'Filepath', 'Size']}]}]


def record(**fields):
    return {'common': {'record_id': 1, **fields}}


def aside(component, **attributes):
    return record(extras={component: attributes})


REFUSED = {
    'a path beside the field': ({}, aside('Filepath', filepath={'$path': '/etc/passwd'})),
    'a size that is text': ({}, aside('Size', img_size='wide')),
    'an id beside its field': ({}, aside('RecordID', record_id=7.5)),
    'no composite': ({}, aside('RecordID', **{'$unset': ['composite']})),
    'no task': ({}, aside('RecordID', **{'$unset': ['task']})),
    'half a mask': (
        {'layouts': [{'tasks': [{'name': 'common', 'order': 0.3, 'components': ['RecordID', 'InstanceMasks']}]}]},
        record(masks=[], extras={'InstanceMasks': {'$unset': ['masks']}}),
    ),
    'names without a hash': ({'class_maps': [{'classes': [[1]]}]}, record()),
    'names without a hash, but ids': ({'class_maps': [{'classes': [[1]], 'ids': [['a', 0]]}]}, record()),
    'ids without a hash': ({'class_maps': [{'classes': ['a'], 'ids': [[[1], 0]]}]}, record()),
    'lines that are none': ({'keypoints': [{'name': 'k', 'connections': [[1]]}]}, record()),
    'a name with a zero byte': ({'keypoints': [{'name': 'a\0b', 'connections': None}]}, record()),
    'a task of nothing': ({'layouts': [{'tasks': [{'name': 'common', 'order': 0, 'components': []}]}]}, {'common': {}}),
    'a key twice': ({'index': {'keys': [['a', 0], ['a', 0]]}}, record()),
    'a record in no list': ({'index': {'order': []}}, record()),
    'a record in no pair': ({'kind': 'predictions'}, record()),
    'pairs of a collection': ({'pairs': [[0, None]]}, record()),
    'a box that is none': ({}, {**record(), 'attrs': {'x': {'$bbox': 'nonsense'}}}),
    'a number of 400 digits': ({}, {**record(), 'attrs': {'x': 10**400}}),
}


@pytest.mark.parametrize('case', REFUSED)
def test_refused_by_every_verb_in_every_format(case, tmp_path):
    header, row = REFUSED[case]
    files = f.encodings({'layouts': COMMON, **header}, [row])
    assert {'json', 'jsonl'} <= set(files)
    for name, data in files.items():
        assert f.judge(data, WIRES[name.split()[0]].suffix[1:], tmp_path) is None, name


@pytest.mark.parametrize('place', ['filepath', 'attribute'])
@pytest.mark.parametrize('path', ['/etc/passwd', '../x', 'a/../../x', 'C:\\x', '\\\\host\\x'])
def test_no_path_leaves_the_root(path, place, tmp_path):
    row = record(filepath=path) if place == 'filepath' else {**record(), 'attrs': {'mask': {'$path': path}}}
    for name, data in f.encodings({'layouts': COMMON}, [row]).items():
        file = tmp_path / f'd{WIRES[name.split()[0]].suffix}'
        file.write_bytes(data)
        for read in (
            loads,
            lambda data, root: load_record(file, 0, root=root),
            lambda data, root: list(iter_records(file, root=root)),
        ):
            with pytest.raises(SerdeError, match='would leave root'):
                read(data, root='/srv/data')


@pytest.mark.parametrize('classes', [5, {'a': 1}, 'abc', [[1]], [{'a': 1}], True])
def test_class_maps_of_version_0(classes, tmp_path):
    head = {'classes': classes, 'filepath': 'x', 'width': 1, 'height': 1}
    data = json.dumps([{'common': head, 'detection': {'label_ids': []}}]).encode()
    assert f.judge(data, 'json', tmp_path) is None


@pytest.mark.parametrize('depth', [33, 200, 480, 600, 900, 990, 1000, 3000])
@pytest.mark.parametrize('opens, closes', [(b'[', b']'), (b'{"a":', b'}'), (b'{"$tuple":[', b']}')])
def test_nothing_is_dropped_where_it_is_deep(depth, opens, closes, tmp_path):
    deep = b'{"common":{"record_id":1},"attrs":{"x":%s0%s}}' % (opens * depth, closes * depth)
    rows = [b'{"common":{"record_id":0}}', deep, b'{"common":{"record_id":2}}']
    data = f.json_document({'layouts': COMMON}, []).split(b'"crc32"')[0]
    body = b'"layouts":%s,\n"records":[\n%s\n]}\n' % (f.as_json(COMMON), b',\n'.join(rows))
    data += b'"crc32":"%08x",\n' % zlib.crc32(body) + body
    assert f.judge(data, 'json', tmp_path) is None


def test_equal_ids_are_no_attack(tmp_path):
    """A collection whose records were never given an id is written, and so it is read."""
    header, rows = {'layouts': COMMON}, [{'common': {'record_id': None}}] * 200
    whole = loads(f.json_document(header, rows))
    (tmp_path / 'd.json').write_bytes(dumps(whole))
    assert sum(1 for _ in loads(dumps(whole))) == 200 == len(check(tmp_path / 'd.json').records)


def test_a_loop_reads_one_gzip_member(tmp_path):
    data = f.lines_document({'layouts': COMMON}, [record()])
    half = data.index(b'\n') + 1
    for packed in (gzip.compress(data[:half]) + gzip.compress(data[half:]), gzip.compress(data) + bytes(9)):
        assert f.judge(packed, 'jsonl.gz', tmp_path) is None
