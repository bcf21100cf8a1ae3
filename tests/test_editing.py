"""Editing a collection: what is asked for changes, in step, and nothing else; what was given stays as it was."""

import json
from contextlib import suppress
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from redaction_serde.autofix import autofixed
from redaction_serde.coco.read import read_coco
from redaction_serde.coco.write import encode_coco, to_coco
from redaction_serde.editing import filter_objects
from redaction_serde.errors import EncodeError, SerdeError
from redaction_serde.fidelity import compare
from redaction_serde.lessons.cases import CASES
from redaction_serde.merging import merge
from redaction_serde.records import dumps, loads

from icevision import tasks as icevision_tasks
from icevision.core import (
    AreasRecordComponent,
    BaseRecord,
    BBox,
    BBoxesRecordComponent,
    ClassMap,
    EncodedRLEs,
    InstanceMasksRecordComponent,
    InstancesLabelsRecordComponent,
    IsCrowdsRecordComponent,
    KeyPoints,
    KeyPointsRecordComponent,
    MaskArray,
    Polygon,
    RecordIDRecordComponent,
    ScoresRecordComponent,
)
from icevision.core.tasks import Task
from icevision.data import RecordCollection

sides = st.one_of(st.integers(-20, 120), st.floats(-20, 120))
boxes = st.tuples(sides, sides, st.integers(0, 60), st.integers(0, 60)).map(list)


@st.composite
def files(draw):
    """COCO files of up to three images, whose boxes may reach beyond them."""
    images = [{'id': i, 'file_name': f'{i}.png', 'width': 100, 'height': 80} for i in range(draw(st.integers(0, 3)))]
    annotations = []
    for image in images:
        for box in draw(st.lists(boxes, max_size=4)):
            id = 10 + len(annotations)
            more = draw(st.sampled_from([{}, {'attributes': {'sure': True}}, {'iscrowd': 0}]))
            polygon = [[0, 0, id, 0, id, id]]
            numbers = {'bbox': box, 'area': id, 'category_id': id % 2, 'segmentation': polygon}
            annotations.append({'id': id, 'image_id': image['id'], **numbers, **more})
    categories = [{'id': 0, 'name': 'name'}, {'id': 1, 'name': 'seal'}]
    draw(st.randoms(use_true_random=False)).shuffle(annotations)
    return {'images': images, 'annotations': annotations, 'categories': categories}


def read(file):
    return read_coco(json.dumps(file).encode(), report=lambda report: None)


def written(collection):
    data, report = to_coco(collection)
    assert not report.stops, report
    return json.loads(encode_coco(data))


@settings(max_examples=60)
@given(files(), st.sets(st.integers(10, 22)))
def test_a_filtered_file_is_the_file_without_them(file, ids):
    collection = read(file)
    before = dumps(collection)

    def keep(record, i):
        return record.coco['ids'][i] in ids

    kept = filter_objects(collection, keep)
    assert dumps(collection) == before
    expected = {**file, 'annotations': [entry for entry in file['annotations'] if entry['id'] in ids]}
    assert written(kept) == expected
    assert compare(filter_objects(kept, keep), kept)
    assert compare(loads(dumps(kept)), kept)
    assert all(a.detection.class_map is b.detection.class_map for a, b in zip(collection, kept))


@settings(max_examples=60)
@given(files())
def test_autofixed_is_what_icevision_makes(file):
    collection = read(file)
    before = dumps(collection)
    fixed, report = autofixed(collection)
    assert dumps(collection) == before and vars(fixed)['coco'] == collection.coco
    for record, old in zip(fixed, deepcopy(list(collection))):
        for box in record.detection.bboxes:
            assert 0 <= box.xmin < box.xmax <= 100 and 0 <= box.ymin < box.ymax <= 80
        kept = []
        for box, label, area in zip(old.detection.bboxes, old.detection.labels, old.detection.areas):
            try:
                box.autofix(100, 80)
            except Exception:
                continue
            kept.append((box.xyxy, label, area))
        now = zip(record.detection.bboxes, record.detection.labels, record.detection.areas)
        assert [(box.xyxy, label, area) for box, label, area in now] == kept
    again, nothing = autofixed(fixed)
    assert not nothing and compare(again, fixed)
    assert compare(loads(dumps(fixed)), fixed)


