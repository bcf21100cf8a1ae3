"""COCO in and out: what labelling tools write goes in and comes out equal, or is answered by what to do."""

import copy
import gc
import gzip
import json
import pickle
import random
import sys
import tracemalloc
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pace import cpu_seconds
from redaction_serde.coco.losses import LossyError
from redaction_serde.coco.read import CocoWarning, read_coco
from redaction_serde.coco.write import encode_coco, to_coco, write_coco
from redaction_serde.compat import prepare_icevision
from redaction_serde.errors import DecodeError, EncodeError, LimitError, Limits, SerdeError

prepare_icevision()

from icevision.core import (  # noqa: E402
    BaseRecord,
    BBox,
    ClassMap,
    FilepathRecordComponent,
    KeyPoints,
    MaskArray,
    Polygon,
    ScoresRecordComponent,
)
from icevision.core.tasks import Task  # noqa: E402
from icevision.data import Prediction, SingleSplitSplitter  # noqa: E402
from icevision.metrics.coco_metric import COCOMetric, COCOMetricType  # noqa: E402
from icevision.parsers import (  # noqa: E402
    COCOBBoxParser,
    COCOKeyPointsParser,
    COCOKeypointsMetadata,
    COCOMaskParser,
)
from icevision.utils import ImgSize  # noqa: E402

SHARED = Path(__file__).resolve().parent.parent.parent / 'shared'
CASES = sorted((SHARED / 'cases' / 'coco').glob('*/*.json'))


def difference(a, b, place='$'):
    """Where two JSON values differ, 1 from 1.0 and 0.0 from -0.0 too; None if they do not."""
    if type(a) is not type(b):
        return f'{place}: {a!r} and {b!r}'
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return f'{place}: {sorted(a.keys() ^ b.keys())}'
        pairs = [(a[key], b[key], f'{place}.{key}') for key in a]
    elif isinstance(a, list):
        if len(a) != len(b):
            return f'{place}: {len(a)} and {len(b)} items'
        pairs = [(x, y, f'{place}[{i}]') for i, (x, y) in enumerate(zip(a, b))]
    else:
        return None if repr(a) == repr(b) else f'{place}: {a!r} and {b!r}'
    return next(filter(None, (difference(*pair) for pair in pairs)), None)


def test_difference_sees_kinds_and_signs():
    for a, b in ((1, 1.0), (0.0, -0.0), (True, 1), ([], {}), ([1], [1, 1]), ({'a': 1}, {'b': 1}), (None, 0)):
        assert difference([a], [b])
    assert difference({'a': [1, 2.5, None]}, {'a': [1, 2.5, None]}) is None


def quiet(annotations, **options):
    """`read_coco` without its warnings."""
    return read_coco(annotations, report=lambda report: None, **options)


def read(data, **options):
    return quiet(json.dumps(data).encode(), **options)


def report_of(data, **options):
    reports = []
    read_coco(json.dumps(data).encode(), report=reports.append, **options)
    return reports[0]


def again(collection):
    """What the written file of a collection says; nothing may be lost."""
    data, report = to_coco(collection)
    assert not report.losses, report
    return json.loads(encode_coco(data))


def assert_comes_back(data):
    assert difference(data, again(read(data))) is None


def an_image(id=1, **more):
    return {'id': id, 'file_name': f'{id}.png', 'width': 100, 'height': 80, **more}


def an_object(id=1, **more):
    """An annotation; a field that is `...` is left out."""
    entry = {'id': id, 'image_id': 1, 'category_id': 1, 'bbox': [10, 10, 20, 20], 'area': 400, 'iscrowd': 0, **more}
    return {name: value for name, value in entry.items() if value is not ...}


def a_file(*annotations, images=None, categories=None, **more):
    return {
        'images': [an_image()] if images is None else images,
        'categories': [{'id': 1, 'name': 'cat'}] if categories is None else categories,
        'annotations': list(annotations),
        **more,
    }


def named(*ids):
    return [{'id': id, 'name': f'class {i}'} for i, id in enumerate(ids)]


# --- the cases of labelling tools, as they are


@pytest.mark.skipif(not CASES, reason='no ../shared/cases')
@pytest.mark.parametrize('path', CASES, ids=lambda path: path.parent.name)
def test_shared_cases_come_back(path):
    data = json.loads(path.read_bytes().decode('utf-8-sig'))
    collection = quiet(path)
    assert difference(data, again(collection)) is None
    assert [record.record_id for record in collection] == [image['id'] for image in data['images']]
    assert all(record.filepath.is_file() for record in collection)
    assert all(record.img_size for record in collection)
    found = quiet(path, images=path.parent / 'images')
    assert difference(data, again(found)) is None


# --- D1: category ids


@pytest.mark.parametrize(
    'ids, class_ids',
    [
        ([0, 1], [1, 2]),
        ([0], [1]),
        ([-1, 1], [1, 2]),
        ([3, 0], [1, 2]),
        ([1, 2], [1, 2]),
        ([2, 1], [2, 1]),
        (['cat', 'dog'], [1, 2]),
        ([1, 'dog'], [1, 2]),
        ([1, 90], [1, 90]),
        ([5_000_000], [1]),
        ([2_000_000_000], [1]),
        ([-5_000_000], [1]),
        ([2**62], [1]),
        ([1, 1_000_000], [1, 2]),
    ],
    ids=str,
)
def test_category_ids_become_classes(ids, class_ids):
    data = a_file(*(an_object(i, category_id=id) for i, id in enumerate(ids)), categories=named(*ids))
    (record,) = collection = read(data)
    assert record.detection.label_ids == class_ids
    assert record.detection.labels == [f'class {i}' for i in range(len(ids))]
    assert len(record.detection.class_map) <= 1 + max(*ids if ids == class_ids else [0], len(ids))
    assert record.detection.class_map.get_by_id(0) == 'background'
    assert collection.coco['class_ids'] == class_ids
    assert_comes_back(data)


def test_background_at_0_is_the_background():
    categories = [{'id': 0, 'name': 'background'}, {'id': 1, 'name': 'cat'}]
    (record,) = read(a_file(an_object(), categories=categories))
    assert record.detection.class_map == ClassMap(['cat'])
    assert_comes_back(a_file(an_object(), categories=categories))


def test_a_category_that_is_called_background_elsewhere():
    categories = [{'id': 0, 'name': 'cat'}, {'id': 1, 'name': 'background'}]
    data = a_file(an_object(1, category_id=0), an_object(2), categories=categories)
    (record,) = read(data)
    assert record.detection.labels == ['cat', 'background'] and record.detection.label_ids == [1, 2]
    assert_comes_back(data)


@pytest.mark.parametrize(
    'categories, note',
    [
        (named(1) * 2, 'more than once'),
        ([{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'cat'}], 'have one name'),
        ([{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}, {'id': 2, 'name': 'cow'}], 'stand for two names: 2'),
    ],
)
def test_twin_categories_are_kept_and_said(categories, note):
    data = a_file(an_object(), categories=categories)
    assert any(note in said for said in report_of(data).notes)
    assert_comes_back(data)


def test_an_id_that_stands_for_two_names_is_no_class():
    categories = [{'id': 1, 'name': 'cat'}, {'id': 1, 'name': 'dog'}]
    with pytest.raises(DecodeError, match='`category_id` 1 stands for two names'):
        read(a_file(an_object(), categories=categories))


# --- D2: iscrowd and area


@pytest.mark.parametrize(
    'crowds, said',
    [
        ([..., ...], '2 of 2'),
        ([..., 0], '1 of 2'),
        ([None, 1], '1 of 2'),
        ([..., None], '2 of 2'),
    ],
    ids=str,
)
def test_a_missing_iscrowd_is_0_and_said_once(crowds, said):
    data = a_file(*(an_object(i, iscrowd=crowd) for i, crowd in enumerate(crowds)))
    assert report_of(data).notes == [f'`iscrowd` is missing in {said} annotations, and taken as 0']
    (record,) = read(data)
    assert record.detection.iscrowds == [1 if crowd == 1 else 0 for crowd in crowds]
    assert_comes_back(data)


