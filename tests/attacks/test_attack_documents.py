"""Documents that once left `root`, set what no field allows, or passed one verb and not another; their checksums fit."""

import gzip
import hashlib
import json
import warnings
import zlib

import fuzzing as f
import pytest
from google.protobuf.internal import encoder

from redaction_serde import document_pb2 as pb
from redaction_serde.checks import check
from redaction_serde.errors import DecodeError, SerdeError
from redaction_serde.records import dumps, iter_records, load_record, loads
from redaction_serde.records.build import ImagesWarning
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


TWICE = {
    'record': b'{"common":{"record_id":3},"common":{"record_id":3}}',
    'field': b'{"common":{"record_id":3,"record_id":3}}',
    'field, spelled otherwise': b'{"common":{"record_id":3,"record_\\u0069d":4}}',
    'field, after a space': b'{"common":{"record_id" :3,"record_id":4}}',
    'attribute': b'{"common":{"record_id":3},"attrs":{"note":"a:b","note":"c"}}',
    'within an attribute': b'{"common":{"record_id":3},"attrs":{"note":{"a":1,"a":1}}}',
    'optional field, missing elsewhere': b'{"common":{"record_id":3,"filepath":"a","filepath":"b"}}',
}
PLACES = {'record': '', 'attribute': '.attrs', 'within an attribute': '.attrs.note'}


def with_crc(text, lines=False):
    "JSON or JSON Lines of some text, with a checksum that fits."
    if lines:
        end = b'{"end":{"records":5,"crc32":"%08x"}}\n'
        return text + end % zlib.crc32(text)
    return b'{"format":"redaction-serde","version":"1.0","crc32":"%08x",\n%s' % (zlib.crc32(text), text)


def five(row, lines=False):
    "A document of five records, of which this text is the fourth."
    rows = [b'{"common":{"record_id":%d,"filepath":"a"}}' % i for i in range(5)]
    rows[2], rows[3] = b'{"common":{"record_id":2}}', row
    if lines:
        head = b'{"format":"redaction-serde","version":"1.0","lines":true,"layouts":%s}\n' % f.as_json(COMMON)
        return with_crc(head + b'\n'.join(rows) + b'\n', lines=True)
    return with_crc(b'"layouts":%s,\n"records":[\n%s\n]}\n' % (f.as_json(COMMON), b',\n'.join(rows)))


@pytest.mark.parametrize('verify', [True, False])
@pytest.mark.parametrize('lines', [False, True])
@pytest.mark.parametrize('case', TWICE)
def test_a_key_twice_in_a_file_whose_checksum_is_right(case, lines, verify, tmp_path):
    file = tmp_path / ('d.jsonl' if lines else 'd.json')
    file.write_bytes(five(TWICE[case], lines))
    place = f'$.records[3]{PLACES.get(case, ".common")}'
    reads = (lambda: loads(file.read_bytes(), verify=verify), lambda: check(file, verify=verify))
    for read in (*reads, lambda: list(iter_records(file, verify=verify)), lambda: load_record(file, 3, verify=verify)):
        with pytest.raises(SerdeError, match='stands twice in one object') as found:
            read()
        assert found.value.path == place


@pytest.mark.parametrize('row', [b'{ "common" :{"record_id":3}}', b'{"common":{"filepath":"a:b","record_id":3e0}}'])
def test_a_file_that_was_edited_by_hand_is_read(row):
    for lines in (False, True):
        assert len(loads(five(row, lines))) == 5


@pytest.mark.parametrize('where', ['header', 'records', 'definition', 'end', 'version 0'])
def test_a_key_twice_in_what_is_no_record(where):
    texts = {
        'header': with_crc(b'"kind":"records","kind":"records",\n"records":[\n]}\n'),
        'records': with_crc(b'"records":[\n],"records":[\n]}\n'),
        'version 0': b'[{"common":{},"detection":{"label_ids":[],"label_ids":[]}}]',
    }
    lines = five(b'{"common":{"record_id":3}}', lines=True)
    texts['definition'] = lines.replace(b'{"end"', b'{"define":{},"define":{}}\n{"end"')
    texts['end'] = lines.replace(b'"records":5,', b'"records":4,"records":5,')
    with pytest.raises(SerdeError, match='layout 0 is not one' if where == 'records' else 'stands twice'):
        loads(texts[where], verify=False)


def test_a_key_twice_in_messagepack():
    data = f.msgpack_document({'layouts': COMMON}, [{**record(), 'attrs': {'note': {'aaa': 1, 'bbb': 2}}}])
    assert loads(data)[0].note == {'aaa': 1, 'bbb': 2}
    body = data[:-5].replace(b'bbb', b'aaa')
    with pytest.raises(SerdeError, match="the key 'aaa' stands twice"):
        loads(body + b'\xce' + zlib.crc32(body).to_bytes(4, 'big'))