def test_what_is_out_of_step_is_refused_with_its_place(pages):
    pages[1].detection.set_areas([1.0])
    with pytest.raises(EncodeError, match=r'records\[1\].detection.areas'):
        filter_objects(pages, lambda record, i: i == 0)
    _, report = autofixed(pages)
    assert [fix.record for fix in report if fix.action == 'dropped' and fix.object is None] == [1]


def test_a_list_that_nobody_declared_is_refused(pages):
    pages[0].mine = list(range(len(pages[0].detection.bboxes)))
    with pytest.raises(EncodeError, match="'mine' may hold one value"):
        filter_objects(pages, lambda record, i: i == 0)
    assert compare(filter_objects(pages, lambda record, i: True), pages)


@settings(max_examples=40)
@given(files(), files())
def test_merged_files_hold_all_records_and_annotations(one, two):
    a, b = read(one), read(two)
    before = dumps(a), dumps(b)
    both = merge([a, b], clashes='renumber')
    assert (dumps(a), dumps(b)) == before and compare(merge([a]), a)
    ids = [entry['id'] for entry in written(both)['annotations']]
    assert len(ids) == len(set(ids)) == len(one['annotations']) + len(two['annotations'])
    assert len(both) == len({record.record_id for record in both}) == len(a) + len(b)
    if len(a) and len(b):
        with pytest.raises(EncodeError, match='that are taken'):
            merge([a, b])


def two_files():
    """Files that disagree in what real files disagree in: date, licences, the order of their categories."""
    sides = {'width': 100, 'height': 80}
    files = []
    for year, names in ((2025, ['name', 'seal']), (2026, ['seal', 'date', 'name'])):
        categories = [{'id': i, 'name': name} for i, name in enumerate(names)]
        entries = [
            {'id': i, 'image_id': 1, 'category_id': i, 'bbox': [i, i, 5, 5], 'area': 25, 'iscrowd': 0}
            for i in range(len(names))
        ]
        image = {'id': 1, 'file_name': f'{year}.png', **sides}
        files.append({'info': {'year': year}, 'categories': categories, 'images': [image], 'annotations': entries})
    return list(map(read, files))


def test_files_that_disagree_are_refused_with_places_and_remedies():
    with pytest.raises(EncodeError) as e:
        merge(two_files())
    assert e.value.path == '$[1].coco.file.info.year'
    for word in ("attributes='first'", "'drop'", "clashes='renumber'", "class_maps='join'", "class 1 is 'seal' here"):
        assert word in str(e.value), word


@pytest.mark.parametrize('attributes', ['first', 'drop'])
def test_joined_files_say_the_same_of_every_object(attributes):
    a, b = two_files()
    both = merge([a, b], 'renumber', 'join', attributes)
    assert [record.detection.labels for record in both] == [record.detection.labels for record in [*a, *b]]
    maps = {id(record.detection.class_map) for record in both}
    names = both[0].detection.class_map.get_classes()
    assert len(maps) == 1 and names == ['background', 'name', 'seal', 'date']
    for record in both:
        assert [names[id] for id in record.detection.label_ids] == record.detection.labels
    assert vars(both).get('coco') == (a.coco if attributes == 'first' else None)
    data, _ = to_coco(both)
    of_id = {entry['id']: entry['name'] for entry in data['categories']}
    said = [of_id[entry['category_id']] for entry in data['annotations']]
    assert said == [label for record in both for label in record.detection.labels]


def test_annotations_of_merged_files_follow_their_records():
    file, _ = to_coco(merge([two_files()[0], two_files()[0]], 'renumber'))
    mixed = {**file, 'annotations': file['annotations'][::-1]}  # so that no file has them in the order of its images
    both, _ = to_coco(merge([read(mixed), read(mixed)], 'renumber'))
    assert [entry['image_id'] for entry in both['annotations']] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert written(merge([read(mixed)])) == mixed


