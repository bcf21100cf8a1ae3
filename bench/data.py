"""Collections to measure with: corners in order, boxes inside their image, images that exist.

Everything else that a way may do to a record, repair it or drop it, then has no reason to happen.
"""

import copy
import os
import random
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redaction_serde as rs

rs.prepare_icevision()

import numpy as np  # noqa: E402
import PIL.Image  # noqa: E402
from icevision.core import (  # noqa: E402
    AreasRecordComponent,
    BaseRecord,
    BBox,
    BBoxesRecordComponent,
    ClassMap,
    FilepathRecordComponent,
    InstancesLabelsRecordComponent,
    IsCrowdsRecordComponent,
    ScoresRecordComponent,
)
from icevision.data import Prediction, RecordCollection  # noqa: E402
from icevision.utils import ImgSize  # noqa: E402

WIDTH, HEIGHT = 640, 480
CLASSES = [f'class {i}' for i in range(20)]
IMAGE_FOLDER = Path('/data/images')  # where images are said to be, if nobody opens them
ODD_KINDS = ('number', 'label', 'attribute', 'layout')
ODD_EVERY = 300


def template(*more: type) -> BaseRecord:
    """A record without values, as icevision's COCO parser for boxes makes it."""
    parts = (
        FilepathRecordComponent,
        InstancesLabelsRecordComponent,
        BBoxesRecordComponent,
        AreasRecordComponent,
        IsCrowdsRecordComponent,
        *more,
    )
    return BaseRecord([part() for part in parts])


def box(rng: random.Random) -> BBox:
    """A box with its corners in order, inside the image, and not empty."""
    xmin, ymin = rng.random() * (WIDTH - 20), rng.random() * (HEIGHT - 20)
    xmax = xmin + 1 + rng.random() * (WIDTH - 2 - xmin)
    ymax = ymin + 1 + rng.random() * (HEIGHT - 2 - ymin)
    return BBox(xmin, ymin, xmax, ymax)


def fill(record: BaseRecord, i: int, boxes: int, rng: random.Random, maps: list, folder: Path):
    """Give a record its values, as a parser does."""
    record.set_record_id(i)
    record.set_filepath(folder / image_name(i))
    record.set_img_size(ImgSize(WIDTH, HEIGHT))
    record.is_new = False
    detection = record.detection
    detection.set_class_map(maps[i % len(maps)])
    detection.add_labels_by_id([rng.randrange(1, len(CLASSES)) for _ in range(boxes)])
    detection.add_bboxes([box(rng) for _ in range(boxes)])
    detection.add_areas([(b.xmax - b.xmin) * (b.ymax - b.ymin) for b in detection.bboxes])
    detection.add_iscrowds([0] * boxes)


def image_name(i: int) -> str:
    """The file name of one record's image."""
    return f'{i:08d}.png'


def made(
    n: int,  # records
    boxes: int,  # boxes of each
    seed: int = 0,
    maps: int = 1,  # class maps that take turns
    folder: Path = IMAGE_FOLDER,  # where the images are
) -> Iterator[BaseRecord]:
    """Regular records, one at a time: filled copies of a template, as a parser leaves them."""
    rng, empty = random.Random(seed), template()
    class_maps = [ClassMap(CLASSES[: len(CLASSES) - k] + [f'last of map {k}'] * k) for k in range(maps)]
    for i in range(n):
        record = copy.deepcopy(empty)
        fill(record, i, boxes, rng, class_maps, folder)
        yield record


def recycled(n: int, boxes: int) -> Iterator[BaseRecord]:
    """Many records quickly: a thousand that come again and again, with new ids and paths."""
    records = list(made(min(n, 1000), boxes))
    for i in range(n):
        record = records[i % len(records)]
        record.set_record_id(i)
        record.set_filepath(IMAGE_FOLDER / image_name(i))
        yield record


def collection(records: Iterable[BaseRecord]) -> RecordCollection:
    """A `RecordCollection` of some records."""
    return RecordCollection(None).new(list(records))


def odd(records: Iterable[BaseRecord], kind: str) -> Iterator[BaseRecord]:
    """The same records, of which one in `ODD_EVERY` is odd in one of the `ODD_KINDS`."""
    for i, record in enumerate(records):
        if i % ODD_EVERY == ODD_EVERY // 2:
            record = made_odd(record, kind)
        yield record


def made_odd(record: BaseRecord, kind: str) -> BaseRecord:
    """One record with a value that most records do not have."""
    if kind == 'number':  # a NumPy scalar among the coordinates
        record.detection.bboxes[0].xmin = np.float32(record.detection.bboxes[0].xmin)
    elif kind == 'label':  # a name that the class map does not give
        record.detection.labels[0] = 'renamed since'
    elif kind == 'attribute':  # something that the program keeps on its record
        record.reviewed = True
    elif kind == 'layout':  # a component fewer
        record.remove_component_by_type(AreasRecordComponent)
    else:
        raise ValueError(f'expected one of {ODD_KINDS}, found {kind!r}')
    return record


def predictions(n: int, boxes: int, seed: int = 0) -> list:
    """Predictions as icevision's models give them: NumPy numbers and scores, and the truth."""
    rng, empty, found = random.Random(seed), template(ScoresRecordComponent), []
    maps = [ClassMap(CLASSES)]
    for i, truth in enumerate(made(n, boxes, seed)):
        truth.set_img_size(ImgSize(WIDTH, HEIGHT), original=True)
        record = copy.deepcopy(empty)
        fill(record, i, boxes, rng, maps, IMAGE_FOLDER)
        detection = record.detection
        detection.label_ids[:] = map(np.int64, detection.label_ids)
        for b in detection.bboxes:
            b.xmin, b.ymin, b.xmax, b.ymax = map(np.float32, b.xyxy)
        detection.set_scores(np.array([rng.random() for _ in range(boxes)], np.float32))
        found.append(Prediction(record, truth))
    return found


def counts(found) -> tuple[int, int]:
    """Records and boxes of a collection, or of a list of predictions."""
    if isinstance(found, list):
        records = [x.pred for x in found]
    else:
        records = found._records._list
    return len(records), sum(len(r.detection.bboxes) for r in records)


@contextmanager
def image_folder(n: int) -> Iterator[Path]:
    """A temporary folder with the images of `n` records: one small file under many names."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = folder / image_name(0)
        PIL.Image.new('L', (WIDTH, HEIGHT)).save(first)
        for i in range(1, n):
            link(first, folder / image_name(i))
        yield folder


def link(file: Path, name: Path):
    """One more name for a file: a hard link, or a symbolic one where the file may have no more."""
    try:
        os.link(file, name)
    except OSError:
        name.symlink_to(file)