EVERYTHING = ['RecordID', 'Filepath', 'Size', 'InstancesLabels', 'BBoxes', 'Areas', 'InstanceMasks', 'KeyPoints']
EMPTY = {'label_ids': [], 'bboxes': [], 'areas': [], 'masks': [], 'keypoints': []}
TOLD_TWICE = {
    'path': ({'filepath': 'a.png'}, {'Filepath': {'filepath': 'b.png'}}),
    'grey': ({'gray': True}, {'Filepath': {'gray': 1}}),
    'size': ({'size': [4, 3]}, {'Size': {'img_size': {'$tuple': [1, 2]}}}),
    'width': ({'size': [4, 3]}, {'Size': {'width': 5}}),
    'original size': ({'original_size': [4, 3]}, {'Size': {'original_img_size': None}}),
    'ids': ({'label_ids': [0]}, {'InstancesLabels': {'label_ids': None}}),
    'labels': ({'labels': ['a']}, {'InstancesLabels': {'labels': None}}),
    'boxes': ({'bboxes': [[1, 2, 3, 4]]}, {'BBoxes': {'bboxes': None}}),
    'areas': ({'areas': [1]}, {'Areas': {'areas': {'$tuple': [1]}}}),
    'mask': ({'mask_array': {'dtype': '|u1', 'shape': [1], 'values': [1]}}, {'InstanceMasks': {'mask_array': []}}),
    'keypoints': ({'keypoints': [{'points': [1, 2, 3], 'metadata': None}]}, {'KeyPoints': {'keypoints': None}}),
    'missing boxes': ({'bboxes': [[1, 2, 3, 4]]}, {'BBoxes': {'$unset': ['bboxes']}}),
    'missing masks': (
        {'masks': [{'type': 'polygon', 'points': [[1, 2, 3, 4, 5, 6]]}]},
        {'InstanceMasks': {'$unset': ['masks', 'mask_parts']}},
    ),
}


@pytest.mark.parametrize('case', TOLD_TWICE)
def test_a_field_and_an_odd_value_for_it(case, tmp_path):
    """The odd value won in silence; a document that says two things says neither."""
    header = {
        'class_maps': [{'classes': ['a']}],
        'layouts': [{'tasks': [{'name': 'common', 'order': 0.3, 'components': EVERYTHING}]}],
    }
    fields, aside_ = TOLD_TWICE[case]
    good = {'common': {'record_id': 1, **EMPTY, **fields}}
    bad = {'common': {'record_id': 1, **EMPTY, **fields, 'extras': aside_}}
    ((component, attributes),) = aside_.items()
    for (name, data), first in zip(f.encodings(header, [bad]).items(), f.encodings(header, [good]).values()):
        suffix = WIRES[name.split()[0]].suffix[1:]
        assert f.judge(first, suffix, tmp_path) is not None, name
        assert f.judge(data, suffix, tmp_path) is None, name
        with pytest.raises(SerdeError, match='this is told twice') as found:
            loads(data)
        assert found.value.path.startswith(f'$.records[0].common.extras.{component}.'), name


def test_embedded_images_are_not_left_out_without_a_word(tmp_path):
    image = {'sha256': hashlib.sha256(b'x').hexdigest(), 'data': 'eA=='}
    data = f.json_document({'layouts': COMMON}, [record(filepath='a.png', image=image)] * 3)
    with pytest.warns(ImagesWarning, match='images_dir') as said:
        assert b'"image"' not in dumps(loads(data))
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        kept = loads(data, images_dir=tmp_path)
        assert b'"image"' in dumps(kept, images='embed')


def field(number, message):
    """A message in a message, as its bytes; `message` may be bytes, too."""
    data = message if isinstance(message, bytes) else message.SerializeToString()
    return encoder.TagBytes(number, 2) + encoder._VarintBytes(len(data)) + data


def without_order(message, header=None, column=None):
    """The bytes of a document of one block of which one part is replaced, and the checksum that they should have."""
    block = message.blocks[0]
    first = column if column is not None else field(3, block.columns[0])
    columns = first + b''.join(field(3, c) for c in block.columns[1:])
    start = pb.Document(format=message.format, version=message.version, records=message.records).SerializeToString()
    header = header if header is not None else field(4, message.header)
    body = start + header + field(5, pb.Block(layout=block.layout, count=block.count).SerializeToString() + columns)
    return body + b'\x7d' + zlib.crc32(body).to_bytes(4, 'little')


def told_twice(good):
    """Files in which a field stands twice, by where it does."""
    message = pb.Document.FromString(good)
    sealed = lambda body: body + b'\x7d' + zlib.crc32(body).to_bytes(4, 'little')  # noqa: E731
    end = good.index(field(2, message.version.encode()))
    inserted = {'records': pb.Document(records=9), 'version': pb.Document(version='0.1'), 'crc32': pb.Document(crc32=1)}
    for name, other in inserted.items():
        yield name, sealed(good[:end] + other.SerializeToString() + good[end:-5])
    yield 'format', sealed(good[:end] + pb.Document(format=message.format).SerializeToString() + good[:-5])
    keys = pb.Map(keys=message.header.map.keys).SerializeToString()
    values = pb.Map(values=message.header.map.values).SerializeToString()
    halves = (
        field(message.header.DESCRIPTOR.fields_by_name['map'].number, keys),
        field(message.header.DESCRIPTOR.fields_by_name['map'].number, values),
    )
    yield 'halves of a header', without_order(message, header=b''.join(field(4, half) for half in halves))
    column = message.blocks[0].columns[0]
    another = pb.Column(doubles=pb.Doubles(items=[1.5])).SerializeToString()
    yield 'kind of a column', without_order(message, column=field(3, another + column.SerializeToString()))


