"""Detection records of every shape come back as they were, or are refused by name."""

import json
import math
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from redaction_serde.fidelity import compare, round_trip
from redaction_serde.checks import broken_references, check
from redaction_serde.errors import DecodeError, EncodeError, LimitError, Limits, UnknownComponentError, VersionError
from redaction_serde.records import (
    COCOMaterializerParser,
    detection_json_str_to_record_collection,
    detection_record_collection_to_json,
    dumps,
    from_document,
    iter_records,
    load,
    load_record,
    loads,
    save,
    to_document,
    write_records,
)
from redaction_serde.records import pack
from redaction_serde.wire.jsonl import RecoveryWarning
from redaction_serde.document import Document, Header
from redaction_serde.wire.registry import FORMATS, decode, encode, unzip_bytes

import torch
from icevision import parsers
from icevision.core import (
    AreasRecordComponent,
    BaseRecord,
    BBox,
    BBoxesRecordComponent,
    ClassMap,
    FilepathRecordComponent,
    InstancesLabelsRecordComponent,
    IsCrowdsRecordComponent,
    RecordComponent,
    ScoresRecordComponent,
)
from icevision.data import RecordCollection, SingleSplitSplitter
from icevision.utils import ImgSize

# ---------------------------------------------------------------- what real data does

finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.one_of(
    finite,
    st.floats(-10, 900),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-5, 2000),
    finite.map(np.float64),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(np.float32),
    st.integers(-(2**31), 2**31 - 1).map(np.int32),
    st.floats(-1e6, 1e6).map(lambda x: torch.tensor(x)),
)
boxes = st.one_of(
    st.builds(BBox, numbers, numbers, numbers, numbers),  # inverted, outside of the image, anything
    st.builds(lambda x, y: BBox(x, y, x, y), finite, finite),
)  # no area
text = st.text(st.characters(exclude_categories=['Cs']), max_size=12)
names = st.one_of(text, st.sampled_from(['redaction', 'größe', '漢字', 'a"b\\c', '\x00', '\u2028']))
ids = st.one_of(
    st.integers(-(2**63), 2**63), text, st.tuples(text, st.integers(0, 9)), st.none(), st.floats(0, 1), st.booleans()
)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), finite, text),
    lambda x: st.one_of(st.lists(x, max_size=3), st.dictionaries(text, x, max_size=3), st.tuples(x, x)),
    max_leaves=5,
)


@st.composite
def class_maps(draw):
    classes = draw(st.lists(st.one_of(names, st.none(), st.integers(0, 9)), max_size=6))
    background = draw(st.sampled_from(['background', None, 'nothing', 'redaction']))
    class_map = ClassMap(classes, background=background)
    if draw(st.booleans()):
        class_map.unlock()
    return class_map


@st.composite
def records(draw, class_map=class_maps()):
    components = [
        FilepathRecordComponent(gray=draw(st.booleans())),
        InstancesLabelsRecordComponent(),
        BBoxesRecordComponent(),
    ]
    components += [
        c() for c in (AreasRecordComponent, IsCrowdsRecordComponent, ScoresRecordComponent) if draw(st.booleans())
    ]
    record, found = BaseRecord(components), draw(st.lists(boxes, max_size=4))
    record.set_record_id(draw(ids))
    if draw(st.booleans()):
        record.set_filepath(
            draw(st.sampled_from(['p.png', 'scans/ß 漢.png', '/moved/away.jpg', '../up.png', 'a/./b.png']))
        )
    if draw(st.booleans()):
        record.set_img_size(
            ImgSize(draw(st.integers(0, 5000)), draw(st.integers(0, 5000))), original=draw(st.booleans())
        )
    detection, m = record.detection, draw(st.one_of(st.none(), class_map))
    if m is not None:
        detection.set_class_map(m)
    label_ids = draw(
        st.lists(st.integers(0, max(0, len(m or []) - 1)).map(draw(st.sampled_from([int, np.int64]))), max_size=4)
    )
    if m is None or len(m):
        detection.add_labels_by_id(label_ids)
    detection.add_bboxes(found)
    if AreasRecordComponent in map(type, components):
        detection.add_areas(draw(st.lists(numbers, max_size=4)))
    if IsCrowdsRecordComponent in map(type, components):
        detection.add_iscrowds(draw(st.lists(st.one_of(st.integers(0, 1), st.booleans()), max_size=4)))
    if ScoresRecordComponent in map(type, components):
        detection.set_scores(
            draw(
                st.one_of(
                    st.none(),
                    st.lists(finite, max_size=4),
                    st.lists(finite, max_size=4).map(np.array),
                    st.just(np.array([0.5], np.float32)),
                )
            )
        )
    if draw(st.booleans()):
        record.is_new = draw(st.one_of(st.booleans(), plain))
    if draw(st.booleans()):
        record.reviewed = draw(plain)
    if draw(st.booleans()):
        detection.above_threshold = draw(plain)
    return record


