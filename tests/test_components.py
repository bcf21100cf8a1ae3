"""Every component and every oddity that icevision records are known for, in every format; and files of version 1 that must stay readable."""
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from redaction_serde.fidelity import compare
from redaction_serde.formats import ENCODERS, FORMATS, broken_references, decode
from redaction_serde.records import dumps, loads

from icevision import tasks
from icevision.core import (
    AreasRecordComponent, BaseRecord, BBox, BBoxesRecordComponent, ClassificationLabelsRecordComponent, ClassMap, ClassMapRecordComponent,
    EncodedRLEs, FilepathRecordComponent, GrayScaleRecordComponent, ImageRecordComponent, InstanceMasksRecordComponent, InstancesLabelsRecordComponent,
    IsCrowdsRecordComponent, KeypointConnection, KeyPoints, KeyPointsRecordComponent, KeypointsMetadata, LossesRecordComponent, MaskArray, MaskFile,
    Polygon, RLE, ScoresRecordComponent, SemanticMaskFile, SemanticMaskRecordComponent, VocMaskFile)
from icevision.core.tasks import Task
from icevision.data import Prediction, RecordCollection
from icevision.parsers import COCOKeypointsMetadata
from icevision.utils import ImgSize

GOLDEN = Path(__file__).parent/'golden'
CASES = {}


def case(make):
    CASES[make.__name__] = make
    return make


def record(*components, id=1, size=(40, 30)):
    r = BaseRecord((FilepathRecordComponent(), *components))
    r.set_record_id(id), r.set_filepath('scans/p1.png'), r.set_img_size(ImgSize(*size))
    return r


def collection(*records): return RecordCollection(None).new(records)


@case
def detection_with_everything():
    r = record(InstancesLabelsRecordComponent(), BBoxesRecordComponent(), AreasRecordComponent(), IsCrowdsRecordComponent(), ScoresRecordComponent())
    r.detection.set_class_map(ClassMap(['content', 'redaction']))
    r.detection.add_labels(['content', 'redaction'])
    r.detection.add_bboxes([BBox(0.1, -2, 30.5, 12), BBox(9, 9, 3.25, 9)])
    r.detection.add_areas([428.0, 0]), r.detection.add_iscrowds([0, True])
    r.detection.set_scores(np.array([0.5, 0.25], np.float32))
    r.is_new = True
    return collection(r)


@case
def masks_of_every_class():
    r = record(InstanceMasksRecordComponent())
    array = np.zeros((2, 3, 4), np.uint8)
    array[0, 1] = 1
    r.detection.add_masks([Polygon([[1, 2, 3, 4, 5.5, 6], [0, 0, 1, 0, 1, 1]]), RLE([3, 2, 7]), MaskArray(array), MaskFile('m.png'), VocMaskFile('v.png', drop_void=False),
                           SemanticMaskFile('s.png', binary=True), MaskArray(array).to_erles(3, 4), EncodedRLEs(), MaskArray(np.array([])), RLE(np.array([1, 2]))])
    r.detection.set_mask_array(MaskArray(array))
    return collection(r)


@case
def semantic_mask():
    r = record(ClassMapRecordComponent(task=tasks.segmentation), SemanticMaskRecordComponent())
    r.segmentation.set_class_map(ClassMap(['paper', None, 'ink'], background=None))
    r.segmentation.set_mask(SemanticMaskFile('s.png'))
    return collection(r)


class StickMetadata(KeypointsMetadata):
    labels = ('head', 'foot')
    connections = (KeypointConnection(0, 1, (1, 2, 3)),)


class BareMetadata(KeypointsMetadata):
    pass


@case
def keypoints():
    r = record(KeyPointsRecordComponent())
    r.detection.add_keypoints([KeyPoints.from_xyv([1, 2, 2, 3, 4, 1], StickMetadata), KeyPoints.from_xyv([1.5, 2, 0] * 17, COCOKeypointsMetadata),
                               KeyPoints(np.array([1, 2, 1], np.float32), BareMetadata), KeyPoints([], None)])
    return collection(r)


@case
def classification_beside_detection():
    r = record(ClassificationLabelsRecordComponent(is_multilabel=True), ClassificationLabelsRecordComponent(task=Task('stamp', 0.7)), InstancesLabelsRecordComponent())
    r.classification.set_class_map(ClassMap(['memo', 'letter'], background=None)), r.classification.add_labels(['memo', 'letter'])
    r.stamp.set_class_map(ClassMap([1, 2.5, 'three'], background='none').unlock()), r.stamp.set_labels_by_id([2])
    r.detection.set_class_map(ClassMap([])), r.detection.set_labels_by_id([0])
    return collection(r)


@case
def labels_without_a_class_map():
    r = record(InstancesLabelsRecordComponent())
    r.detection.set_labels_by_id([3, np.int64(4)])
    return collection(r)


@case
def tasks_with_awkward_names():
    rs = [BaseRecord((BBoxesRecordComponent(task=Task(name, order)), ScoresRecordComponent(task=Task(name, order)))) for name, order in
          [('layout', 1), ('is_new', 0.5), ('define', 2), ('end', 0), ('task:x', 0.1), ('ä "b"', 0.5), ('common2', 0.3)]]
    for i, r in enumerate(rs): r.set_record_id(i), r.task_composites[list(r.task_composites)[-1]]
    return collection(*rs)