@pytest.mark.parametrize('crowd', [2, -1, 0.0, '0', [0]], ids=str)
def test_a_strange_iscrowd_is_refused(crowd):
    with pytest.raises(DecodeError, match='`iscrowd` is not 0 or 1'):
        read(a_file(an_object(iscrowd=crowd)))


def test_true_and_false_are_kept_as_they_are():
    data = a_file(an_object(1, iscrowd=True), an_object(2, iscrowd=False))
    assert read(data)[0].detection.iscrowds == [True, False]
    assert_comes_back(data)


def test_what_matters_is_warned_of_where_nobody_listens():
    with pytest.warns(CocoWarning, match='`iscrowd` is missing in 1 of 1') as caught:
        read_coco(json.dumps(a_file(an_object(iscrowd=...))).encode())
    assert len(caught) == 1 and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        read_coco(json.dumps(a_file(an_object())).encode())


@pytest.mark.parametrize('area, said', [(..., 'missing'), (None, 'null')], ids=['absent', 'null'])
def test_a_missing_area_has_to_be_asked_for(area, said):
    triangle = [[0, 0, 4, 0, 4, 3]]
    runs = {'size': [80, 100], 'counts': [10, 7, 7983]}
    masks = enumerate([triangle, runs, []])
    data = a_file(*(an_object(i, area=area, segmentation=mask) for i, mask in masks))
    message = rf'`area` is {said} in 3 of 3 annotations, first at \$.annotations\[0\]; pass'
    with pytest.raises(DecodeError, match=message):
        read(data)
    assert read(data, areas='compute')[0].detection.areas == [6.0, 7, 400]
    assert read(a_file(an_object(area=5)), areas='compute')[0].detection.areas == [5]


# --- D3: images without annotations


@pytest.mark.parametrize('where', [(1,), (2,), (3,), (1, 3), (2, 3), ()], ids=str)
def test_images_without_annotations_stay(where):
    annotations = [an_object(id, image_id=id) for id in where]
    data = a_file(*annotations, images=[an_image(1), an_image(2), an_image(3)])
    collection = read(data)
    assert [record.record_id for record in collection] == [1, 2, 3]
    assert [len(record.detection.bboxes) for record in collection] == [int(id in where) for id in (1, 2, 3)]
    assert report_of(data).unannotated == 3 - len(where)
    assert_comes_back(data)


@pytest.mark.parametrize(
    'data',
    [
        {'images': [an_image()], 'categories': named(1)},
        {'images': [an_image()]},
        {'images': []},
        {'images': [], 'annotations': [], 'categories': []},
        {
            'info': {'year': 2026},
            'licenses': [],
            'images': [an_image(license=1)],
            'type': 'instances',
            'videos': [{'id': 1}],
        },
    ],
    ids=str,
)
def test_files_of_images_only(data):
    assert len(read(data)) == len(data['images'])
    assert_comes_back(data)


# --- D4: keypoints

POINTS = {
    'id': 1,
    'name': 'panel',
    'keypoints': ['a', 'b', 'c', 'd'],
    'skeleton': [[1, 2], [2, 3]],
    'supercategory': 'x',
}
FOUR = [1, 1, 2, 2, 2, 2, 3, 3, 1, 4, 4, 0]


def test_keypoints_have_the_names_of_their_category():
    data = a_file(an_object(keypoints=FOUR, num_keypoints=3), categories=[POINTS])
    (points,) = read(data)[0].detection.keypoints
    assert points.metadata.labels == ('a', 'b', 'c', 'd')
    assert [(line.p1, line.p2) for line in points.metadata.connections] == [(0, 1), (1, 2)]
    assert points.keypoints.tolist() == FOUR and points.n_visible_keypoints == 3
    assert_comes_back(data)


@pytest.mark.parametrize('points', [..., None, [], [0] * 12, [0.0] * 12, [0, 0, 0, 1.5, 2, 2] + [0] * 6], ids=str)
def test_objects_without_keypoints_keep_their_box(points):
    data = a_file(an_object(1, keypoints=FOUR, num_keypoints=3), an_object(2, keypoints=points), categories=[POINTS])
    (record,) = read(data)
    assert {len(record.detection.bboxes), len(record.detection.keypoints), len(record.detection.label_ids)} == {2}
    if points in (..., None, []):
        assert record.detection.keypoints[1] == KeyPoints([], None)
    assert_comes_back(data)


@pytest.mark.parametrize('number', [..., None, 3, 2, 0, 3.0], ids=str)
def test_the_number_of_keypoints_is_what_the_file_says(number):
    assert_comes_back(a_file(an_object(keypoints=FOUR, num_keypoints=number), categories=[POINTS]))


def test_keypoints_without_names_have_no_names():
    data = a_file(an_object(keypoints=FOUR))
    assert read(data)[0].detection.keypoints[0].metadata is None
    assert_comes_back(data)


def test_a_strange_skeleton_is_said_and_kept():
    data = a_file(an_object(keypoints=FOUR), categories=[{**POINTS, 'skeleton': [[0, 1]]}])
    assert any('skeleton of' in note for note in report_of(data).notes)
    assert_comes_back(data)


@pytest.mark.parametrize(
    'points', [[1, 2], FOUR[:9], FOUR + [1, 1, 1], [1, 1, '2'] * 4, [1, 1, None] * 4, 'abc', [1e300] * 12], ids=str
)
def test_strange_keypoints_are_refused(points):
    with pytest.raises(DecodeError, match='`keypoints`'):
        read(a_file(an_object(keypoints=points), categories=[POINTS]))


def test_points_of_two_categories():
    two = {'id': 2, 'name': 'edge', 'keypoints': ['from', 'to']}
    objects = an_object(1, keypoints=FOUR), an_object(2, keypoints=FOUR[:6], category_id=2), an_object(3, category_id=3)
    data = a_file(*objects, categories=[POINTS, two, {'id': 3, 'name': 'none'}])
    points = read(data)[0].detection.keypoints
    assert [len(p.metadata.labels) if p.metadata else 0 for p in points] == [4, 2, 0]
    assert_comes_back(data)


# --- D5: masks

SQUARE = [[10, 10, 30, 10, 30, 30, 10, 30]]
RUNS = {'size': [80, 100], 'counts': [10, 7, 7983]}
PACKED = {'size': [80, 100], 'counts': ':7Wi7'}


@pytest.mark.parametrize('crowd', [0, 1])
@pytest.mark.parametrize('said', [SQUARE, RUNS, PACKED, [[1.5, 2, 3, 4]], SQUARE * 2, SQUARE[0]], ids=str)
def test_every_mask_with_and_without_a_crowd(said, crowd):
    data = a_file(an_object(segmentation=said, iscrowd=crowd))
    (mask,) = read(data)[0].detection.masks
    assert type(mask).__name__ == ('Polygon' if isinstance(said, list) else 'RLE' if said is RUNS else 'EncodedRLEs')
    assert_comes_back(data)


@pytest.mark.parametrize('said', [..., None, [], [[]]], ids=str)
def test_an_object_without_a_mask_among_others(said):
    data = a_file(an_object(1, segmentation=SQUARE), an_object(2, segmentation=said))
    (record,) = read(data)
    assert len(record.detection.masks) == 2
    assert_comes_back(data)


@pytest.mark.parametrize('said', [..., None, []], ids=str)
def test_a_file_without_masks_has_no_component_for_them(said):
    data = a_file(an_object(segmentation=said))
    assert not hasattr(read(data)[0].detection, 'masks')
    assert_comes_back(data)


@pytest.mark.parametrize('size', [[100, 80], [80, 99]], ids=str)
def test_run_lengths_of_another_size_are_refused(size):
    for said in ({**RUNS, 'size': size}, {**PACKED, 'size': size}):
        with pytest.raises(DecodeError, match='of another size than its image'):
            read(a_file(an_object(segmentation=said)))