def test_classes_that_cannot_be_joined_are_refused():
    a, b = two_files()
    b[0].detection.class_map._background = None
    with pytest.raises(EncodeError, match='background is not the same'):
        merge([a, b], 'renumber', 'join', 'first')
    a, b = two_files()
    b[0].detection.label_ids[0] = 99
    with pytest.raises(EncodeError, match=r'\$\[1\].records\[0\].detection.label_ids'):
        merge([a, b], 'renumber', 'join', 'first')


def test_ids_that_no_dict_can_hold_are_refused():
    a, b = two_files()
    b[0].set_record_id([1])
    a[0].coco['ids'][1] = {}
    with pytest.raises(EncodeError, match='annotation ids without a hash') as e:
        merge([a, b], 'renumber', 'join', 'first')
    assert {problem.path for problem in e.value.problems} == {'$[1].records[0]', '$[0].records[0].coco.ids[1]'}


def test_records_without_ids_get_numbers_only_if_asked(pages):
    for record in pages:
        record.set_record_id(None)
    with pytest.raises(EncodeError, match='record ids that are taken: 3, first None'):
        merge([pages])
    assert len({record.record_id for record in merge([pages], 'renumber')}) == 4


def test_attributes_that_are_arrays_are_compared():
    a, b = two_files()[0], two_files()[0]
    a.mean = b.mean = np.zeros(3)
    assert np.array_equal(merge([a, b], 'renumber').mean, np.zeros(3))
    b.mean = np.array([0.0, 0.0, 1.0])
    with pytest.raises(EncodeError, match=r'- at `\$\[1\].mean'):
        merge([a, b], 'renumber')
    assert np.array_equal(merge([a, b], 'renumber', attributes='first').mean, np.zeros(3))
    del a.mean
    with pytest.raises(EncodeError, match='nothing in the first'):
        merge([a, b], 'renumber')
    assert np.array_equal(merge([a, b], 'renumber', attributes='first').mean, b.mean)
    assert not hasattr(merge([a, b], 'renumber', attributes='drop'), 'mean')


def test_what_is_no_policy_or_no_collection_is_said():
    with pytest.raises(ValueError, match="class_maps='refuse' or 'join'"):
        merge(two_files(), class_maps='keep')
    for wrong in ([], [1], two_files()[0]):
        with pytest.raises(TypeError, match='at least one RecordCollection'):
            merge(wrong)


# ---------------------------------------------------------------- everything that an object may have


def points(number):
    return KeyPoints([number, number, 2, 0, number, 1], None)


def numbers_in(record, task):
    """Each list of a task's objects, as the numbers that the objects were given."""
    found = {'labels': [int(label) for label in record.task_composites[task].labels]}
    for component in record.task_composites[task].components:
        for name, value in vars(component).items():
            if name == 'bboxes':
                found[name] = [box.xmin for box in value]
            elif name == 'keypoints':
                found[name] = [item.keypoints[0] for item in value]
            elif name in ('label_ids', 'areas', 'iscrowds', 'scores') and value is not None:
                found[name] = [int(item) for item in value]
            elif name == 'masks':
                found[name] = [number for mask in value for number in numbers_of_mask(mask)]
            elif name == 'mask_array' and value is not None:
                found[name] = numbers_of_mask(value)
    return found


def numbers_of_mask(mask):
    if isinstance(mask, MaskArray):
        return [int(plane.max()) for plane in mask.data]
    if isinstance(mask, EncodedRLEs):
        return [erle['number'] for erle in mask.erles]
    return [mask.points[0][0]]


def masks_of(kind, numbers):
    if kind == 'polygons':
        return [Polygon([[number, 0, 1, 1, 2, 2]]) for number in numbers]
    if kind == 'runs':
        return [EncodedRLEs([{'size': [2, 2], 'counts': b'04', 'number': number} for number in numbers])]
    if kind == 'planes':
        return [MaskArray(np.stack([np.full((2, 3), number, np.uint8) for number in numbers]))]
    return masks_of('polygons', numbers[:1]) + (masks_of('runs', numbers[1:]) if numbers[1:] else [])


