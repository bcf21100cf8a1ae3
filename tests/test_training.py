"""From a saved file to training: documents by name and as a table, splits that keep every record, the step itself."""

import json
import subprocess
import sys

import numpy as np
import pytest

import redaction_serde as rs
from redaction_serde import cli
from redaction_serde.boxes import boxes_of, record_id, records_of
from redaction_serde.errors import DecodeError, SerdeError
from redaction_serde.lessons.cases import CASES
from redaction_serde.values import scalar
from redaction_serde.wire.registry import decode

from icevision import tasks
from icevision.core import AreasRecordComponent, ScoresRecordComponent
from icevision.data import FixedSplitter, RandomSplitter, SingleSplitSplitter


@pytest.mark.parametrize('name', CASES)
def test_the_table_says_what_the_records_say(name):
    """Each box once, with the class, the score and the sides that the record gives it; or a refusal."""
    try:
        document = rs.to_document(CASES[name]())
        records = records_of(rs.from_document(document))
    except SerdeError:
        pytest.skip('cannot be stored')
    try:
        table = document.boxes()
    except DecodeError as e:
        assert 'load the file and mend it' in str(e)
        return
    rows = [(i, box) for i, record in enumerate(records) for box in boxes_of(record)]
    if document.header.kind != 'records' or len(records) != len(document):
        return
    assert {len(column) for column in table.values()} == {len(rows)}
    for k, (i, box) in enumerate(rows):
        said = {column: values[k] for column, values in table.items()}
        assert (said['record'], said['task'], said['record_id']) == (i, box.task, record_id(records[i]))
        sides = [said[side] for side in ('xmin', 'ymin', 'xmax', 'ymax')]
        assert repr(sides) == repr([scalar(getattr(box.box, side)) for side in ('xmin', 'ymin', 'xmax', 'ymax')])
        assert (said['label_id'], said['label']) == (scalar(box.label_id), box.label)
        assert said['score'] == scalar(box.score)


def test_a_document_is_looked_at_by_name(pages, tmp_path):
    pages[1].checked_by = 'Ada'
    rs.save(pages, tmp_path / 'a.msgpack')
    document = rs.check(tmp_path / 'a.msgpack')
    assert len(document) == 4 and len(list(document)) == 4
    for view, record in zip(document, pages):
        assert view.common.record_id == record.record_id
        assert [tuple(box.xyxy) for box in record.detection.bboxes] == view.detection.bboxes
        assert view.detection.labels == record.detection.labels
    assert document[1].attrs == {'checked_by': 'Ada'} and not hasattr(document[0], 'attrs')
    assert repr(document) == '<Document: 4 records; tasks: common, detection; classes: background, content, redaction>'
    with pytest.raises(IndexError):
        document[4]
    with pytest.raises(AttributeError, match='load it'):
        document[0].detection.bboxes = []


def test_a_table_of_what_stands_aside_is_refused(pages):
    component = pages[2].detection.get_component_by_type(AreasRecordComponent)
    component.areas = tuple(component.areas)
    with pytest.raises(DecodeError, match=r'something else than a list .* at `\$.records\[2\].detection.areas`'):
        rs.to_document(pages).boxes()
    assert rs.to_document(pages)[2].detection.extras.keys() == {'Areas'}


def test_a_table_unrolls_no_more_than_there_is(pages):
    """An array of no bytes may have a billion rows."""
    pages[0].add_component(ScoresRecordComponent(task=tasks.detection))
    pages[0].detection.set_scores(np.zeros((0, 3)))
    text = rs.dumps(pages).replace(b'"shape":[0,3]', b'"shape":[1000000000,0]')
    document = decode(text, verify=False)
    assert document[0].detection.scores['$ndarray']['shape'] == [1000000000, 0]
    with pytest.raises(DecodeError, match='a ndarray of shape'):
        document.boxes()


def test_looking_is_light(pages, tmp_path):
    rs.save(pages, tmp_path / 'a.json')
    code = (
        f'import sys, redaction_serde as rs; d = rs.check({str(tmp_path / "a.json")!r}); d[0].detection.labels; '
        "d.boxes(); print([m for m in ('torch', 'icevision', 'numpy', 'pandas', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stdout + done.stderr


@pytest.mark.parametrize(
    'splitter',
    [
        RandomSplitter([0.5, 0.5], seed=1),
        RandomSplitter([0.7, 0.2, 0.1], seed=2),
        SingleSplitSplitter(),
        FixedSplitter([[1, 2, 3], [4]]),
    ],
)
def test_splits_keep_every_record(splitter, pages_file):
    collection = rs.read_coco(pages_file)
    for i, record in enumerate(collection):
        record.set_record_id(i + 1)
    collection = rs.merge([collection])  # filed under the new ids
    for kept in (collection, rs.loads(rs.dumps(collection))):
        splits = kept.make_splits(splitter)
        parts = [record for split in splits for record in split]
        assert sorted(map(id, parts)) == sorted(map(id, kept))
        assert rs.compare(sorted(parts, key=record_id), list(kept))


def test_splits_keep_records_whose_ids_clashed(pages_file):
    collection = rs.read_coco(pages_file)
    both = rs.merge([collection, collection], clashes='renumber')
    assert sum(map(len, both.make_splits(RandomSplitter([0.5, 0.5], seed=0)))) == 8


def test_inspect_warns_of_ids_that_are_there_twice(pages_file, tmp_path, capsys):
    collection = rs.read_coco(pages_file)
    rs.save(collection, tmp_path / 'once.json')
    assert cli.main(['inspect', str(tmp_path / 'once.json')]) == 0
    assert 'of another' not in capsys.readouterr().out
    twins = collection.new([*collection, *rs.load(tmp_path / 'once.json')[:1]])
    rs.save(twins, tmp_path / 'twice.json')
    assert cli.main(['inspect', str(tmp_path / 'twice.json')]) == 0
    said = capsys.readouterr().out
    count = len(collection[0].detection.bboxes)
    assert f'records with the id of another: 1, first {collection[0].record_id!r};' in said
    assert f'annotations with the id of another: {count}, first ' in said
    mended = rs.merge([twins], clashes='renumber')
    rs.save(mended, tmp_path / 'mended.json')
    assert cli.main(['inspect', str(tmp_path / 'mended.json')]) == 0
    assert 'of another' not in capsys.readouterr().out


def test_reading_coco_says_which_ids_are_there_twice():
    image = {'id': 1, 'file_name': 'a.png', 'width': 9, 'height': 9}
    entry = {'id': 5, 'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 1, 1], 'area': 1, 'iscrowd': 0}
    file = {'images': [image], 'annotations': [entry, entry], 'categories': [{'id': 1, 'name': 'seal'}]}
    reports = []
    rs.read_coco(json.dumps(file).encode(), report=reports.append)
    assert 'annotations with the id of another: 1' in str(reports[0])
    file['images'].append({**image, 'file_name': 'b.png'})
    with pytest.raises(DecodeError, match='`id` 1 is that of'):
        rs.read_coco(json.dumps(file).encode())