@pytest.mark.parametrize(
    'said',
    [
        'x',
        5,
        {'counts': []},
        {'size': [80, 100]},
        {'size': [80, 100], 'counts': []},
        {'size': [80, 100], 'counts': [8001, -1]},
        {'size': [80, 100], 'counts': [1]},
        {'size': [80, 100], 'counts': 'é'},
        {'size': [80, 100], 'counts': ''},
        [[1, 'x']],
        [1, [2]],
        {'size': [80, 100], 'counts': [8000.0]},
        {'size': [80, 100], 'counts': [True] * 8000},
        [[1, None]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [1, 2, 3, 4, 5, 6, 7],
        [[1, 2, 3, 4, 5, 6], [1]],
    ],
    ids=lambda said: str(said)[:50],
)
def test_what_is_no_mask_is_refused(said):
    with pytest.raises(DecodeError, match='`segmentation`'):
        read(a_file(an_object(segmentation=said)))


@pytest.mark.parametrize('said', [[[1, 1, 4, 4]], [[1, 1]], [[]], [1, 1, 4, 4], [[1, 1, 4, 4], [1, 1, 4, 1, 4, 4]]])
def test_polygons_that_enclose_nothing_are_kept_and_said(said):
    data = a_file(an_object(), an_object(id=2, segmentation=said))
    notes = report_of(data).notes
    assert any('less than three points in 1 of 2 annotations, first at $.annotations[1]' in note for note in notes)
    assert_comes_back(data)


@pytest.mark.parametrize('name', ['a\0b.png', '\0'])
def test_a_zero_byte_in_a_name_is_said_where_it_stands(name):
    data = a_file(an_object())
    data['images'][0]['file_name'] = name
    with pytest.raises(DecodeError, match=r'zero byte.*\$.images\[0\]'):
        read(data)


@pytest.mark.parametrize(
    'key, meant', [('anotations', True), ('annotation', True), ('Annotations', True), ('x', False)]
)
def test_a_file_without_annotations_says_so(key, meant):
    data = a_file()
    data[key] = data.pop('annotations')
    note = next(note for note in report_of(data).notes if 'no `annotations`' in note)
    assert (key in note) == meant


def test_null_is_called_null():
    with pytest.raises(DecodeError, match='`area` is null in 1 of 2') as e:
        read(a_file(an_object(area=None), an_object(id=2)))
    assert 'missing' not in str(e.value)


def test_texts_are_counted_whatever_is_in_them():
    data = a_file(an_object(note='a "quoted" \\ back\\"slash \u2028', more={'': '', '\\': ['"']}))
    for text in (json.dumps(data), json.dumps(data, ensure_ascii=False, indent=3)):
        assert difference(data, again(quiet(text.encode()))) is None


def test_run_lengths_where_no_size_is_known():
    image = {'id': 1, 'file_name': 'a.png'}
    assert_comes_back(a_file(an_object(segmentation=RUNS), images=[image]))
    assert_comes_back(a_file(an_object(segmentation={**RUNS, 'note': 1})))
    assert_comes_back(a_file(an_object(segmentation={'counts': RUNS['counts']})))


# --- D6: encodings


@pytest.mark.parametrize(
    'encode',
    [
        lambda text: text.encode(),
        lambda text: text.encode('utf-8-sig'),
        lambda text: text.encode('utf-16'),
        lambda text: text.encode('utf-16-le'),
        lambda text: text.encode('utf-16-be'),
        lambda text: text.encode('utf-32'),
        lambda text: gzip.compress(text.encode()),
        lambda text: gzip.compress(text.encode('utf-8-sig')),
        lambda text: ('\n ' + text).encode(),
    ],
)
def test_encodings(encode):
    data = a_file(an_object(), categories=[{'id': 1, 'name': 'Käse 🧀'}])
    collection = quiet(encode(json.dumps(data, ensure_ascii=False)))
    assert difference(data, again(collection)) is None


@pytest.mark.parametrize(
    'data, words',
    [
        (b'{"images": [\n{"id": 1},\n]}', 'remove the comma before it - at `line 3, column 1`'),
        (b'{"images": [], "a": NaN}', 'NaN and Infinity'),
        (b'{"images": [], "a": Infinity}', 'NaN and Infinity'),
        ('{"images": [],\n "a": "é"}'.encode('latin-1'), '0xe9 is not UTF-8'),
        (b"{'images': []}", 'double quotes'),
        (b'{"images": [], "annotations": [{"id": 1}', 'ends in the middle'),
        (b'', 'empty'),
        (b'[]', 'found list of 0'),
        (b'7', 'found 7'),
        (b'null', 'found None'),
        (b'{"shapes": []}', 'labelme'),
        (b'{"_via_img_metadata": {}}', 'VGG'),
        (b'{"a": 1}', "found 'a'"),
        (b'[{"image_id": 1, "score": 0.5}]', 'list of results'),
        (b'{"images": {}}', 'list of objects'),
        (b'{"images": [], "annotations": [1]}', 'list of objects'),
        (b'{"images": null}', 'list of objects'),
        (b'{"images": [], "categories": "x"}', 'list of objects'),
        (b'[' * 200_000, 'nested too deeply'),
        (b'{"images": [' + b'9' * 5000 + b']}', ''),
        (b'{"images": [], "a": 1e999}', '64-bit float'),
        (b'{"images": [], "images": []}', "'images' stands twice in one object"),
        (b'{"images": [],\n "a": [{"b": 1, "\\u0062": 1}]}', 'at `line 2, column 17`'),
        (b'{"images": [], "a": {"b": "\\"", "c": [{"d": 1}, {"d": 1, "e": 2, "d": 1}]}}', "'d' stands twice"),
        (b'{"images": [], "annotations": [{"id": 1, "image_id": 1, "caption": "a"}]}', 'captions'),
        (b'{"images": [], "annotations": [{"image_id": 1, "segments_info": []}]}', 'panoptic'),
        (gzip.compress(b'{"images": []}', mtime=0)[:-4], 'gzip'),
        (b'\xff\xfe{', 'UTF-16'),
        (b'\x80\x04N.', 'not UTF-8'),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_read_says_what_to_do(data, words):
    with pytest.raises(DecodeError) as e:
        quiet(data)
    assert words in str(e.value)


def test_limits():
    with pytest.raises(LimitError, match='bytes'):
        quiet(gzip.compress(b' ' * 100_000 + b'{"images": []}'), limits=Limits(bytes=10_000))
    with pytest.raises(LimitError, match='2 images'):
        read(a_file(images=[an_image(1), an_image(2)]), limits=Limits(records=1))


# --- D7: where images are


@pytest.fixture
def pictures(tmp_path):
    """A folder with images in a folder of their own; `write(data)` writes a file beside it."""
    (tmp_path / 'images' / 'sub').mkdir(parents=True)
    for name in ('1.png', 'sub/2.png', 'Ä.png'):
        Image.new('RGB', (100, 80)).save(tmp_path / 'images' / name)

    def write(*names, **image):
        images = [{'id': i, 'file_name': name, **image} for i, name in enumerate(names)]
        path = tmp_path / 'annotations.json'
        path.write_text(json.dumps(a_file(images=images)), encoding='utf-8')
        return path

    return write


@pytest.mark.parametrize(
    'name', ['1.png', 'images/1.png', r'images\1.png', './1.png', 'images//1.png', r'sub\2.png', 'sub/2.png']
)
@pytest.mark.parametrize('given', [False, True])
def test_images_are_found_where_people_put_them(pictures, tmp_path, name, given):
    path = pictures(name)
    (record,) = collection = quiet(path, images=tmp_path / 'images' if given else None)
    assert record.filepath.is_file() and record.filepath.name == name.replace('\\', '/').rpartition('/')[2]
    assert record.img_size == ImgSize(100, 80)
    assert difference(json.loads(path.read_text()), again(collection)) is None


def test_cocos_own_folders(tmp_path):
    for folder in ('annotations', 'val2017'):
        (tmp_path / folder).mkdir()
    Image.new('RGB', (3, 2)).save(tmp_path / 'val2017' / '1.png')
    path = tmp_path / 'annotations' / 'instances_val2017.json'
    path.write_text(json.dumps(a_file(images=[{'id': 1, 'file_name': '1.png'}])))
    assert quiet(path)[0].filepath == tmp_path / 'val2017' / '1.png'
    (tmp_path / 'val2017').rename(tmp_path / 'images')
    assert quiet(path)[0].filepath == tmp_path / 'images' / '1.png'


@pytest.mark.parametrize(
    'name, words',
    [
        ('1.PNG', 'in other capitals'),
        (unicodedata.normalize('NFD', 'Ä.png'), 'other Unicode form'),
        ('train/1.png', "shorten the names in the file by 'train/'"),
        ('2.png', 'pass images='),
        ('other/2.png', 'in another folder'),
        ('7.png', 'right folder'),
        ('../images/1.png', 'leads out of the folder'),
        ('/etc/passwd', 'leads out of the folder'),
        (r'C:\1.png', 'leads out of the folder'),
    ],
    ids=ascii,
)
def test_why_an_image_is_not_found(pictures, tmp_path, name, words):
    path = pictures('1.png', name)
    with pytest.raises(DecodeError, match=r'in 1 of 2 images, first at \$.images\[1\]') as e:
        quiet(path, images=tmp_path / 'images')
    assert words in str(e.value)
    record = quiet(path)[1]  # without a folder nothing has to be there
    assert record.record_id == 1


def test_nothing_is_opened_outside(pictures, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr('redaction_serde.coco.images.image_size', lambda path: opened.append(path) or 1 / 0)
    Image.new('RGB', (3, 2)).save(tmp_path / 'secret.png')
    names = ['../secret.png', str(tmp_path / 'secret.png'), 'a/../../secret.png']
    collection = quiet(pictures(*names))
    assert opened == [] and [record.img_size for record in collection] == [None] * 3


def test_absolute_names_inside_the_folder(pictures, tmp_path):
    path = pictures(str(tmp_path / 'images' / '1.png'))
    assert quiet(path, images=tmp_path / 'images')[0].filepath == tmp_path / 'images' / '1.png'


def test_a_folder_that_is_none(pictures, tmp_path):
    with pytest.raises(NotADirectoryError):
        quiet(pictures('1.png'), images=tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError):
        quiet(tmp_path / 'nowhere.json')
    with pytest.raises(OSError):
        quiet(tmp_path)


def test_sizes_are_compared_with_the_images(pictures, tmp_path):
    path = pictures('1.png', 'sub/2.png', width=80, height=100)
    reports = []
    collection = read_coco(path, images=tmp_path / 'images', report=reports.append)
    assert [record.img_size for record in collection] == [ImgSize(80, 100)] * 2
    (note,) = reports[0].notes
    assert "another size than the file says: 2 ('1.png' 80 × 100, 100 × 80; 'sub/2.png'" in note
    assert difference(json.loads(path.read_text()), again(collection)) is None


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tiff'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_images_that_exif_turns(tmp_path, orientation, suffix):
    name = f'1.{suffix}'
    picture = Image.new('RGB', (100, 80))
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / name, exif=exif)
    shown = (80, 100) if orientation > 4 else (100, 80)
    images = [{'id': 1, 'file_name': name}]
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(a_file(images=images)))
    assert quiet(path)[0].img_size == shown
    path.write_text(json.dumps(a_file(images=[{**images[0], 'width': 100, 'height': 80}])))
    reports = []
    (record,) = read_coco(path, images=tmp_path, report=reports.append)
    assert record.img_size == (100, 80)
    said = [note for note in reports[0].notes if 'EXIF turns' in note and f"'{name}' 100 × 80, 80 × 100" in note]
    assert bool(said) == (orientation > 4)


def test_only_headers_are_read(tmp_path, monkeypatch):
    Image.new('RGB', (100, 80)).save(tmp_path / '1.png')
    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', lambda self: 1 / 0)
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(a_file(images=[an_image()])))
    assert report_of(json.loads(path.read_text())).notes == []
    assert quiet(path, images=tmp_path)[0].img_size == (100, 80)


def test_pictures_that_are_none(tmp_path):
    (tmp_path / '1.png').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n')
    (tmp_path / '2.png').write_bytes(b'\x89PNG\r\n\x1a\n')
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(a_file(images=[an_image(1), an_image(2)])))
    reports = []
    read_coco(path, images=tmp_path, report=reports.append)
    assert any("cannot be read: 2, first '1.png'" in note for note in reports[0].notes)