@st.composite
def collections(draw):
    shared = draw(class_maps())
    found = draw(st.lists(st.one_of(records(), records(st.just(shared))), max_size=4))
    collection = RecordCollection(
        draw(st.sampled_from([None, lambda: BaseRecord((FilepathRecordComponent(), BBoxesRecordComponent()))]))
    ).new(found)
    collection = collection + collection if draw(st.integers(0, 5)) == 0 else collection
    for name in draw(st.sets(st.sampled_from(['coco', 'origin', 'größe']))):
        setattr(collection, name, draw(plain))
    return collection


# ---------------------------------------------------------------- columns


def alike(n, scored=False):
    """Records as a parser leaves them, that differ in numbers only."""
    class_map, found = ClassMap(['redaction', 'stamp']), []
    for i in range(n):
        record = BaseRecord(
            [
                FilepathRecordComponent(),
                InstancesLabelsRecordComponent(),
                BBoxesRecordComponent(),
                AreasRecordComponent(),
                IsCrowdsRecordComponent(),
            ]
        )
        record.set_record_id(i)
        record.set_filepath(f'scans/{i}.png')
        record.set_img_size(ImgSize(640, 480 + i))
        record.is_new = False
        record.detection.set_class_map(class_map)
        record.detection.add_labels(['redaction', 'stamp'][: i % 3])
        record.detection.add_bboxes([BBox(i, 0.5 * i, 10 + j, 20.25) for j in range(i % 3)])
        record.detection.add_areas([100.5] * (i % 3))
        record.detection.add_iscrowds([0, True][: i % 3])
        found.append(record)
    return found


ODDITIES = {
    'an id of another type': lambda r: r.set_record_id('text'),
    'an id beyond 64 bits': lambda r: r.set_record_id(2**70),
    'no mark': lambda r: delattr(r, 'is_new'),
    'a mark that is not a bool': lambda r: setattr(r, 'is_new', None),
    'an attribute for a mark': lambda r: (delattr(r, 'is_new'), setattr(r, 'reviewed', True)),
    'an attribute of the record': lambda r: setattr(r, 'reviewed', True),
    'an attribute of the task': lambda r: setattr(r.detection, 'above_threshold', [1]),
    'an attribute of a component': lambda r: setattr(r.detection.components[0], 'note', 'x'),
    'an attribute of a box': lambda r: r.detection.bboxes and setattr(r.detection.bboxes[0], 'note', 'x'),
    'a box of text': lambda r: r.detection.bboxes and setattr(r.detection.bboxes[0], 'xmin', '1'),
    'a box of a NumPy number': lambda r: r.detection.bboxes and setattr(r.detection.bboxes[0], 'xmin', np.float32(0.1)),
    'a box of NaN': lambda r: r.detection.bboxes and setattr(r.detection.bboxes[0], 'xmin', math.nan),
    'boxes in a tuple': lambda r: setattr(
        next(c for c in r.detection.components if type(c) is BBoxesRecordComponent), 'bboxes', tuple(r.detection.bboxes)
    ),
    'a label too many': lambda r: r.detection.labels.append('stamp'),
    'a label that is not the name': lambda r: r.detection.labels and r.detection.labels.__setitem__(0, 'other'),
    'labels that only add up': lambda r: (r.detection.labels.append('redaction'), r.detection.label_ids.insert(0, 1)),
    'an id without a name': lambda r: r.detection.label_ids.append(7),
    'an id that is a bool': lambda r: r.detection.label_ids and r.detection.label_ids.__setitem__(0, True),
    'another class map': lambda r: r.detection.set_class_map(ClassMap(['redaction'])),
    'no class map': lambda r: r.detection.set_class_map(None),
    'an area beyond 64 bits': lambda r: r.detection.areas.append(2**64),
    'a crowd of 0.0': lambda r: r.detection.iscrowds.append(0.0),
    'no size': lambda r: [c.__dict__.update(img_size=None) for c in r.common.components if hasattr(c, 'img_size')],
    'no width': lambda r: [delattr(c, 'width') for c in r.common.components if hasattr(c, 'img_size')],
    'another width': lambda r: [setattr(c, 'width', 5) for c in r.common.components if hasattr(c, 'img_size')],
    'an original size': lambda r: r.set_img_size(ImgSize(4, 5), original=True),
    'a grey page': lambda r: [setattr(c, 'gray', True) for c in r.common.components if hasattr(c, 'filepath')],
    'no file': lambda r: [setattr(c, 'filepath', None) for c in r.common.components if hasattr(c, 'filepath')],
    'a component more': lambda r: r.add_component(ScoresRecordComponent()),
    'a component of an unknown class': lambda r: r.add_component(type('OddRecordComponent', (RecordComponent,), {})()),
    'one component less': lambda r: r.components.pop(),
}