@st.composite
def full_records(draw):
    """Records of one or two tasks, whose objects carry their number in everything that they have."""
    tasks = {'detection': icevision_tasks.detection, 'stamps': Task('stamps', 0.7)}
    chosen = draw(st.sampled_from([('detection',), ('detection', 'stamps')]))
    optional = (AreasRecordComponent, IsCrowdsRecordComponent, KeyPointsRecordComponent, ScoresRecordComponent)
    parts, counts = [RecordIDRecordComponent()], {}
    for name in chosen:
        numbers = list(range(1, 1 + draw(st.integers(1, 5))))
        counts[name] = numbers
        labels = InstancesLabelsRecordComponent(tasks[name])
        labels.class_map, labels.label_ids, labels.labels = NUMBERED, list(numbers), list(map(str, numbers))
        boxes = BBoxesRecordComponent(tasks[name])
        boxes.bboxes = [BBox(number, 0, number + 1, 1) for number in numbers]
        parts += [labels, boxes]
        for cls in draw(st.sets(st.sampled_from(optional))):
            component = cls(tasks[name])
            if cls is KeyPointsRecordComponent:
                component.keypoints = list(map(points, numbers))
            elif cls is ScoresRecordComponent:
                component.scores = draw(st.sampled_from([list, tuple, np.array, torch.tensor]))(numbers)
            else:
                attribute = 'areas' if cls is AreasRecordComponent else 'iscrowds'
                setattr(component, attribute, list(numbers))
            parts.append(component)
        kind = draw(st.sampled_from(['none', 'polygons', 'runs', 'planes', 'mixed']))
        if kind != 'none':
            masks = InstanceMasksRecordComponent(tasks[name])
            masks.masks = masks.mask_parts = masks_of(kind, numbers)
            masks.mask_array = draw(st.sampled_from([None, masks_of('planes', numbers)[0]]))
            parts.append(masks)
    record = BaseRecord(tuple(parts))
    record.set_record_id(draw(st.integers(0, 99)))
    return record, counts


NUMBERED = ClassMap([str(number) for number in range(1, 9)])


@given(full_records(), st.sets(st.integers(1, 6)), st.sampled_from(['detection', 'stamps']))
def test_all_that_an_object_has_goes_with_it(made, wanted, task):
    record, counts = made
    collection = RecordCollection(None).new([record])
    before = deepcopy(collection)
    kept = filter_objects(
        collection, lambda record, i: record.task_composites[task].bboxes[i].xmin in wanted, task=task
    )
    assert compare(before, collection)
    for name, numbers in counts.items():
        expected = [number for number in numbers if number in wanted] if name == task else numbers
        found = numbers_in(kept[0], name)
        assert all(values == expected for values in found.values()), found
        assert found.keys() == numbers_in(record, name).keys()
        old = {type(part): vars(part) for part in record.task_composites[name].components}
        for part in kept[0].task_composites[name].components:
            assert {key: type(value) for key, value in vars(part).items()} == {
                key: type(value) for key, value in old[type(part)].items()
            }
    assert compare(loads(dumps(kept)), kept)


@pytest.mark.parametrize('name', CASES)
def test_odd_collections_are_edited_or_refused(name):
    collection = CASES[name]()
    if not isinstance(collection, RecordCollection):
        return
    before = deepcopy(collection)
    edits = (
        lambda: filter_objects(collection, lambda record, i: i > 0),
        lambda: autofixed(collection)[0],
        lambda: merge([collection, collection], 'renumber', 'join', 'first'),
    )
    for edit in edits:
        with suppress(SerdeError):
            edited = edit()
            assert compare(loads(dumps(edited, 'msgpack')), edited)
    assert compare(before, collection)
    assert compare(filter_objects(collection, lambda record, i: True), collection)