# --- D8 is with the category ids; duplicate, missing and strange ids


def test_two_images_of_one_id_are_refused():
    images = [an_image(1), {**an_image(1), 'file_name': 'other.png'}]
    with pytest.raises(
        DecodeError, match=r"`id` 1 is that of '1.png' and of 'other.png' in 1 of 2 images, first at \$.images\[1\]"
    ):
        read(a_file(an_object(), images=images))


@pytest.mark.parametrize('ids', [[1, 2], ['a', 'b'], [1, '1'], [0, -1], [2**62, 3]], ids=str)
def test_image_ids_are_record_ids(ids):
    data = a_file(
        *(an_object(i, image_id=id) for i, id in enumerate(reversed(ids))),
        images=[{**an_image(), 'id': id} for id in ids],
    )
    collection = read(data)
    assert [record.record_id for record in collection] == ids
    assert collection[0].coco['ids'] == [1] and collection[1].coco['ids'] == [0]
    assert_comes_back(data)


@pytest.mark.parametrize('id', [1.0, None, True, [1], {}], ids=str)
def test_strange_ids_are_refused(id):
    for data in (
        a_file(an_object(image_id=id)),
        a_file(an_object(category_id=id)),
        a_file(images=[{**an_image(), 'id': id}]),
        a_file(categories=[{'id': id, 'name': 'cat'}]),
    ):
        with pytest.raises(DecodeError, match='id` is'):
            read(data)


def test_what_cannot_be_stored_is_not_read():
    deep = []
    for _ in range(40):
        deep = [deep]
    for data in (
        a_file(images=[an_image(2**64)]),
        a_file(an_object(image_id=-(2**63) - 1)),
        a_file(an_object(2**70)),
        a_file(categories=named(2**64)),
        a_file(images=[an_image(width=2**64)]),
    ):
        with pytest.raises(DecodeError, match='64 bits'):
            read(data)
    for data in (
        a_file(an_object(x=deep)),
        a_file(images=[an_image(x=deep)]),
        a_file(x=deep),
        a_file(categories=[{'id': 1, 'name': 'a', 'x': deep}]),
    ):
        with pytest.raises(DecodeError, match='too deep'):
            read(data)


def test_ids_that_collide_are_read_in_time():
    """Whole numbers hash to themselves, modulo 2**61 - 1; with more than 64 bits, one could make any number of one hash."""
    images = [an_image(i * (2**61 - 1)) for i in range(30_000)]

    def refused():
        with pytest.raises(DecodeError, match='64 bits'):
            read(a_file(images=images))

    assert cpu_seconds(refused, 2) < 2


def test_many_classes_are_written_in_time():
    collection = read(a_file(an_object(), categories=named(*range(1, 20_001))))

    def written():
        assert len(to_coco(collection)[0]['categories']) == 20_000

    assert cpu_seconds(written, 1) < 1
    del collection.coco, collection[0].coco
    assert cpu_seconds(written, 1) < 1


def test_references_of_the_wrong_kind():
    with pytest.raises(
        DecodeError, match="`image_id` '1' is not in `images` in 1 of 1 annotations.*there is 1, of another kind"
    ):
        read(a_file(an_object(image_id='1')))
    with pytest.raises(DecodeError, match='`category_id` 7 is not in `categories` in 1 of 1'):
        read(a_file(an_object(category_id=7)))


@pytest.mark.parametrize('ids', [[1, 1], [None, None], [..., ...], [..., 3], ['a', 2.5]], ids=str)
def test_annotation_ids_of_any_kind(ids):
    data = a_file(*(an_object(id) for id in ids))
    assert any('id of another' in note for note in report_of(data).notes) == (ids == [1, 1])
    assert_comes_back(data)


# --- boxes, to the last bit