def outcome(collection, format):
    try:
        return dumps(collection, format)
    except EncodeError as e:
        return type(e), e.problems


@pytest.mark.parametrize('oddity', [None, *ODDITIES])
@pytest.mark.parametrize('at', [0, 1, 2, 5])
def test_columns_say_what_one_by_one_says(oddity, at, monkeypatch):
    found = alike(7)
    if oddity:
        ODDITIES[oddity](found[at])
    collection = RecordCollection(None).new(found)
    packed = {format: outcome(collection, format) for format in ('json', 'msgpack')}
    if oddity is None:
        assert all(block.has_columns for block in pack.Packer().blocks(found))  # or this test would compare nothing
    monkeypatch.setattr(pack, '_FEW', len(found) + 1)
    if oddity is None:
        assert not any(block.has_columns for block in pack.Packer().blocks(found))
    assert packed == {format: outcome(collection, format) for format in ('json', 'msgpack')}


@given(st.integers(0, 40), st.randoms(use_true_random=False))
def test_regular_records_survive_in_any_number(n, random):
    found = alike(n)
    for record in found:
        for box in record.detection.bboxes:
            box.ymin = random.uniform(-1e6, 1e6)
    random.shuffle(found)
    collection = RecordCollection(None).new(found)
    assert compare(collection, loads(dumps(collection, random.choice(FORMATS))))


# ---------------------------------------------------------------- the promise


@given(collections(), st.sampled_from(FORMATS))
@settings(max_examples=3 * settings().max_examples)
def test_every_collection_comes_back_whole(collection, format):
    encoded = dumps(collection, format)
    again = loads(encoded)
    assert compare(collection, again), compare(collection, again)
    assert dumps(again, format) == encoded
    assert not broken_references(decode(encoded))
    assert dumps(again) == dumps(collection)
    assert compare(collection, from_document(to_document(collection)))


@given(collections(), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_messagepack_holds_what_json_cannot(collection, value):
    for record in collection._records._list[:1]:
        record.detection.bboxes.append(BBox(0, 1.0, value, 3))
    assert compare(collection, loads(dumps(collection, 'msgpack')))


@given(collections())
def test_the_names_of_the_article(collection):
    text = detection_record_collection_to_json(collection)
    assert compare(collection, detection_json_str_to_record_collection(text))
    (parsed,) = COCOMaterializerParser(records=text).parse(SingleSplitSplitter())
    assert compare(collection, parsed)


@given(collections(), st.data())
def test_compare_notices_one_float_step(collection, data):
    places = [(i, k) for i, r in enumerate(collection._records._list) for k in range(len(r.detection.bboxes))]
    if not places:
        return
    (i, k), side = data.draw(st.sampled_from(places)), data.draw(st.sampled_from(['xmin', 'ymin', 'xmax', 'ymax']))
    other = loads(dumps(collection))
    box = other._records._list[i].detection.bboxes[k]
    setattr(box, side, math.nextafter(float(getattr(box, side)), math.inf))
    assert not compare(collection, other)


@given(
    collections(), st.sampled_from([math.nan, math.inf, -math.inf, np.float32('nan'), 2**64, -(2**63) - 1]), st.data()
)
def test_what_json_cannot_hold_is_named(collection, value, data):
    listed = collection._records._list
    if not listed:
        return
    record = data.draw(st.sampled_from(listed))
    record.detection.bboxes.append(BBox(0, 1.0, value, 3))
    places = {
        f'$.records[{i}].detection.bboxes[{len(r.detection.bboxes) - 1}][2]'
        for i, r in enumerate(dict.fromkeys(listed))
        if r is record
    }
    with pytest.raises(EncodeError) as e:
        dumps(collection)
    assert {p.path for p in e.value.problems} == places


@pytest.mark.parametrize(
    'parser, file, boxes',
    [
        ('COCOBBoxParser', 'annotations.json', 36),
        ('COCOMaskParser', 'annotations.json', 36),
        ('COCOKeyPointsParser', 'keypoints_annotations.json', 4),
    ],
)
def test_real_coco(real_data, parser, file, boxes):
    folder = real_data / 'coco'
    (collection,) = getattr(parsers, parser)(folder / file, folder / 'images').parse(
        SingleSplitSplitter(), autofix=False, show_pbar=False
    )
    for format in FORMATS:
        report = round_trip(collection, format)
        assert report and report.boxes == boxes, report


def test_real_voc(real_data):
    folder = real_data / 'voc'
    for parser in (
        parsers.VOCBBoxParser(
            folder / 'Annotations', folder / 'JPEGImages', ClassMap(['person', 'bird', 'car', 'boat', 'dog', 'cat'])
        ),
        parsers.VOCMaskParser(
            folder / 'Annotations',
            folder / 'JPEGImages',
            folder / 'SegmentationObject',
            ClassMap(['person', 'bird', 'car', 'boat', 'dog', 'cat']),
        ),
    ):
        parser.class_map.unlock()
        (collection,) = parser.parse(SingleSplitSplitter(), autofix=False, show_pbar=False)
        assert len(collection) and all(round_trip(collection, format) for format in FORMATS)


def test_the_same_bytes_in_every_process(pages, pages_file):
    code = (
        'import sys, hashlib; from redaction_serde.records import parse_coco; from redaction_serde.records import dumps; '
        'c = parse_coco(*sys.argv[1:3]); print(hashlib.sha256(dumps(c)).hexdigest())'
    )
    import hashlib

    mine = hashlib.sha256(dumps(pages)).hexdigest()
    for seed in ('0', '4711'):
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', code, str(pages_file), str(pages_file.parent / 'images')],
            env={**os.environ, 'PYTHONHASHSEED': seed},
            capture_output=True,
            text=True,
        )
        assert done.stdout.strip() == mine, done.stderr


