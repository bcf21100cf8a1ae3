"""The ways that are measured: ours, picklers at their best, and what users would pick.

A way that gives something else than records says so, and what it does not keep. Nobody must install
the packages of other ways: one that cannot be imported is left out, with the reason.
"""

import contextlib
import gc
import io
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

BASE = 'pickle'  # what the others are compared with
PAUSED = 'pickle, paused'
MOST_COMPARED = 20_000  # boxes; an exact comparison of more would take long


@dataclass
class Way:
    """How to make bytes, text, a file or a folder of a collection, and something of them again."""

    name: str
    dump: Callable
    load: Callable
    gives: str = 'records'
    counts: Callable | None = None  # of what `load` gives: records and boxes; None for a collection
    not_kept: str = ''  # by construction, whatever the values are
    ours: bool = False
    slow: bool = False  # so slow that the smallest size must do
    long: bool = False  # long enough for fewer rounds


def our_formats() -> tuple[str, ...]:
    """Names in the library's registry of formats."""
    try:
        from redaction_serde.wire.registry import FORMATS
    except ImportError:
        from redaction_serde.formats import ENCODERS as FORMATS
    return tuple(name for name in FORMATS if not name.endswith('.gz'))


def load_peers() -> dict[str, str]:
    """Import what other ways need, and say what could not be: package -> why.

    Call it first. The collector then looks away from these packages, as in a program that does not
    use them; else all that they import would slow pickle down, which is what ours is compared with.
    """
    os.environ.setdefault('HF_HUB_OFFLINE', '1')
    os.environ.setdefault('HF_HUB_DISABLE_TELEMETRY', '1')
    missing = {}
    for name in ('cloudpickle', 'dill', 'jsonpickle', 'pycocotools.coco', 'pandas', 'datasets'):
        try:
            __import__(name)
        except ImportError as error:
            missing[name.partition('.')[0]] = f'{type(error).__name__}: {error}'
    gc.collect()
    gc.freeze()
    return missing


def all_ways(folder: Path, images: Path, missing: dict[str, str]) -> list[Way]:
    """Every way whose packages are there. Files go to `folder`; the images are in `images`."""
    found = [*ours(), *picklers(missing), article()]
    if 'pandas' not in missing:
        found.append(parquet())
    if 'datasets' not in missing:
        found.append(hugging_face(folder))
    if 'pycocotools' not in missing:
        found.append(coco_dicts(folder))
    found.append(coco_records(folder, images))
    return found


def ours() -> Iterator[Way]:
    """A way for each format of the library."""
    from redaction_serde import dumps, loads

    for format in our_formats():
        yield Way(format, lambda given, format=format: dumps(given, format), loads, ours=True)


def paused(action: Callable) -> Callable:
    """The same with the collector paused: what everyone can do in two lines."""

    def quiet(given):
        was_on = gc.isenabled()
        gc.disable()
        try:
            return action(given)
        finally:
            if was_on:
                gc.enable()

    return quiet


def pickle_5(given) -> bytes:
    """Pickle's newest protocol."""
    return pickle.dumps(given, 5)


def picklers(missing: dict[str, str]) -> Iterator[Way]:
    """Pickle and its kin, with the settings that were the fastest of those that keep everything."""
    yield Way(BASE, pickle_5, pickle.loads)
    yield Way(PAUSED, paused(pickle_5), paused(pickle.loads))
    if 'cloudpickle' not in missing:
        import cloudpickle

        yield Way('cloudpickle', lambda given: cloudpickle.dumps(given, 5), pickle.loads)
    if 'dill' not in missing:
        import dill

        # byref, recurse and fmode change little here; its default protocol, 4, costs a twentieth
        yield Way(
            'dill',
            lambda given: dill.dumps(given, 5, byref=True),
            lambda data: dill.loads(data, ignore=True),
            slow=True,
            long=True,
        )
    if 'jsonpickle' not in missing:
        import jsonpickle

        # without keys=True, record ids that are numbers come back as text
        compact = dict(keys=True, separators=(',', ':'))
        yield Way(
            'jsonpickle',
            lambda given: jsonpickle.encode(given, **compact),
            lambda text: jsonpickle.decode(text, keys=True, on_missing='error'),
            slow=True,
            long=True,
        )


def article() -> Way:
    """The way of the article of 2022: `as_dict()` as JSON, and a parser with autofix."""
    try:
        from redaction_serde.article import article_dumps, article_loads
    except ImportError:
        from redaction_serde.fidelity import article_dumps, article_loads
    return Way('article', article_dumps, article_loads, long=True)


def rows(given) -> Iterator[tuple]:
    """(record, its detection task) of each record."""
    for record in given._records._list:
        yield record, record.detection


# Parquet: a table with a row for each box, as people make it with pandas.


def parquet() -> Way:
    """A flat table of boxes."""
    import pandas

    def dump(given) -> bytes:
        columns = [[] for _ in TABLE]
        for record, task in rows(given):
            shared = record.record_id, str(record.filepath), record.width, record.height
            parts = zip(task.label_ids, task.labels, task.bboxes, task.areas, task.iscrowds)
            for label_id, label, box, area, crowd in parts:
                for column, value in zip(columns, (*shared, label_id, label, *box.xyxy, area, crowd)):
                    column.append(value)
        file = io.BytesIO()
        pandas.DataFrame(dict(zip(TABLE, columns))).to_parquet(file)
        return file.getvalue()

    return Way(
        'parquet, pandas',
        dump,
        lambda data: pandas.read_parquet(io.BytesIO(data)),
        'a table',
        lambda table: (table['record_id'].nunique(), len(table)),
        'records without boxes, class maps, component classes, attributes such as is_new',
    )


