"""Every component of icevision, filled at random, in every format: it comes back as it was."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from test_round_trip import alike, boxes, class_maps, finite, ids, numbers, plain, text

from redaction_serde.lessons.cases import StickMetadata
from redaction_serde.fidelity import compare, round_trip
from redaction_serde.checks import broken_references
from redaction_serde.components import _DECLARED
from redaction_serde.errors import EncodeError
from redaction_serde.records import dumps, iter_records, loads, parse_coco, save, write_records
from redaction_serde.records.classes import component_class
from redaction_serde.wire.registry import WIRES, decode, encode

import torch
from icevision import parsers, tasks
from icevision.core import (
    AreasRecordComponent,
    BaseRecord,
    BBoxesRecordComponent,
    ClassificationLabelsRecordComponent,
    ClassMap,
    ClassMapRecordComponent,
    EncodedRLEs,
    FilepathRecordComponent,
    GrayScaleRecordComponent,
    ImageRecordComponent,
    InstanceMasksRecordComponent,
    InstancesLabelsRecordComponent,
    IsCrowdsRecordComponent,
    KeypointConnection,
    KeyPoints,
    KeyPointsRecordComponent,
    KeypointsMetadata,
    LossesRecordComponent,
    MaskArray,
    MaskFile,
    Polygon,
    RecordIDRecordComponent,
    RLE,
    ScoresRecordComponent,
    SemanticMaskFile,
    SemanticMaskRecordComponent,
    SizeRecordComponent,
    VocMaskFile,
)
from icevision.core.tasks import Task
from icevision.data import Prediction, RecordCollection, SingleSplitSplitter
from icevision.parsers import COCOKeypointsMetadata
from icevision.utils import ImgSize

# ---------------------------------------------------------------- what each component may hold

dtypes = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(endianness='?', sizes=(16, 32, 64)),
    hnp.complex_number_dtypes(sizes=(64, 128)),
)
arrays = hnp.arrays(
    dtypes, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
)  # NaN and infinities among them
tensors = (
    hnp.arrays(
        st.sampled_from([np.float32, np.int64, np.uint8]),
        hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3),
    )
    .filter(lambda a: a.ndim or np.isfinite(a))
    .map(torch.from_numpy)
)
paths = st.sampled_from(['m.png', 'masks/ß 漢.png', '/moved/away.png', '../up.png'])
values = st.one_of(
    plain,
    finite,
    st.binary(max_size=9),
    st.frozensets(st.integers(-9, 9), max_size=3),
    st.integers(-(2**63), 2**64 - 1),
    arrays,
    tensors,
    finite.map(np.float64),
    st.just(-0.0),
    st.just(5e-324),
)
points = st.lists(st.one_of(finite, st.integers(-9, 900)), max_size=8)


@st.composite
def masks(draw):
    kind = draw(st.integers(0, 6))
    if kind == 0:
        return Polygon(draw(st.lists(points, max_size=3)))
    if kind == 1:
        return RLE(
            draw(
                st.one_of(
                    st.lists(st.integers(0, 999), max_size=6), st.lists(st.integers(0, 99), max_size=3).map(np.array)
                )
            )
        )
    if kind == 2:
        return EncodedRLEs(
            [
                dict(
                    size=draw(st.lists(st.integers(0, 99), min_size=2, max_size=2)), counts=draw(st.binary(max_size=20))
                )
                for _ in range(draw(st.integers(0, 2)))
            ]
        )
    if kind == 3:
        return MaskArray(draw(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=9))))
    if kind == 4:
        return MaskFile(draw(paths))
    if kind == 5:
        return VocMaskFile(draw(paths), drop_void=draw(st.booleans()))
    return SemanticMaskFile(draw(paths), binary=draw(st.booleans()))


@st.composite
def metadata(draw):
    if draw(st.booleans()):
        return draw(st.sampled_from([None, StickMetadata, COCOKeypointsMetadata]))
    attrs = dict(labels=draw(st.one_of(st.lists(text, max_size=3).map(tuple), st.lists(text, max_size=3))))
    if draw(st.booleans()):
        attrs['connections'] = tuple(
            KeypointConnection(i, i + 1, draw(st.one_of(st.none(), st.just((1, 2, 3)))))
            for i in range(draw(st.integers(0, 3)))
        )
    return type('Drawn', (KeypointsMetadata,), attrs)


@st.composite
def keypoints(draw):
    number = draw(st.sampled_from([finite, st.integers(0, 999)]))
    xyv = [(draw(number), draw(number), draw(st.integers(0, 2))) for _ in range(draw(st.integers(0, 3)))]
    data = [v for point in xyv for v in point]
    kind = draw(st.sampled_from([list, list, np.float32, np.int16]))
    with np.errstate(over='ignore', invalid='ignore'):
        return KeyPoints(data if kind is list else np.array(data).astype(kind), draw(metadata()))


def fill_labels(draw, c):
    c.class_map = draw(st.one_of(st.none(), class_maps()))
    n = len(c.class_map or ())
    c.label_ids = (
        draw(st.lists(st.integers(0, max(n - 1, 0)), max_size=4))
        if draw(st.booleans())
        else draw(st.lists(st.integers(-3, 2**40), max_size=3))
    )
    if draw(st.booleans()) and n:
        c.labels = [c.class_map.get_by_id(i) for i in c.label_ids if 0 <= i < n]  # in step, or not
    else:
        c.labels = draw(st.lists(st.one_of(text, st.none(), st.integers(0, 5)), max_size=3))


def fill_classes(draw, c):
    fill_labels(draw, c)
    c.is_multilabel = draw(st.booleans())


def fill_masks(draw, c):
    c.set_masks(draw(st.lists(masks(), max_size=3)))
    if draw(st.booleans()):
        c.set_mask_array(MaskArray(draw(arrays.filter(lambda a: a.ndim))))


def fill_file(draw, c):
    c.gray = draw(st.booleans())
    if draw(st.booleans()):
        c.set_filepath(draw(paths))
    if draw(st.integers(0, 3)) == 0:
        fill_image(draw, c)


def fill_image(draw, c):
    c.img = draw(
        st.one_of(
            st.none(),
            hnp.arrays(np.uint8, (2, 3, 3)),
            st.sampled_from(['1', 'L', 'P', 'RGB', 'RGBA', 'I', 'F']).map(lambda mode: Image.new(mode, (3, 2), 1)),
        )
    )


def fill_size(draw, c):
    size = ImgSize(draw(st.integers(0, 9999)), draw(st.integers(0, 9999)))
    if draw(st.booleans()):
        c.set_img_size(size, original=draw(st.booleans()))
    if draw(st.booleans()):
        c.original_img_size = size


FILL = {
    RecordIDRecordComponent: lambda draw, c: c.set_record_id(draw(ids)),
    FilepathRecordComponent: fill_file,
    GrayScaleRecordComponent: fill_file,
    ImageRecordComponent: fill_image,
    SizeRecordComponent: fill_size,
    ClassMapRecordComponent: lambda draw, c: c.set_class_map(draw(class_maps())),
    InstancesLabelsRecordComponent: fill_labels,
    ClassificationLabelsRecordComponent: fill_classes,
    BBoxesRecordComponent: lambda draw, c: c.set_bboxes(draw(st.lists(boxes, max_size=5))),
    AreasRecordComponent: lambda draw, c: c.set_areas(draw(st.lists(numbers, max_size=4))),
    IsCrowdsRecordComponent: lambda draw, c: c.set_iscrowds(
        draw(st.lists(st.one_of(st.integers(0, 1), st.booleans(), st.floats(0, 1)), max_size=4))
    ),
    InstanceMasksRecordComponent: fill_masks,
    SemanticMaskRecordComponent: fill_masks,
    KeyPointsRecordComponent: lambda draw, c: c.set_keypoints(draw(st.lists(keypoints(), max_size=3))),
    ScoresRecordComponent: lambda draw, c: c.set_scores(
        draw(st.one_of(st.none(), st.lists(finite, max_size=4), arrays, tensors, values))
    ),
    LossesRecordComponent: lambda draw, c: c.set_losses(
        draw(st.one_of(st.none(), st.dictionaries(text, values, max_size=3)))
    ),
}
TASKS = [
    tasks.common,
    tasks.detection,
    tasks.classification,
    tasks.segmentation,
    Task('stamps', 0.25),
    Task('ä "b"', 9),
]


@st.composite
def filled(draw, cls):
    """A record with a component of that class, and others, in any tasks."""
    record, own = BaseRecord(()), {RecordIDRecordComponent, SizeRecordComponent}
    made = [next(c for c in record.components if type(c) is cls)] if cls in map(type, record.components) else []
    for other in [cls] * (not made) + draw(st.lists(st.sampled_from([c for c in FILL if c not in own]), max_size=3)):
        task = draw(st.sampled_from(TASKS)) if draw(st.booleans()) else None
        component = other(task=task or tasks.common) if task or other is ClassMapRecordComponent else other()
        present = record.task_composites.get(component.task.name)
        if present is not None and any(type(c) is other for c in present.components):
            continue  # one of a class in a task
        record.add_component(component)
        made.append(component)
    for component in made:
        FILL[type(component)](draw, component)
    if cls is not RecordIDRecordComponent:
        next(c for c in record.components if type(c) is RecordIDRecordComponent).set_record_id(draw(st.integers(0, 99)))
    for name, target in (('note', record), ('threshold', draw(st.sampled_from(list(record.task_composites.values()))))):
        if draw(st.integers(0, 3)) == 0:
            setattr(target, name, draw(values))
    return record


def test_nothing_is_left_out():
    assert FILL.keys() == {component_class(component.name) for component in _DECLARED}


@pytest.mark.parametrize('cls', FILL, ids=lambda c: c.__name__)
def test_every_component_in_every_format(cls):
    @settings(max_examples=max(settings().max_examples // 4, 20))
    @given(st.lists(filled(cls), min_size=1, max_size=3), st.sampled_from(list(WIRES)))
    def check(records, other):
        before = RecordCollection(None).new(records)
        document = None
        for format in WIRES:
            data = dumps(before, format)
            again = loads(data)
            report = compare(before, again)
            assert report, (format, report)
            assert dumps(again, format) == data
            assert not broken_references(decode(data))
            document = document or decode(data)
        assert compare(before, loads(encode(document, other)))  # converted without icevision
        assert compare(before, loads(dumps(before, other + '.gz')))

    check()


@given(st.lists(filled(BBoxesRecordComponent), max_size=5), st.sampled_from(['.jsonl', '.jsonl.gz']))
def test_streams_say_the_same(tmp_path_factory, records, suffix):
    path = tmp_path_factory.mktemp('stream') / f's{suffix}'
    assert write_records(path, iter(records)) == len(records)
    assert compare(RecordCollection(None).new(records), RecordCollection(None).new(list(iter_records(path))))


@given(
    st.lists(
        st.tuples(filled(BBoxesRecordComponent), st.one_of(st.none(), filled(InstanceMasksRecordComponent))), max_size=3
    ),
    st.sampled_from(list(WIRES)),
)
def test_predictions(pairs, format):
    before = []
    for pred, truth in pairs:
        before.append(Prediction(pred))
        before[-1].ground_truth = truth
    assert compare(before, loads(dumps(before, format)))


# ---------------------------------------------------------------- what a format cannot hold

UNHOLDABLE = {
    'NaN': math.nan,
    'infinity': -math.inf,
    'a lone surrogate': 'a\ud800',
    'a class': int,
    'an object': object(),
    'a function': len,
    'an array of objects': np.array([None]),
}


@pytest.mark.parametrize('what', UNHOLDABLE)
@given(
    record=filled(BBoxesRecordComponent), wrap=st.sampled_from([lambda v: v, lambda v: [1, v], lambda v: {'k': (0, v)}])
)
@settings(max_examples=10)
def test_it_is_kept_or_named(what, record, wrap):
    value, collection = UNHOLDABLE[what], RecordCollection(None).new([record])
    record.reviewed = wrap(value)
    for format in WIRES:
        try:
            data = dumps(collection, format)
        except EncodeError as e:
            assert any(p.path.replace('.attrs', '').startswith('$.records[0].reviewed') for p in e.problems)
            assert (
                isinstance(value, (float, str)) is False or isinstance(value, str) or format.startswith('json')
            )  # binary formats hold every float
        else:
            assert isinstance(value, float)
            assert compare(collection, loads(data))


# ---------------------------------------------------------------- real files, in another process

CHILD = '''
import sys, hashlib, pathlib
from redaction_serde.records import dumps, load
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()): print(path.name, hashlib.sha256(dumps(load(path))).hexdigest())
'''


def real_collections(folder):
    coco, voc = folder / 'coco', folder / 'voc'
    for what, file in (
        ('boxes', 'annotations.json'),
        ('masks', 'annotations.json'),
        ('keypoints', 'keypoints_annotations.json'),
    ):
        yield f'coco {what}', parse_coco(coco / file, coco / 'images', what)
    names = ['person', 'bird', 'car', 'boat', 'dog', 'cat']
    for what, parser in (
        ('boxes', parsers.VOCBBoxParser(voc / 'Annotations', voc / 'JPEGImages', ClassMap(names))),
        (
            'masks',
            parsers.VOCMaskParser(voc / 'Annotations', voc / 'JPEGImages', voc / 'SegmentationObject', ClassMap(names)),
        ),
    ):
        parser.class_map.unlock()
        yield f'voc {what}', parser.parse(SingleSplitSplitter(), autofix=False, show_pbar=False)[0]


def test_real_files_read_in_another_process(real_data, tmp_path):
    """Every real file in every format, loaded under another hash seed: the same content, to the byte."""
    import hashlib

    wanted = {}
    for name, collection in real_collections(real_data):
        assert len(collection)
        for format in WIRES:
            save(collection, tmp_path / f'{name}.{format}')
            wanted[f'{name}.{format}'] = hashlib.sha256(dumps(collection)).hexdigest()
            assert round_trip(collection, format)
    for seed in ('1', '4711'):
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', CHILD, str(tmp_path)],
            env={**os.environ, 'PYTHONHASHSEED': seed},
            capture_output=True,
            text=True,
        )
        found = dict(line.rsplit(' ', 1) for line in done.stdout.splitlines())
        assert found == wanted, done.stderr


@pytest.mark.parametrize('format', WIRES)
@pytest.mark.parametrize('n', [0, 1, 499, 500, 501, 1200])
def test_predictions_in_batches(n, format):
    """A prediction is two records: batches end between them or not."""
    before = [Prediction(a) for a in alike(n)]
    for p, truth in zip(before, alike(n)):
        p.ground_truth = truth
    assert compare(before, loads(dumps(before, format)))