# ---------------------------------------------------------------- odd but real


def one(record):
    return RecordCollection(None).new([record])


def detection():
    return BaseRecord((FilepathRecordComponent(), InstancesLabelsRecordComponent(), BBoxesRecordComponent()))


def test_labels_out_of_step_with_ids():
    record = detection()
    record.detection.set_class_map(ClassMap(['a', 'b']))
    record.detection.add_labels(['a', 'b', 'a'])
    record.detection.label_ids.pop()  # what icevision's autofix does when it drops a box
    assert round_trip(one(record))


def test_odd_containers_and_attributes():
    record = detection()
    component = next(c for c in record.components if isinstance(c, BBoxesRecordComponent))
    component.bboxes = (BBox(1, 2, 3, 4.0), 'not a box')
    component.source = {'tool': ('x', 1)}
    del next(c for c in record.components if isinstance(c, InstancesLabelsRecordComponent)).labels
    next(c for c in record.components if hasattr(c, 'img_size')).width = 7
    assert round_trip(one(record)), round_trip(one(record))


def test_a_record_that_changed_its_id_keeps_its_old_key():
    collection = RecordCollection(None).new([detection(), detection()])
    a, b = detection(), detection()
    a.set_record_id(1), b.set_record_id(2)
    collection = RecordCollection(None).new([a, b])
    a.set_record_id('renamed')
    again = loads(dumps(collection))
    assert list(again._records) == [1, 2] and again[0].record_id == 'renamed'
    assert compare(collection, again)


class StrangeRecordComponent(RecordComponent):
    pass


def boxes_component(*boxes):
    component = BBoxesRecordComponent()
    component.set_bboxes(boxes)
    return component


@pytest.mark.parametrize(
    'spoil, error, place',
    [
        (lambda r: r.add_component(StrangeRecordComponent()), UnknownComponentError, '$.records[0].common'),
        (lambda r: setattr(r.detection.bboxes[1], 'score', 0.5), EncodeError, '$.records[0].detection.bboxes[1]'),
        (lambda r: setattr(r.detection.bboxes[0], 'ymin', '3'), EncodeError, '$.records[0].detection.bboxes[0][1]'),
        (lambda r: setattr(r, 'made_by', object()), EncodeError, '$.records[0]'),
        (lambda r: r.add_component(boxes_component(BBox(5, 5, 6, 6))), EncodeError, '$.records[0].detection'),
        (lambda r: r.set_filepath('scan\udcff.png'), EncodeError, '$.records[0].common.filepath'),
    ],
    ids=['component', 'box attribute', 'text coordinate', 'object', 'two of a kind', 'surrogate'],
)
def test_what_cannot_be_kept_is_refused(spoil, error, place, tmp_path):
    record = detection()
    record.detection.add_bboxes([BBox(0, 0, 1, 1), BBox(0, 0, 2, 2)])
    target = tmp_path / 'pages.json'
    save(one(record), target)
    whole = target.read_bytes()
    spoil(record)
    with pytest.raises(error) as e:
        save(one(record), target)
    assert e.value.path.startswith(place)
    assert target.read_bytes() == whole and [p.name for p in tmp_path.iterdir()] == ['pages.json']