TABLE = (
    'record_id',
    'filepath',
    'width',
    'height',
    'label_id',
    'label',
    'xmin',
    'ymin',
    'xmax',
    'ymax',
    'area',
    'iscrowd',
)


# Hugging Face datasets: a row for each image, the objects in it as lists.


def hugging_face(folder: Path) -> Way:
    """A `Dataset` on disk, read as dicts: opening it alone would read nothing."""
    from datasets import (
        ClassLabel,
        Dataset,
        Features,
        List,
        Value,
        disable_progress_bars,
        load_from_disk,
    )

    disable_progress_bars()
    names = count()

    def dump(given) -> Path:
        classes = given[0].detection.class_map._id2class
        objects = dict(
            bbox=List(List(Value('float64'))),
            category=List(ClassLabel(names=classes)),
            area=List(Value('float64')),
            iscrowd=List(Value('int64')),
        )
        features = Features(
            image_id=Value('int64'),
            file_name=Value('string'),
            width=Value('int64'),
            height=Value('int64'),
            objects=objects,
        )
        made = [
            dict(
                image_id=record.record_id,
                file_name=str(record.filepath),
                width=record.width,
                height=record.height,
                objects=dict(
                    bbox=[box.xyxy for box in task.bboxes],
                    category=task.label_ids,
                    area=task.areas,
                    iscrowd=task.iscrowds,
                ),
            )
            for record, task in rows(given)
        ]
        path = folder / f'dataset_{next(names)}'
        Dataset.from_list(made, features).save_to_disk(path)
        return path

    return Way(
        'datasets',
        dump,
        lambda path: load_from_disk(path).to_list(),
        'dicts',
        lambda found: (len(found), sum(len(row['objects']['bbox']) for row in found)),
        "class maps' background and lock, component classes, attributes such as is_new",
    )


# COCO JSON, read by its own library and by icevision's parser.


def coco_file(given, path: Path) -> Path:
    """Write a collection as COCO JSON."""
    classes = given[0].detection.class_map._id2class
    images, annotations = [], []
    for record, task in rows(given):
        images.append(
            dict(
                id=record.record_id,
                file_name=record.filepath.name,
                width=record.width,
                height=record.height,
            )
        )
        for label_id, box, area, crowd in zip(task.label_ids, task.bboxes, task.areas, task.iscrowds):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=record.record_id,
                    category_id=label_id,
                    bbox=box.xywh,
                    area=area,
                    iscrowd=crowd,
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate(classes) if i]
    parts = dict(images=images, annotations=annotations, categories=categories)
    path.write_text(json.dumps(parts))
    return path


def coco_dicts(folder: Path) -> Way:
    """COCO JSON with pycocotools."""
    from pycocotools.coco import COCO

    names = count()

    def load(path: Path):
        with contextlib.redirect_stdout(io.StringIO()):
            return COCO(path)

    return Way(
        'coco, pycocotools',
        lambda given: coco_file(given, folder / f'dicts_{next(names)}.json'),
        load,
        'dicts',
        lambda found: (len(found.imgs), len(found.anns)),
        'corners as they are (x, y, width, height), component classes, attributes such as is_new',
    )


def coco_records(folder: Path, images: Path) -> Way:
    """COCO JSON with icevision's own parser, which opens every image for its size."""
    from icevision.data import SingleSplitSplitter
    from icevision.parsers import COCOBBoxParser

    names = count()

    def load(path: Path):
        parser = COCOBBoxParser(path, images)
        return parser.parse(SingleSplitSplitter(), autofix=False, show_pbar=False)[0]

    return Way(
        'coco, icevision',
        lambda given: coco_file(given, folder / f'records_{next(names)}.json'),
        load,
        not_kept='images without boxes, the lock of class maps',
        long=True,
    )


def size(data) -> int:
    """Bytes of what a way wrote."""
    if isinstance(data, bytes):
        return len(data)
    if isinstance(data, str):
        return len(data.encode())
    if data.is_dir():
        return sum(size(part) for part in data.iterdir())
    return data.stat().st_size


def discard(data):
    """Remove what a way wrote, if it is on disk."""
    if isinstance(data, Path):
        if data.is_dir():
            shutil.rmtree(data)
        else:
            data.unlink()


def lost(way: Way, given, found, counts: Callable) -> list[str]:
    """What a load did not bring back of what was given: counts, and for records their values."""
    losses = []
    expected, there = counts(given), (way.counts or counts)(found)
    for what, before, after in zip(('records', 'boxes'), expected, there):
        if before != after:
            losses.append(f'{after:,} of {before:,} {what}')
    if way.gives == 'records' and not losses:
        losses += changed_values(given, found)
        if not losses and expected[1] <= MOST_COMPARED:
            losses += differences(given, found)
    return losses


def differences(given, found) -> list[str]:
    """What an exact comparison finds, in a line."""
    from redaction_serde import compare

    found = compare(given, found).differences
    if not found:
        return []
    return [f'{len(found):,} things changed, first {found[0].path} ({found[0].kind})']


VALUES = {  # of each record, cheap to compare
    'record ids': lambda r: r.record_id,
    'paths': lambda r: r.filepath,
    'boxes': lambda r: [box.xyxy for box in r.detection.bboxes],
    'label ids': lambda r: r.detection.label_ids,
    'labels': lambda r: r.detection.labels,
    'areas': lambda r: r.detection.areas,
    'crowd flags': lambda r: r.detection.iscrowds,
}


def changed_values(given, found) -> Iterator[str]:
    """In how many records each kind of value is not the same."""
    pairs = list(zip(given._records._list, found._records._list))
    for what, value in VALUES.items():
        changed = sum(value(before) != value(after) for before, after in pairs)
        if changed:
            yield f'{what} changed in {changed:,} of {len(pairs):,} records'


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder, removed afterwards."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