@pytest.mark.parametrize(
    'box',
    [
        [0.1, 1, 0.2, 2],
        [5.0, 5.0, -0.0, 1.0],
        [-0.0, 0.0, 0.0, -0.0],
        [10.5, 10, 20, 20.5],
        [1, 2, 3, 4],
        [1.0, 2.0, 3.0, 4.0],
        [0, 0, 0, 0],
        [1e-300, 1e15, 1e-300, 1e-15],
        [-5, -5.5, -1, -1.5],
        [2**52, 1, 1, 1],
        [0.1, 0.1, 5e-324, 5e-324],
    ],
    ids=str,
)
def test_boxes_come_back_to_the_last_bit(box):
    data = a_file(an_object(bbox=box))
    assert_comes_back(data)
    x, y, width, height = box
    assert repr(read(data)[0].detection.bboxes[0].xyxy) == repr((x, y, x + width, y + height))


# --- exports like those of tools

EXPORTS = {
    'CVAT': a_file(
        an_object(segmentation=[], attributes={'occluded': False, 'rotation': 0.0, 'track_id': 3, 'keyframe': True}),
        images=[{**an_image(), 'license': 0, 'flickr_url': '', 'coco_url': '', 'date_captured': 0}],
        categories=[{'id': 1, 'name': 'cat', 'supercategory': ''}],
        licenses=[{'name': '', 'id': 0, 'url': ''}],
        info={'contributor': '', 'date_created': '', 'description': '', 'url': '', 'version': '', 'year': ''},
    ),
    'Label Studio': a_file(
        an_object(
            0, image_id=0, category_id=0, segmentation=[], ignore=0, bbox=[10.5, 10.25, 20.125, 20.0], area=402.5
        ),
        images=[{'width': 100, 'height': 80, 'id': 0, 'file_name': 'images\\1a2b-a.png'}],
        categories=[{'id': 0, 'name': 'cat'}],
        info={'year': 2026, 'version': '1.0'},
    ),
    'Roboflow': a_file(
        an_object(0, image_id=0, segmentation=[]),
        images=[
            {
                'id': 0,
                'license': 1,
                'file_name': 'a_png.rf.0f.jpg',
                'height': 80,
                'width': 100,
                'extra': {'name': 'a.png'},
            }
        ],
        categories=[
            {'id': 0, 'name': 'pets', 'supercategory': 'none'},
            {'id': 1, 'name': 'cat', 'supercategory': 'pets'},
        ],
    ),
    'VIA': a_file(
        an_object(0, image_id=0, segmentation=SQUARE[0]),
        images=[{**an_image(), 'id': 0, 'license': 1}],
        categories=[{'id': 1, 'name': 'cat', 'supercategory': 'type'}],
    ),
    'labelme2coco': a_file(
        an_object(1, category_id=0, segmentation=SQUARE, area=400.0),
        images=[an_image()],
        categories=[{'id': 0, 'name': 'cat', 'supercategory': 'cat'}],
    ),
    'FiftyOne': a_file(
        an_object(1, category_id=0, supercategory=None, score=0.75),
        images=[{**an_image(), 'license': None, 'coco_url': None}],
        categories=[{'id': 0, 'name': 'cat', 'supercategory': None}],
    ),
    'videos': a_file(
        an_object(1, track_id=7, instance_id=7),
        images=[an_image(video_id=1, frame_id=0)],
        videos=[{'id': 1, 'name': 'v'}],
        tracks=[],
    ),
}


@pytest.mark.parametrize('tool', EXPORTS)
def test_exports_like_those_of_tools_come_back(tool):
    data = EXPORTS[tool]
    (record,) = read(data)
    assert record.detection.labels == ['cat']
    assert_comes_back(data)


# --- errors


def test_every_mistake_is_said_at_once():
    data = a_file(
        an_object(area=...), an_object(2, bbox=[1, 2, 3]), an_object(3, image_id=9), images=[an_image(width='100')]
    )
    with pytest.raises(DecodeError) as e:
        read(data)
    assert len(e.value.problems) == 4
    assert [p.path for p in e.value.problems] == [
        '$.images[0]',
        '$.annotations[1]',
        '$.annotations[0]',
        '$.annotations[2]',
    ]


@pytest.mark.parametrize(
    'box',
    [
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [1, 2, 3, '4'],
        [1, 2, 3, None],
        [1, 2, 3, True],
        'box',
        None,
        {},
        [1, 2, 3, 1e300],
        [2**63, 0, 1, 1],
        [[1, 2, 3, 4]],
    ],
    ids=str,
)
def test_strange_boxes_are_refused(box):
    with pytest.raises(DecodeError, match='`bbox` is'):
        read(a_file(an_object(bbox=box)))


def test_a_mistake_made_100_000_times_is_said_once_and_soon():
    rows = [
        an_object(i, area=..., bbox=[1, 2, 3], category_id='1', segmentation='x', keypoints=5) for i in range(100_000)
    ]
    data = json.dumps(a_file(*rows)).encode()

    def refused():
        with pytest.raises(DecodeError, match='missing in 100,000 of 100,000 annotations, first at') as e:
            quiet(data)
        assert len(e.value.problems) == 4 and len(str(e.value)) < 2000

    assert cpu_seconds(refused, 2) < 2


def test_arguments():
    for wrong in (dict(only='bbox'), dict(areas='yes')):
        with pytest.raises(ValueError, match='expected (only|areas)='):
            read(a_file(), **wrong)


BASE = a_file(
    an_object(1, bbox=[0.1, 1, 0.2, 2], segmentation=SQUARE, score=0.5),
    an_object(2, iscrowd=1, segmentation=RUNS, keypoints=FOUR),
    an_object(3, image_id='x', segmentation=PACKED, attributes={'a': [1]}),
    an_object(4, iscrowd=..., area=4.5),
    images=[an_image(), {**an_image('x'), 'license': 3}],
    categories=[POINTS, {'id': 2, 'name': 'dog'}],
    info={'year': 2026},
)
STRANGE = [
    None,
    0,
    1,
    -1,
    1.0,
    -0.0,
    '',
    '1',
    [],
    {},
    [1],
    [[]],
    [[1]],
    {'a': 1},
    True,
    10**20,
    1e300,
    -1e308,
    [None],
    '\x00',
    [1, 2, 3, 4],
    {'counts': [48], 'size': [6, 8]},
    {'counts': ''},
    [1, 2, 3],
]


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


@given(st.data())
def test_whatever_a_file_says_it_comes_back_or_is_refused(data):
    file = copy.deepcopy(BASE)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([path for path in places(file) if path] or [('images',)]))
        place = file
        for key in path[:-1]:
            place = place[key]
        if data.draw(st.booleans()):
            place[path[-1]] = copy.deepcopy(data.draw(st.sampled_from(STRANGE)))
        elif path[-1] in place if isinstance(place, dict) else True:
            del place[path[-1]]
    try:
        collection = read(file)
    except SerdeError:
        return
    assert difference(file, again(collection)) is None


# --- round trips of whole files

numbers = st.one_of(st.integers(-1000, 1000), st.floats(-1000, 1000), st.floats(-1e-300, 1e-300))
plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=5),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
ids = st.one_of(st.integers(-5, 2000), st.sampled_from(['a', 'b', '1']))
others = st.dictionaries(
    st.sampled_from(['attributes', 'track_id', 'score', 'rotation', 'ignore', 'é']), plain, max_size=3
)


@st.composite
def files(draw):
    images = [
        {'id': id, 'file_name': f'{i}.png', **draw(others)}
        for i, id in enumerate(draw(st.lists(ids, unique=True, max_size=4)))
    ]
    for image in images:
        if draw(st.booleans()):
            image.update(width=6, height=8)
    categories = [
        {'id': id, 'name': draw(st.sampled_from(['cat', 'dog', 'background', 'é'])), **draw(others)}
        for id in draw(st.lists(ids, unique=True, min_size=1, max_size=4))
    ]
    for category in categories:
        if draw(st.booleans()):
            category.update(keypoints=['a', 'b'], skeleton=draw(st.sampled_from([[], [[1, 2]], [[0, 1]]])))
    annotations = [draw(annotation(images, categories)) for _ in range(draw(st.integers(0, 6)) if images else 0)]
    return {
        'images': images,
        'annotations': annotations,
        'categories': categories,
        **draw(st.dictionaries(st.sampled_from(['info', 'licenses']), plain)),
    }