# ---------------------------------------------------------------- what stands on the collection itself


def with_attributes(**attributes):
    collection = RecordCollection(None).new(alike(5))
    vars(collection).update(attributes)
    return collection


ON_THE_COLLECTION = {
    'coco': {'file': {'info': {'year': 2026}}, 'class_ids': [3, 1]},
    'origin': (Path('scans/1'), b'raw'),
}


@pytest.mark.parametrize('format', FORMATS)
def test_only_files_with_attributes_are_of_version_1_1(format):
    def version(data):
        plain = unzip_bytes(data) if format.endswith('.gz') else data
        head = plain[max(0, plain.rfind(b'{"format":')) :][:60]  # of Parquet in its footer
        return [text for text in (b'1.0', b'1.1') if text in head]

    assert version(dumps(with_attributes(), format)) == [b'1.0']
    data = dumps(with_attributes(**ON_THE_COLLECTION), format)
    assert version(data) == [b'1.1']
    again = loads(data)
    assert vars(again).items() >= ON_THE_COLLECTION.items()
    del again.coco, again.origin
    assert dumps(again, format) == dumps(with_attributes(), format)


@given(collections(), st.sampled_from(FORMATS), st.sampled_from(FORMATS))
def test_a_converted_document_has_the_bytes_of_a_written_one(collection, format, other):
    collection.origin = Path('scans/1'), b'raw'
    assert encode(decode(dumps(collection, format)), other) == dumps(collection, other)


@pytest.mark.parametrize('format', FORMATS)
def test_a_lost_or_changed_attribute_of_the_collection_is_a_difference(format):
    before = with_attributes(**ON_THE_COLLECTION)
    for change in (lambda c: c.coco['file'].clear(), lambda c: delattr(c, 'origin'), lambda c: setattr(c, 'more', 1)):
        after = loads(dumps(before, format))
        assert compare(before, after)
        change(after)
        (difference,) = compare(before, after).differences
        assert difference.code.startswith('collection-') and difference.path.startswith('$.')
        assert difference.record is None


@pytest.mark.parametrize(
    'attributes, place',
    [
        ({'coco': {'made_by': object()}}, '$.attributes.coco.made_by'),
        ({'coco': {'ids': [2**64]}}, '$.attributes.coco.ids[0]'),
        ({'new': 1}, '$.attributes.new'),
        ({'__doc__': 'text'}, '$.attributes.__doc__'),
        ({'name': 'scan\udcff'}, '$.attributes.name'),
    ],
)
@pytest.mark.parametrize('format', FORMATS)
def test_what_cannot_stand_on_a_collection_is_refused(attributes, place, format, tmp_path):
    with pytest.raises(EncodeError) as e:
        dumps(with_attributes(**attributes), format)
    assert [p.path for p in e.value.problems] == [place]
    with pytest.raises(EncodeError):
        write_records(tmp_path / 'a.jsonl', with_attributes(**attributes))
    assert not list(tmp_path.iterdir())


def test_json_has_no_nan_on_a_collection_either():
    collection = with_attributes(scale={'x': [math.nan]})
    for format in ('json', 'jsonl'):
        with pytest.raises(EncodeError) as e:
            dumps(collection, format)
        assert e.value.path == '$.attributes.scale.x[0]'
    for format in ('msgpack', 'protobuf', 'parquet'):
        assert round_trip(collection, format)


BAD_ATTRIBUTES = [
    ({'new': 1}, '$.attributes.new'),
    ({'_records': 1}, '$.attributes._records'),
    ({'__class__': 1}, '$.attributes.__class__'),
    ({'x': {'$os.system': 'true'}}, '$.attributes.x'),
    ({'x': {'$set': [1, 1]}}, '$.attributes.x'),
    ({'x': {'$path': '../../etc/passwd'}}, '$.attributes.x'),
    ({'x': {'$bytes': '?'}}, '$.attributes'),
    ({'x': json.loads('[' * 40 + ']' * 40)}, '$.attributes.x'),
    ([], '$.attributes'),
]


@pytest.mark.parametrize('attributes, place', BAD_ATTRIBUTES)
def test_bad_attributes_of_a_collection_are_refused(attributes, place, tmp_path):
    document, path = json.loads(dumps(with_attributes())), tmp_path / 'pages.json'
    del document['crc32']
    document.update(version='1.1', attributes=attributes)
    path.write_text(json.dumps(document))
    with pytest.raises(DecodeError) as e:
        load(path, root=tmp_path, verify=False)
    assert e.value.path.startswith(place)
    if 'passwd' not in json.dumps(attributes):  # without a root it is a path like others
        with pytest.raises(DecodeError) as e:
            check(path, verify=False)
        assert e.value.path.startswith(place)