def test_a_field_of_protocol_buffers_that_stands_twice_is_refused(tmp_path):
    """Protocol Buffers takes the last and says nothing; a file that says two things says neither."""
    good = f.encodings({'layouts': COMMON}, [record(filepath='a.png'), record(filepath='b.png')])['protobuf']
    assert without_order(pb.Document.FromString(good)) == good
    cases = dict(told_twice(good))
    assert len(cases) == 6
    for name, data in cases.items():
        path = tmp_path / 'twice.pb'
        path.write_bytes(data)
        for read in (
            lambda: loads(data),
            lambda: loads(data, verify=False),
            lambda: list(iter_records(path)),
            lambda: check(path),
        ):
            with pytest.raises(SerdeError, match='a field stands twice'):
                read()


# ---------------------------------------------------------------- whole numbers beyond 64 bits, where types let them through


BEYOND = 10**21


def whole_file(header, line):
    """JSON Lines of one record, with `verify=False` in mind."""
    first = {'format': 'redaction-serde', 'version': '1.1', 'lines': True, **header}
    return (
        b'\n'.join(
            json.dumps(x, separators=(',', ':')).encode()
            for x in (first, line, {'end': {'records': 1, 'crc32': '0' * 8}})
        )
        + b'\n'
    )


ONLY_IDS = {'name': 'common', 'order': 0, 'components': ['RecordID']}
NUMBERED = {'a class': {'class_maps': [{'classes': ['a'], 'ids': [['a', BEYOND]]}]}}
NUMBERED['a class below'] = {'class_maps': [{'classes': ['a'], 'ids': [['a', -(2**63) - 1]]}]}
NUMBERED['a line of keypoints'] = {
    'keypoints': [{'name': 'K', 'labels': ['a'], 'connections': [[0, BEYOND, [1, 2, 3]]]}]
}


@pytest.mark.parametrize('place', NUMBERED)
@pytest.mark.parametrize('defined', [False, True])
def test_numbers_of_a_header_fit_in_64_bits(place, defined):
    header = {'layouts': [{'tasks': [ONLY_IDS]}]}
    data = whole_file(header if defined else header | NUMBERED[place], {'common': {'record_id': 1}})
    if defined:
        first, rest = data.split(b'\n', 1)
        data = b'\n'.join([first, json.dumps({'define': NUMBERED[place]}, separators=(',', ':')).encode(), rest])
    with pytest.raises(DecodeError, match='does not fit in 64 bits'):
        loads(data, verify=False)


def test_numbers_of_keypoints_fit_in_64_bits():
    tasks = [{'name': 'common', 'order': 0, 'components': ['RecordID', 'KeyPoints']}]
    line = {'common': {'record_id': 1, 'keypoints': [{'points': [BEYOND, 1, 2.5]}]}}
    data = whole_file({'layouts': [{'tasks': tasks}]}, line)
    with pytest.raises(DecodeError, match='does not fit in 64 bits'):
        loads(data, verify=False)


def test_a_dict_whose_keys_are_numbers_is_no_value():
    from redaction_serde.values import from_value

    with pytest.raises(DecodeError, match='expected text as the keys'):
        from_value([{1.5: 'a'}])


@pytest.mark.parametrize('dtype, number', [('|u1', 1), ('|b1', True), ('<f4', 1.0)])
@pytest.mark.parametrize('shape', [[], [1]])
def test_a_tensor_of_one_number_is_judged_alike_when_it_is_only_looked_at(dtype, number, shape, tmp_path):
    tasks = [ONLY_IDS, {'name': 'detection', 'order': 1, 'components': ['IsCrowds']}]
    value = {'$tensor': {'dtype': dtype, 'shape': shape, 'values': [number]}}
    line = {'common': {'record_id': 1}, 'detection': {'iscrowds': [], 'extras': {'IsCrowds': {'iscrowds': value}}}}
    (tmp_path / 'a.jsonl').write_bytes(whole_file({'layouts': [{'tasks': tasks}]}, line))
    looked = f.verdict(check, tmp_path / 'a.jsonl', verify=False)[1]
    made = f.verdict(loads, (tmp_path / 'a.jsonl').read_bytes(), verify=False)[1]
    assert (looked is None) == (made is None) == (shape == [1])
    assert shape == [1] or 'found a value of class number as iscrowds' in str(looked)