polygons = st.lists(st.tuples(numbers, numbers), max_size=4).map(lambda points: [side for xy in points for side in xy])


@st.composite
def annotation(draw, images, categories):
    entry = {
        'image_id': draw(st.sampled_from(images))['id'],
        'category_id': draw(st.sampled_from(categories))['id'],
        'bbox': draw(st.lists(numbers, min_size=4, max_size=4)),
        'area': draw(numbers),
        **draw(others),
    }
    runs = {'size': [8, 6], 'counts': [8, 40]}
    optional = {
        'id': st.integers(0, 9) | st.none() | st.sampled_from(['x']),
        'iscrowd': st.sampled_from([0, 1, True, None]),
        'segmentation': st.sampled_from([[], None, runs, {**runs, 'counts': '88'}, {**runs, 'x': 1}])
        | st.lists(polygons, max_size=2),
        'keypoints': st.sampled_from([[], None]) | st.lists(numbers, min_size=6, max_size=6),
        'num_keypoints': st.sampled_from([0, 1, 2, None]),
    }
    return {**entry, **{name: draw(values) for name, values in optional.items() if draw(st.booleans())}}


@given(files())
def test_a_file_comes_back(data):
    assert_comes_back(data)


@given(files())
def test_a_file_comes_back_from_pickle(data):
    assert difference(data, again(pickle.loads(pickle.dumps(read(data))))) is None


@pytest.mark.parametrize('format', ['json', 'jsonl', 'msgpack', 'protobuf', 'parquet'])
@pytest.mark.parametrize(
    'data', [BASE, a_file(an_object(keypoints=FOUR), categories=[POINTS])], ids=['masks', 'keypoints']
)
def test_a_file_comes_back_through_every_format(data, format):
    from redaction_serde.records import dumps, loads

    collection = read(data)
    about = vars(collection).pop('coco')  # until the header keeps it
    stored = loads(dumps(collection, format))
    written, report = to_coco(stored, about=about)
    assert difference(data, json.loads(encode_coco(written))) is None
    assert report.losses == []


def test_real_files_come_back(real_data):
    for name in ('annotations.json', 'keypoints_annotations.json'):
        path = real_data / 'coco' / name
        collection = quiet(path, images=real_data / 'coco' / 'images')
        assert difference(json.loads(path.read_text()), again(collection)) is None
    assert (len(quiet(real_data / 'coco' / 'annotations.json')), sum(len(r.detection.bboxes) for r in collection)) == (
        6,
        10,
    )


# --- beside icevision's parsers


def theirs(parser, path, images):
    (records,) = parser(path, images).parse(SingleSplitSplitter(), autofix=False, show_pbar=False)
    return records


def assert_same_records(parsed, ours):
    """Each record of icevision's parser is the one of ours that has its id."""
    by_id = {record.record_id: record for record in ours}
    for record in parsed:
        own = by_id[record.record_id]
        assert (own.filepath, own.img_size) == (record.filepath, record.img_size)
        assert (own.width, own.height) == (record.width, record.height)
        for name in ('label_ids', 'labels', 'areas', 'iscrowds', 'class_map'):
            assert getattr(own.detection, name) == getattr(record.detection, name), name
        boxes = [box.xyxy for box in own.detection.bboxes]
        assert repr(boxes) == repr([box.xyxy for box in record.detection.bboxes])


def test_same_boxes_as_icevision(real_data):
    folder = real_data / 'coco'
    parsed = theirs(COCOBBoxParser, folder / 'annotations.json', folder / 'images')
    ours = quiet(folder / 'annotations.json', images=folder / 'images', only='boxes')
    assert_same_records(parsed, ours)
    assert (len(parsed), len(ours)) == (5, 6)
    assert {type(c) for c in parsed[0].components} == {type(c) for c in ours[0].components}


def test_same_masks_as_icevision(real_data):
    folder = real_data / 'coco'
    parsed = theirs(COCOMaskParser, folder / 'annotations.json', folder / 'images')
    ours = quiet(folder / 'annotations.json', images=folder / 'images')
    assert_same_records(parsed, ours)
    by_id = {record.record_id: record for record in ours}
    for record in parsed:
        masks = by_id[record.record_id].detection.masks
        assert [(type(m), vars(m)) for m in masks] == [(type(m), vars(m)) for m in record.detection.masks]


def test_same_keypoints_as_icevision(real_data):
    folder = real_data / 'coco'
    parsed = theirs(COCOKeyPointsParser, folder / 'keypoints_annotations.json', folder / 'images')
    ours = {record.record_id: record for record in quiet(folder / 'keypoints_annotations.json', only='keypoints')}
    for record in parsed:
        points = ours[record.record_id].detection.keypoints
        shown = [p for p in points if p.keypoints.sum() > 0]
        assert all(a == b and a.metadata is COCOKeypointsMetadata for a, b in zip(shown, record.detection.keypoints))
        assert len(shown) == len(record.detection.keypoints) < len(points) + (len(points) == 1)


def test_same_class_map_as_icevision(tmp_path):
    Image.new('RGB', (100, 80)).save(tmp_path / '1.png')
    for ids in ([1, 2, 3], [1, 90], [7], [3, 1, 2]):
        data = a_file(*(an_object(i, category_id=id) for i, id in enumerate(ids)), categories=named(*ids))
        assert_same_records(theirs(COCOBBoxParser, data, tmp_path), [_moved(read(data)[0], tmp_path)])


def _moved(record, folder):
    record.set_filepath(folder / record.filepath)
    return record


def test_records_can_be_loaded_drawn_and_split(real_data):
    from icevision.data import RandomSplitter
    from icevision.visualize import draw_record

    folder = real_data / 'coco'
    collection = quiet(folder / 'annotations.json', images=folder / 'images')
    assert draw_record(collection[0]).shape[:2] == (427, 640)
    assert collection[0].load().detection.mask_array.data.shape[1:] == (427, 640)
    first, second = collection.make_splits(RandomSplitter([0.5, 0.5], seed=1))
    assert len(first) + len(second) == 6
    new = collection.create_record_fn()
    assert {type(c) for c in new.components} == {type(c) for c in collection[0].components}
    data, report = to_coco(first, about=collection.coco)
    assert report.losses == [] and len(data['images']) == len(first)


# --- less than all


def test_only_says_what_it_leaves_out():
    report = report_of(BASE, only='boxes')
    assert report.left_out == {'segmentation': 3, 'keypoints': 1}
    assert 'left out segmentation of 3 annotations, keypoints of 1 annotations' in report.line
    collection = read(BASE, only='boxes')
    assert not hasattr(collection[0].detection, 'masks')
    expected = copy.deepcopy(BASE)
    for entry in expected['annotations']:
        for field in ('segmentation', 'keypoints'):
            entry.pop(field, None)
    assert difference(expected, again(collection)) is None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        read_coco(json.dumps(BASE).encode(), only='masks')
    assert len(caught) == 3 and 'left out keypoints of 1' in str(caught[-1].message)


def test_a_bad_mask_does_not_stop_who_wants_boxes():
    data = a_file(an_object(segmentation='x'))
    assert len(read(data, only='boxes')) == 1
    assert report_of(data, only='boxes').left_out == {'segmentation': 1}


# --- writing


def test_a_file_is_written_as_a_whole(tmp_path):
    for name in ('a.json', 'a.json.gz'):
        assert not write_coco(read(BASE), tmp_path / name)
        assert difference(BASE, again(quiet(tmp_path / name))) is None
    before = (tmp_path / 'a.json').read_bytes()
    assert json.loads(before) == BASE and before.count(b'\n') > 9
    assert gzip.decompress((tmp_path / 'a.json.gz').read_bytes()) == before
    collection = read(BASE)
    collection[0].reviewed = True
    with pytest.raises(LossyError, match='attribute'):
        write_coco(collection, tmp_path / 'a.json')
    assert (tmp_path / 'a.json').read_bytes() == before
    assert write_coco(collection, tmp_path / 'a.json', lossy=True).by_code()['attribute'].count == 1
    assert (tmp_path / 'a.json').read_bytes() == before