def test_predictions_have_no_attributes():
    document = Document(Header(kind='predictions', pairs=[], attributes={'x': 1}), [])
    for format in FORMATS:
        with pytest.raises(DecodeError, match='predictions has no attributes'):
            loads(encode(document, format))


def test_streams_keep_what_stands_on_a_collection(tmp_path):
    collection = with_attributes(**ON_THE_COLLECTION)
    for name in ('a.jsonl', 'a.jsonl.gz'):
        write_records(tmp_path / name, collection)
        assert compare(collection, load(tmp_path / name))
        assert len(list(iter_records(tmp_path / name))) == 5
    data = dumps(collection, 'jsonl')
    with pytest.warns(RecoveryWarning):
        assert loads(data[: len(data) - 5], recover=True).coco == collection.coco


def test_what_stands_on_a_collection_is_its_own():
    document = to_document(with_attributes(**ON_THE_COLLECTION))
    first, second = from_document(document), from_document(document)
    first.coco['class_ids'].append(7)
    assert second.coco == ON_THE_COLLECTION['coco']
    assert compare(second, from_document(document))


# ---------------------------------------------------------------- hostile or broken bytes


@pytest.fixture
def encoded(pages):
    return dumps(pages)


@pytest.mark.parametrize('format', FORMATS)
def test_any_changed_byte_is_noticed(pages, encoded, format):
    rng, data = np.random.default_rng(0), dumps(pages, format)
    places = {*rng.integers(0, len(data), 250).tolist(), *range(60), *range(len(data) - 60, len(data))}
    for i in places:
        changed = bytearray(data)
        changed[i] ^= 1 << int(rng.integers(8))
        try:
            again = loads(bytes(changed))
        except DecodeError:
            continue
        assert dumps(again) == encoded  # gzip has bytes that mean nothing: flags, time, operating system


@pytest.mark.parametrize('format', FORMATS)
def test_any_truncation_is_noticed(pages, format):
    data = dumps(pages, format)
    for cut in {
        *np.random.default_rng(1).integers(0, len(data) - 1, 100).tolist(),
        *range(30),
        *range(len(data) - 30, len(data)),
    }:
        with pytest.raises(DecodeError):
            loads(data[:cut])


@pytest.mark.parametrize('format', ['jsonl', 'jsonl.gz'])
def test_what_is_whole_can_be_recovered(pages, format):
    data = dumps(pages, format)
    assert compare(pages, loads(data, recover=True))
    for cut in (len(data) // 3, len(data) // 2, len(data) - 5):
        with pytest.warns(RecoveryWarning, match='recovered .* whole records'):
            again = loads(data[:cut], recover=True)
        n = len(again._records._list)
        assert n <= len(pages) and compare(
            RecordCollection(None).new(pages._records._list[:n]), RecordCollection(None).new(again._records._list)
        )


@pytest.mark.parametrize('name', ['pages.jsonl', 'pages.jsonl.gz', 'pages.json', 'pages.msgpack'])
def test_streams(pages, tmp_path, name):
    records = pages._records._list
    if 'jsonl' in name:
        assert write_records(tmp_path / name, iter(records)) == len(records)
    else:
        save(pages, tmp_path / name)
    again = list(iter_records(tmp_path / name))
    assert compare(RecordCollection(None).new(records), RecordCollection(None).new(again))
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_stream_that_fails_leaves_the_old_file(pages, tmp_path):
    target = tmp_path / 'pages.jsonl'
    save(pages, target)
    whole = target.read_bytes()
    with pytest.raises(ZeroDivisionError):
        write_records(target, (r if i < 2 else 1 / 0 for i, r in enumerate(pages._records._list)))
    assert target.read_bytes() == whole and [p.name for p in tmp_path.iterdir()] == ['pages.jsonl']


def test_a_stream_may_bring_new_layouts_and_class_maps(tmp_path):
    records = []
    for i in range(2500):
        record = BaseRecord(
            (
                FilepathRecordComponent(),
                InstancesLabelsRecordComponent(),
                *([BBoxesRecordComponent()] if i % 700 < 350 else [AreasRecordComponent()]),
            )
        )
        record.set_record_id(i)
        record.detection.set_class_map(ClassMap([f'class {i // 400}']))
        record.detection.add_labels_by_id([1])
        records.append(record)
    write_records(tmp_path / 'a.jsonl', records)
    assert compare(
        RecordCollection(None).new(records), RecordCollection(None).new(list(iter_records(tmp_path / 'a.jsonl')))
    )
    assert compare(RecordCollection(None).new(records), load(tmp_path / 'a.jsonl'))


def test_streaming_needs_constant_memory(tmp_path):
    code = """
import resource, sys
from redaction_serde.records import *
from icevision.core import *
from icevision.utils import ImgSize
def made(n):
    class_map = ClassMap(['redaction'])
    for i in range(n):
        record = BaseRecord((FilepathRecordComponent(), InstancesLabelsRecordComponent(), BBoxesRecordComponent()))
        record.set_record_id(i), record.set_filepath(f'p{i}.png'), record.set_img_size(ImgSize(850, 1100))
        record.detection.set_class_map(class_map), record.detection.add_labels_by_id([1]*10)
        record.detection.add_bboxes([BBox(i + .1, .2, .3, k) for k in range(10)])
        yield record
def memory(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == 'darwin' else 1024) / (1 << 20 if sys.platform == 'darwin' else 1)
write_records(sys.argv[1], made(2000)); sum(1 for _ in iter_records(sys.argv[1]))
before = memory()
write_records(sys.argv[1], made(30000)); print(sum(1 for _ in iter_records(sys.argv[1])), memory() - before)
"""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code, str(tmp_path / 'a.jsonl')], capture_output=True, text=True
    )
    count, growth = done.stdout.split()
    assert int(count) == 30000 and float(growth) < 30, done.stdout + done.stderr  # as a collection they would be 200 MB


