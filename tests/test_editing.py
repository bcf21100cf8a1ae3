"""Editing a collection: what is asked for changes, in step, and nothing else; what was given stays as it was."""

import json
from copy import deepcopy

import pytest
from hypothesis import given, settings, strategies as st

from redaction_serde.autofix import autofixed
from redaction_serde.coco.read import read_coco
from redaction_serde.coco.write import encode_coco, to_coco
from redaction_serde.editing import filter_objects
from redaction_serde.errors import EncodeError
from redaction_serde.fidelity import compare
from redaction_serde.merging import merge
from redaction_serde.records import dumps, loads

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
        with pytest.raises(EncodeError, match='is taken'):
            merge([a, b])