def test_the_same_bytes_every_time(tmp_path, monkeypatch):
    write_coco(read(BASE), tmp_path / 'a.json.gz')
    first = (tmp_path / 'a.json.gz').read_bytes()
    monkeypatch.setattr('time.time', lambda: 0)
    write_coco(read(BASE), tmp_path / 'a.json.gz')
    assert (tmp_path / 'a.json.gz').read_bytes() == first


def codes(collection, **options):
    return sorted(to_coco(collection, **options)[1].by_code())


def test_what_coco_cannot_hold():
    def changed(change, data=BASE):
        collection = read(data)
        change(collection[0])
        return codes(collection)

    assert changed(lambda r: None) == []
    assert changed(lambda r: setattr(r, 'x', 1)) == ['attribute']
    assert changed(lambda r: setattr(r.detection, 'x', 1)) == ['attribute']
    assert changed(lambda r: r.add_component(FilepathRecordComponent(Task('other')))) == ['task']
    assert changed(lambda r: setattr(r.detection.bboxes[0], 'xmax', np.nan)) == ['not_a_number']
    assert changed(lambda r: r.detection.areas.__setitem__(0, np.inf)) == ['area']
    assert changed(lambda r: r.detection.masks[0].points[0].__setitem__(0, np.nan)) == ['not_a_number']
    assert changed(lambda r: r.detection.keypoints.__setitem__(0, KeyPoints([1, np.inf, 2], None))) == ['not_a_number']
    assert changed(lambda r: r.detection.labels.__setitem__(0, 'dog')) == ['labels']
    assert changed(lambda r: r.set_record_id((1, 2))) == ['image_id']
    assert changed(lambda r: r.set_img_size(ImgSize(9, 9), original=True) or r.set_img_size(ImgSize(8, 8))) == [
        'original_size'
    ]
    assert changed(lambda r: r.coco['ids'].pop()) == ['annotations']
    assert changed(lambda r: r.coco['fields'].__setitem__(0, 1)) == ['annotations']
    assert changed(lambda r: setattr(r, 'coco', 1)) == ['attribute']
    assert changed(lambda r: r.coco['image'].update(x=b'')) == ['value']
    assert changed(lambda r: r.detection.set_class_map(ClassMap(['cow'], background=None))) == ['class_map', 'labels']
    assert changed(
        lambda r: setattr(r.detection.bboxes[0], 'xmin', -0.9) or setattr(r.detection.bboxes[0], 'xmax', 0.1)
    ) == ['box_corner']


def test_a_record_that_says_two_things_is_refused():
    collection = read(BASE)
    collection[0].detection.bboxes = []
    with pytest.raises(EncodeError, match='set_bboxes'):
        to_coco(collection)
    collection = read(BASE)
    collection[0].detection.label_ids.pop()
    with pytest.raises(EncodeError, match='nobody can say which belong together'):
        to_coco(collection)


def test_a_part_of_a_collection_says_what_it_lost():
    part = read(BASE)[:1]
    assert codes(part) == ['file']
    about = read(BASE).coco
    assert codes(part, about=about) == []
    written = to_coco(part, about=about)[0]
    assert [entry['id'] for entry in written['annotations']] == [1, 2, 4] and written['info'] == BASE['info']
    for wrong in (
        {'file': {}},
        {'file': 1, 'class_ids': []},
        {'file': {'categories': [{}]}, 'class_ids': [1]},
        [],
        'x',
    ):
        with pytest.raises(EncodeError, match='about'):
            to_coco(part, about=wrong)


def test_a_box_that_was_touched_is_written_anew():
    collection = read(BASE)
    collection[0].detection.bboxes[0].ymax = 7
    written = to_coco(collection)[0]['annotations'][0]
    assert difference(written['bbox'], [0.1, 1, 0.2, 6]) is None
    collection[0].detection.bboxes[0].xmax = 0.6
    assert to_coco(collection)[0]['annotations'][0]['bbox'] == [0.1, 1, 0.5, 6]
    collection[0].detection.masks[0].points[0][0] = 5
    assert to_coco(collection)[0]['annotations'][0]['segmentation'][0][0] == 5


def test_objects_that_were_added_are_last_and_numbered():
    collection = read(BASE)
    other = read(a_file(an_object(image_id=7), images=[an_image(7)]))[0]
    del other.coco
    written, report = to_coco([*collection, other], about=collection.coco)
    assert [entry['id'] for entry in written['annotations']] == [1, 2, 3, 4, 5]
    assert (
        written['annotations'][-1]['image_id'] == 7 and sorted(report.by_code()) == ['class_map'] and not report.stops
    )


def test_two_collections_with_one_id():
    a, b = read(BASE), read(BASE)
    written, report = to_coco([*a, *b], about=a.coco)
    assert [loss.code for loss in report.losses] == ['image_id'] and report.losses[0].count == 2
    assert len({image['id'] for image in written['images']}) == 4


def test_collections_from_elsewhere(pages, tmp_path):
    report = write_coco(pages, tmp_path / 'out.json')
    assert not report.stops, report
    again_ = quiet(tmp_path / 'out.json', images=pages[0].filepath.parent)
    assert_same_records(pages, again_)


def test_what_icevision_parsed(real_data, tmp_path):
    folder = real_data / 'coco'
    parsed = theirs(COCOMaskParser, folder / 'annotations.json', folder / 'images')
    assert not write_coco(parsed, tmp_path / 'out.json')
    assert_same_records(parsed, quiet(tmp_path / 'out.json', images=folder / 'images'))


def test_a_corner_that_no_width_leads_to_is_measured(tmp_path):
    (record,) = collection = read(a_file(an_object()))
    record.detection.set_bboxes([BBox(0.2, 10, 0.9, 30)])
    with pytest.raises(LossyError, match='box_corner') as e:
        write_coco(collection, tmp_path / 'out.json')
    (loss,) = e.value.report.losses
    assert (loss.count, loss.places) == (1, ['$.records[0].detection.bboxes[0]']) and 0 < loss.size < 1e-15
    write_coco(collection, tmp_path / 'out.json', lossy=True)
    assert abs(quiet(tmp_path / 'out.json')[0].detection.bboxes[0].xmax - 0.9) == loss.size


def test_masks_of_other_kinds_have_the_same_pixels():
    (record,) = collection = read(a_file(an_object(segmentation=SQUARE)))
    pixels = MaskArray.from_masks(record.detection.masks, 80, 100)
    record.detection.set_masks([pixels])
    data, report = to_coco(collection)
    assert [loss.code for loss in report.losses] == ['mask_form'] and not report.stops
    (mask,) = read(data)[0].detection.masks
    assert np.array_equal(mask.to_mask(80, 100).data, pixels.data)


def test_run_lengths_need_a_size():
    (record,) = collection = read(a_file(an_object(segmentation=RUNS), images=[{'id': 1, 'file_name': 'a.png'}]))
    assert again(collection)['annotations'][0]['segmentation'] == RUNS
    record.detection.masks[0].counts[1] += 1
    with pytest.raises(EncodeError, match='size is not known'):
        to_coco(collection)


def test_numbers_of_numpy_are_numbers():
    (record,) = collection = read(a_file(an_object(segmentation=SQUARE), an_object(2, segmentation=RUNS)))
    before = again(collection)
    record.detection.set_masks(
        [Polygon([np.array(SQUARE[0])]), type(record.detection.masks[1])(np.array(RUNS['counts']))]
    )
    record.detection.set_bboxes([BBox(*np.array(box.xyxy)) for box in record.detection.bboxes])
    record.detection.set_areas(np.array(record.detection.areas))
    record.detection.label_ids = np.array(record.detection.label_ids)
    with pytest.raises(EncodeError, match='hides'):
        to_coco(collection)
    del record.detection.label_ids
    assert difference(before, again(collection)) is None