@pytest.mark.parametrize(
    'change, error',
    [
        (lambda d: d.update(version='2.0'), VersionError),
        (lambda d: d.update(version='1.9', palette='grey'), VersionError),
        (lambda d: d.update(format='other'), DecodeError),
        (lambda d: d.update(palette='grey'), DecodeError),
        (lambda d: d['records'][0]['detection'].update(colours=[]), DecodeError),
        (lambda d: d['records'][1].update(layout=1), DecodeError),
        (lambda d: d['records'][0]['detection'].update(class_map=7), DecodeError),
        (lambda d: d['records'][0]['detection']['label_ids'].__setitem__(0, 99), DecodeError),
        (lambda d: d['records'][0].update(attrs={'__class__': 1}), DecodeError),
        (lambda d: d['records'][0].update(attrs={'load': 1}), DecodeError),
        (lambda d: d['records'][0].update(attrs={'x': {'$os.system': 'true'}}), DecodeError),
        (lambda d: d['records'][0]['common'].update(record_id={'$set': [1]}), DecodeError),
        (lambda d: d['records'][0]['detection'].update(extras={'BBoxes': {'composite': 1}}), DecodeError),
        (lambda d: d['records'][0]['detection'].update(extras={'Nothing': {}}), DecodeError),
        (lambda d: d['layouts'][0]['tasks'][0]['components'].append('os.system'), DecodeError),
        (lambda d: d['layouts'][0]['tasks'][1].update(name='common'), DecodeError),
        (lambda d: d.update(index={'order': [0, 99]}), DecodeError),
        (lambda d: d.update(template={'common': 3}), DecodeError),
    ],
    ids=lambda x: getattr(x, '__name__', ''),
)
def test_bad_documents_are_refused(encoded, change, error):
    document = json.loads(encoded)
    del document['crc32']
    assert loads(json.dumps(document), verify=False)  # the change is what is wrong, not the missing checksum
    with pytest.raises(DecodeError, match='no checksum'):
        loads(json.dumps(document))
    change(document)
    with pytest.raises((error, EncodeError)):
        loads(json.dumps(document), verify=False)


@pytest.mark.parametrize('format', FORMATS)
def test_one_record_is_that_of_the_whole(pages, format, tmp_path):
    path = tmp_path / f'pages.{format}'
    save(pages, path)
    whole = load(path)._records._list
    for i, record in enumerate(whole):
        assert compare(RecordCollection(None).new([record]), RecordCollection(None).new([load_record(path, i)]))
    for i in (len(whole), -1):
        with pytest.raises(IndexError):
            load_record(path, i)


def test_one_bad_record_is_named(encoded, tmp_path):
    document, path = json.loads(encoded), tmp_path / 'pages.json'
    del document['crc32']
    document['records'][1]['detection']['class_map'] = 7
    path.write_text(json.dumps(document))
    assert load_record(path, 0, verify=False).record_id == document['records'][0]['common']['record_id']
    with pytest.raises(DecodeError, match=r'class map 7 .*records\[1\]'):
        load_record(path, 1, verify=False)