@case
def components_that_want_the_same_key():
    file, gray = FilepathRecordComponent(), GrayScaleRecordComponent()  # set on each: which of them a record would set is left to chance
    file.set_filepath('a.png'), gray.set_filepath('b.tiff')
    r = BaseRecord((file, gray, ImageRecordComponent(), ClassMapRecordComponent(task=tasks.detection), InstancesLabelsRecordComponent()))
    r.set_record_id(1)
    return collection(r)


@case
def grey_records_and_pictures_in_memory():
    gray = BaseRecord((GrayScaleRecordComponent(), ImageRecordComponent(task=Task('thumbnail'))))
    gray.set_record_id('grey'), gray.set_filepath('radio/ß 1.tiff')
    rgb = BaseRecord((ImageRecordComponent(),))
    rgb.set_record_id(2), rgb.set_img(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    pil = BaseRecord((ImageRecordComponent(),))
    pil.set_record_id(3), pil.set_img(Image.new('RGB', (3, 2), (9, 8, 7)))
    paper = record(id=4)
    next(c for c in paper.components if type(c) is FilepathRecordComponent).gray = True
    return collection(gray, rgb, pil, paper)


@case
def sizes_set_and_unset():
    a, b, c = record(id=1), BaseRecord((FilepathRecordComponent(),)), BaseRecord((FilepathRecordComponent(),))
    a.set_img_size(ImgSize(80, 60), original=True), a.set_img_size(ImgSize(40, 30))
    b.set_record_id(2), c.set_record_id(3), c.set_img_size((7, 8))  # a plain tuple
    return collection(a, b, c)


@case
def losses_and_scores():
    r = record(LossesRecordComponent(), ScoresRecordComponent(), ScoresRecordComponent(task=tasks.classification))
    r.set_losses({'loss_classifier': 0.5, 'steps': [1, 2], 'tensor': torch.tensor([1.5, 2.5]), 'scalar': torch.tensor(0.1)})
    r.detection.set_scores([0.5, np.float32(0.1)]), r.classification.set_scores(torch.tensor([0.25]))
    return collection(r)


@case
def attributes_on_records_and_tasks():
    r = record(BBoxesRecordComponent())
    r.reviewed_by, r.tags, r.is_new = ('a', None), {'x', 'y'}, False
    r.detection.above_threshold, r.detection.kept = np.array([True]), {'n': {1: b'raw'}}
    return collection(r)


@case
def ids_of_every_kind():
    return collection(*(record(id=i) for i in (0, -1, 2**63, '', '1', 'ß漢', 1.5, True, None, ('a', 1), b'x', Path('p/q.png'), frozenset({1, 2}))))


@case
def the_same_file_twice(): return collection(record(id=1), record(id=2))


@case
def the_same_record_twice():
    c = collection(record(id=1), record(id=2))
    return c + c


@case
def one_id_twice(): return collection(record(id=1), record(BBoxesRecordComponent(), id=1))


@case
def empty(): return RecordCollection(None)


@case
def a_template():
    c = RecordCollection(lambda: record(BBoxesRecordComponent(), id=None))
    c.get_by_record_id('first')
    return c


@case
def predictions():
    truth, pred = record(BBoxesRecordComponent(), id=5), BaseRecord((ScoresRecordComponent(), ImageRecordComponent(), InstancesLabelsRecordComponent(), BBoxesRecordComponent()))
    truth.set_img_size(ImgSize(80, 60), original=True), truth.set_img(np.zeros((2, 2, 3), np.uint8))
    pred.detection.set_scores(np.array([0.9], np.float32)), pred.detection.set_labels_by_id(np.array([1])), pred.detection.set_bboxes([BBox(*np.array([1, 2, 3, 4], np.float32))])
    return [Prediction(pred, truth), Prediction(record(id=6))]


@pytest.mark.parametrize('format', FORMATS)
@pytest.mark.parametrize('name', CASES)
def test_comes_back_whole(name, format):
    before = CASES[name]()
    encoded = dumps(before, format)
    after = loads(encoded)
    report = compare(before, after)
    assert report, report
    assert dumps(after, format) == encoded
    assert not broken_references(decode(encoded))


def test_metadata_of_keypoints():
    before = keypoints()
    mine = loads(dumps(before), keypoints=[StickMetadata])[0].detection.keypoints
    assert mine[0].metadata is StickMetadata and mine[1].metadata is COCOKeypointsMetadata
    made = loads(dumps(before))[0].detection.keypoints[0].metadata
    assert made is not StickMetadata and issubclass(made, KeypointsMetadata) and made.labels == ('head', 'foot') and made.connections[0].color == (1, 2, 3)


def test_order_and_keys_survive():
    twice = loads(dumps(the_same_record_twice()))
    assert len(twice) == 2 and len(list(twice)) == 4 and twice[0] is twice[2]
    assert [r.record_id for r in loads(dumps(ids_of_every_kind()))] == [r.record_id for r in ids_of_every_kind()]


@pytest.mark.parametrize('format', ENCODERS)
@pytest.mark.parametrize('name', CASES)
def test_version_1_stays_what_it_is(name, format):
    """Files written when version 1 was fixed: they load to the same records, and those are written to the same bytes."""
    golden = (GOLDEN/f'{name}.{format}').read_bytes()
    assert compare(CASES[name](), loads(golden))
    assert dumps(CASES[name](), format) == golden


if __name__ == '__main__':  # writes the files anew: only for a new case, or a new version
    GOLDEN.mkdir(exist_ok=True)
    for name, make in CASES.items():
        for format in ENCODERS:
            if not (GOLDEN/f'{name}.{format}').exists(): (GOLDEN/f'{name}.{format}').write_bytes(dumps(make(), format))
