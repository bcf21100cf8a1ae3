"""What the first version stored is found, loaded and unpickled today: the dotted names in stores and pickles are a format, too."""

import json
import pickle
import pickletools
import shutil
import time
from pathlib import Path

import pytest
from zenml.artifacts.utils import _load_artifact_from_uri
from zenml.client import Client

from redaction_serde.errors import DecodeError
from redaction_serde.fidelity import compare
from redaction_serde.pipelines import BatchMaterializer
from redaction_serde.materializers import PredictionsMaterializer, RecordCollectionMaterializer
from redaction_serde.records import dumps, load

from icevision.core import (
    BaseRecord,
    BBox,
    BBoxesRecordComponent,
    ClassMap,
    FilepathRecordComponent,
    InstancesLabelsRecordComponent,
)
from icevision.data import Prediction, RecordCollection

HERE = Path(__file__).parent
STORE, PICKLES = HERE / 'golden_store', HERE / 'golden_pickle'
ARTIFACTS = json.loads((STORE / 'artifacts.json').read_text())  # as ZenML's database had them


def template():
    return BaseRecord((FilepathRecordComponent(), InstancesLabelsRecordComponent(), BBoxesRecordComponent()))


def page(i):
    record = template()
    record.set_record_id(i)
    record.set_filepath(f'/pages/{i}.png')
    record.set_img_size((850, 1100))
    record.detection.set_class_map(ClassMap(['content', 'redaction']))
    record.detection.add_labels(['redaction', 'content'])
    record.detection.add_bboxes([BBox(1.5 + i, 2, 30, 40.25), BBox(0, 0, 850, 1100)])
    return record


def pages():
    return RecordCollection(template).new([page(i) for i in range(5)])


def predictions():
    found = [Prediction(page(i)) for i in range(3)]
    found[0].ground_truth = page(7)
    return found


MEANT = dict(pages=pages, batches=pages, predictions=predictions, prediction_shards=predictions)


@pytest.fixture
def copied():
    """A function that copies a stored artifact into the artifact store of today."""

    def copy(name):
        folder = Path(Client().active_stack.artifact_store.path) / f'golden-{name}-{time.monotonic_ns()}'
        shutil.copytree(STORE / name, folder)
        return folder

    return copy


def loaded(name, folder):
    said = ARTIFACTS[name]
    store = Client().active_stack.artifact_store
    return _load_artifact_from_uri(said['materializer'], said['data_type'], str(folder), store, said['content_hash'])


@pytest.mark.parametrize('name', ARTIFACTS)
def test_an_artifact_of_the_first_version_is_loaded(name, copied):
    assert compare(MEANT[name](), loaded(name, copied(name)))


@pytest.mark.parametrize('name', ARTIFACTS)
def test_and_is_still_checked(name, copied):
    folder = copied(name)
    for path in folder.iterdir():
        good = path.read_bytes()
        path.write_bytes(good[:-2] + b' \n')
        with pytest.raises(DecodeError, match='has changed since it was saved'):
            loaded(name, folder)
        path.write_bytes(good)
    assert compare(MEANT[name](), loaded(name, folder))


class Twos(BatchMaterializer):
    SKIP_REGISTRATION, SHARD = True, 2


class PredictionTwos(PredictionsMaterializer):
    SKIP_REGISTRATION, FORMAT, SHARD = True, 'jsonl', 2


@pytest.mark.parametrize(
    'name, cls',
    [
        ('pages', RecordCollectionMaterializer),
        ('batches', Twos),
        ('predictions', PredictionsMaterializer),
        ('prediction_shards', PredictionTwos),
    ],
)
def test_the_same_bytes_are_written(name, cls, copied):
    """Equal collections still have equal hashes, so that ZenML's cache knows them again."""
    folder = copied(name)
    for path in folder.iterdir():
        path.unlink()
    materializer = cls(str(folder))
    materializer.save(MEANT[name]())
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        p.name: p.read_bytes() for p in (STORE / name).iterdir()
    }
    assert materializer.compute_content_hash(MEANT[name]()) == ARTIFACTS[name]['content_hash']


def test_a_batch_of_the_first_version(copied):
    batches = Twos(str(copied('batches')))
    batches.expected_content_hash = ARTIFACTS['batches']['content_hash']
    assert batches.get_item_count(None) == 3
    assert [r.record_id for i in range(3) for r in batches.load_item(RecordCollection, i)] == list(range(5))


OLD_NAMES = '''
FILES RECORDS_FILE SHEET_FILE REPORT_FILE RECORDS_SEEN BOXES_SEEN ROWS_SHOWN FAULTS PAGES_SHOWN VISUALISATION_BYTES COCOBBoxRecordCollectionMaterializer Shard
Manifest split_document shard_name sha256_of shard_files read_manifest Sharded RecordCollectionMaterializer records_of labelled_boxes size_of name_of Summary
summarise boxes_per_class spread Sample sample_boxes judge_boxes bar_table most_frequent size_histogram report_html worst_table sheet_png rows_at items_of
PredictionsMaterializer DetectorMaterializer RecordCollection
'''.split()


def test_every_name_of_the_first_version_is_importable():
    from redaction_serde import materializers

    assert [name for name in OLD_NAMES if not hasattr(materializers, name)] == []


def test_a_pickle_of_the_first_version():
    data = (PICKLES / 'loaded_collection.pickle').read_bytes()
    said = {arg for _, arg, _ in pickletools.genops(data) if isinstance(arg, str)}
    assert {'redaction_serde.records', 'RecordTemplate', 'redaction_serde.schema', 'Header'} <= said
    found = pickle.loads(data)
    meant = load(PICKLES / 'collection.json')
    assert compare(meant, found) and compare(pages(), found)
    assert dumps(found) == (PICKLES / 'collection.json').read_bytes()
    new, old = found.create_record_fn(), template()
    assert {type(c) for c in new.detection.components} == {type(c) for c in old.detection.components}
    again = pickle.loads(pickle.dumps(found))
    assert compare(found, again)