@pytest.mark.parametrize(
    'change, place',
    [
        (lambda d: d['records'][0]['detection'].update(class_map=7), '$.records[0].detection.class_map'),
        (lambda d: d['records'][0]['detection']['label_ids'].__setitem__(0, 99), '$.records[0].detection.label_ids[0]'),
        (lambda d: d['records'][0].update(attrs={'x': {'$os.system': 'true'}}), '$.records[0].attrs.x'),
        (lambda d: d['records'][0]['common'].update(record_id={'$set': [[1], 1]}), '$.records[0].common.record_id'),
        (lambda d: d.update(index={'order': [0, 99]}), '$.index'),
        (lambda d: d.update(template={'common': 3}), '$.template'),
        (lambda d: d['class_maps'][0]['classes'].append({'$no': 1}), '$.class_maps[0].classes'),
    ],
)
def test_check_follows_references(encoded, change, place, tmp_path):
    document, path = json.loads(encoded), tmp_path / 'pages.json'
    del document['crc32']
    path.write_text(json.dumps(document))
    assert len(check(path, verify=False).records) == len(document['records'])
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(DecodeError) as e:
        check(path, verify=False)
    assert e.value.path.startswith(place)


def test_a_later_minor_version_keeps_its_checksum(encoded):
    later = encoded.replace(b'"version":"1.0"', b'"version":"1.7"', 1)
    assert dumps(loads(later)) == encoded
    with pytest.raises(DecodeError, match='checksum'):
        loads(later.replace(b'"content"', b'"contend"'))


def test_five_mistakes_are_one_error(encoded):
    document = json.loads(encoded)
    del document['crc32']
    a, b = document['records'][:2]
    a['detection']['bboxes'][0].append(1)
    a['detection']['areas'] = ['1']
    a['common']['size'] = [1]
    b['detection']['label_ids'] = None
    b['surprise'] = 1
    with pytest.raises(DecodeError) as e:
        loads(json.dumps(document), verify=False)
    assert [p.path for p in e.value.problems] == [
        '$.records[0].common.size',
        '$.records[0].detection.bboxes[0]',
        '$.records[0].detection.areas[0]',
        '$.records[1].surprise',
        '$.records[1].detection.label_ids',
    ] or len(e.value.problems) == 5, e.value


def test_nesting_bombs_are_refused():
    for bomb in (
        b'[' * 100_000,
        b'{"format":' * 50_000,
        b'{"format":"redaction-serde","version":"1.0","records":' + b'[' * 100_000,
    ):
        with pytest.raises(DecodeError):
            loads(bomb)


def test_limits(encoded):
    n = json.loads(encoded)['records'].__len__()
    assert loads(encoded, limits=Limits(records=n, bytes=len(encoded)))
    with pytest.raises(LimitError):
        loads(encoded, limits=Limits(records=n - 1))
    with pytest.raises(LimitError):
        loads(encoded, limits=Limits(bytes=len(encoded) - 1))


def test_paths_stay_inside_the_root(pages, tmp_path):
    root = Path(pages[0].filepath).parent
    encoded = dumps(pages, root=root)
    assert str(root).encode() not in encoded
    assert loads(encoded, root=tmp_path)[0].filepath == tmp_path / Path(pages[0].filepath).name
    for bad in ('/etc/passwd', '../../etc/passwd', 'a/../../b', 'C:/x', '..\\x'):
        hostile = encoded.replace(Path(pages[0].filepath).name.encode(), bad.replace('\\', '\\\\').encode())
        with pytest.raises(DecodeError):
            loads(hostile, root=tmp_path, verify=False)


def test_embedded_images_travel_along(pages, tmp_path):
    encoded = dumps(pages, images='embed')
    again = loads(encoded, images_dir=tmp_path)
    assert [r.filepath.read_bytes() for r in again] == [r.filepath.read_bytes() for r in pages]
    assert all(r.filepath.parent == tmp_path for r in again)
    with pytest.raises(DecodeError):
        loads(encoded.replace(b'"sha256":"', b'"sha256":"0', 1), verify=False)


def test_load_and_save(pages, tmp_path):
    save(pages, tmp_path / 'pages.json')
    assert compare(pages, load(tmp_path / 'pages.json'))
    with pytest.raises(FileNotFoundError):
        save(pages, tmp_path / 'missing' / 'pages.json')
    with pytest.raises(FileNotFoundError):
        load(tmp_path / 'none.json')


def test_loaded_collections_make_records_and_can_be_copied(pages):
    again = loads(dumps(pages))
    record = again.get_by_record_id('new')
    record.detection.add_bboxes([BBox(0, 0, 1, 1)])
    assert again.get_by_record_id('other').detection.bboxes == []
    assert compare(deepcopy(again), again)
    assert len(loads(dumps(pages)).autofix()) == len(pages)