@pytest.mark.parametrize('size', [(None, None), (None, 80), (..., 80), (..., ...)], ids=str)
def test_a_size_that_the_file_does_not_say_is_not_written(tmp_path, size):
    Image.new('RGB', (100, 80)).save(tmp_path / '1.png')
    image = {
        name: value
        for name, value in zip(('id', 'file_name', 'width', 'height'), (1, '1.png', *size))
        if value is not ...
    }
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(a_file(images=[image])))
    collection = quiet(path)
    assert collection[0].img_size == (100, 80)
    assert again(collection)['images'] == [image]


def test_keypoints_from_elsewhere_bring_their_names():
    (record,) = collection = read(a_file(an_object(keypoints=FOUR), categories=[POINTS]))
    points = record.detection.keypoints[0].metadata
    del record.coco, collection.coco
    data, report = to_coco(collection)
    assert report.losses == []
    assert (
        data['categories'][0]['keypoints'] == list(points.labels)
        and data['categories'][0]['skeleton'] == POINTS['skeleton']
    )
    assert data['annotations'][0]['num_keypoints'] == 3
    assert read(data)[0].detection.keypoints[0].metadata is points


# --- predictions


def predicted(record, rng, masks=False, keypoints=False):
    """A prediction as icevision's models make them: float32 boxes and scores, NumPy label ids."""
    from icevision.core import (
        BBoxesRecordComponent,
        ImageRecordComponent,
        InstanceMasksRecordComponent,
        InstancesLabelsRecordComponent,
    )

    pred = BaseRecord(
        (ScoresRecordComponent(), ImageRecordComponent(), InstancesLabelsRecordComponent(), BBoxesRecordComponent())
    )
    boxes = np.array([box.xyxy for box in record.detection.bboxes], np.float32).reshape(-1, 4)
    boxes = boxes + rng.normal(0, 3, boxes.shape).astype(np.float32)
    pred.detection.set_class_map(record.detection.class_map)
    pred.detection.set_labels_by_id(np.array(record.detection.label_ids, np.int64))
    pred.detection.set_scores(rng.random(len(boxes)).astype(np.float32))
    pred.detection.set_bboxes([BBox.from_xyxy(*box) for box in boxes])
    pred.detection.above_threshold = np.ones(len(boxes), bool)
    if masks:
        pred.add_component(InstanceMasksRecordComponent())
        pixels = MaskArray.from_masks(record.detection.masks, record.height, record.width).data
        pred.detection.set_mask_array(MaskArray(np.roll(pixels, 3, axis=2)))
    record.set_img_size(record.img_size, original=True)
    return Prediction(pred, record)


@pytest.mark.parametrize('kind', [COCOMetricType.bbox, COCOMetricType.mask], ids=lambda kind: kind.value)
def test_cocoeval_says_what_icevisions_metric_says(real_data, tmp_path, kind, capsys):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    folder = real_data / 'coco'
    records = quiet(folder / 'annotations.json', images=folder / 'images')
    rng = np.random.default_rng(0)
    predictions = [
        predicted(record, rng, masks=kind is COCOMetricType.mask) for record in records if record.detection.bboxes
    ]
    write_coco(records.new([p.ground_truth for p in predictions]), tmp_path / 'truth.json', about=records.coco)
    write_coco(predictions, tmp_path / 'results.json', about=records.coco)
    truth = COCO(str(tmp_path / 'truth.json'))
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / 'results.json')), kind.value)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    metric = COCOMetric(metric_type=kind)
    metric.accumulate(predictions)
    expected = list(metric.finalize().values())
    assert 0.05 < expected[0] < 1
    assert evaluation.stats.tolist() == pytest.approx(expected, abs=1e-9)
    assert (
        difference(json.loads((folder / 'annotations.json').read_text())['categories'], truth.dataset['categories'])
        is None
    )


def test_results_need_scores_and_images():
    (record,) = read(a_file(an_object()))
    prediction = predicted(record, np.random.default_rng(0))
    results, report = to_coco([prediction])
    assert list(results[0]) == ['image_id', 'category_id', 'bbox', 'score'] and report.losses == []
    prediction.pred.detection.set_scores(None)
    with pytest.raises(EncodeError, match='without scores'):
        to_coco([prediction])
    prediction.pred.set_record_id(None)
    prediction.ground_truth = None
    with pytest.raises(EncodeError, match='without the id'):
        to_coco([prediction])


def test_results_have_the_ids_of_the_file():
    collection = read(a_file(an_object(category_id=0), categories=named(0, 7)))
    prediction = predicted(collection[0], np.random.default_rng(0))
    assert to_coco([prediction], about=collection.coco)[0][0]['category_id'] == 0


# --- speed and memory


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    """A file of 400 images with 10 boxes each, as COCO writes them, and its images."""
    folder = tmp_path_factory.mktemp('many')
    rng = random.Random(0)
    (folder / 'images').mkdir()
    Image.new('RGB', (640, 480)).save(folder / 'images' / '0.jpg')
    images = [{'id': i, 'file_name': f'{i}.jpg', 'width': 640, 'height': 480, 'license': 1} for i in range(400)]
    for image in images[1:]:
        (folder / 'images' / image['file_name']).hardlink_to(folder / 'images' / '0.jpg')
    annotations = []
    for i in range(4000):
        x, y, width, height = (round(rng.uniform(1, 200), 2) for _ in range(4))
        annotations.append(
            an_object(i, image_id=rng.randrange(400), bbox=[x, y, width, height], area=width * height, segmentation=[])
        )
    (folder / 'annotations.json').write_text(json.dumps(a_file(*annotations, images=images)))
    return folder


def test_faster_than_icevision(many):
    path, images = many / 'annotations.json', many / 'images'
    ours, own, checked = [], [], []
    for _ in range(3):
        ours.append(cpu_seconds(lambda: quiet(path, only='boxes'), tries=1))
        checked.append(cpu_seconds(lambda: quiet(path, images=images), tries=1))
        own.append(cpu_seconds(lambda: theirs(COCOBBoxParser, path, images), tries=1))
    assert min(own) > 4 * min(ours)  # about 10 on a quiet machine; less would be another algorithm
    assert min(own) > 2.5 * min(checked)


def test_time_grows_with_the_file():
    def file(count):
        return json.dumps(
            a_file(
                *(an_object(i, image_id=i // 10, attributes={'a': i}) for i in range(count)),
                images=[an_image(i) for i in range(count // 10)],
            )
        ).encode()

    small, large = file(4000), file(32_000)
    assert cpu_seconds(lambda: quiet(large)) < 16 * cpu_seconds(lambda: quiet(small))


def test_memory_is_bounded_by_the_collection(many):
    quiet(many / 'annotations.json')
    gc.collect()
    tracemalloc.start()
    try:
        collection = quiet(many / 'annotations.json')
        size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(collection) == 400 and peak < 3 * size


def test_the_collector_is_left_as_it_was():
    for data in (a_file(an_object()), a_file(an_object(area=...))):
        for switch in (gc.disable, gc.enable):
            switch()
            try:
                read(data)
            except DecodeError:
                pass
            assert gc.isenabled() == (switch is gc.enable)


def test_memory_levels_off():
    data = json.dumps(a_file(*(an_object(i, keypoints=[1, 1, 2]) for i in range(300)))).encode()

    def grown():
        for _ in range(20):
            quiet(data)
        gc.collect()
        return len(gc.get_objects())

    first = grown()
    assert grown() < first + 100


def test_importing_checks_is_light():
    """What reads bytes and boxes needs no icevision."""
    import subprocess

    code = 'import sys, redaction_serde.coco.text, redaction_serde.coco.boxes, redaction_serde.coco.checks, redaction_serde.coco.images, redaction_serde.coco.losses; print([m for m in ("icevision", "torch", "PIL") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'


def test_a_small_gzip_file_needs_little_memory(tmp_path):
    """It is unpacked a piece at a time, and not into as many bytes as are allowed."""
    path = tmp_path / 'annotations.json.gz'
    path.write_bytes(gzip.compress(b'{"images":[],"annotations":[],"categories":[]}'))
    tracemalloc.start()
    try:
        assert len(read_coco(path)) == 0
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
