"""Artifacts come back whole or say why not: every format, every fault, in this process and in others."""

import io
import os
import random
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import processes
import pytest
from pace import cpu_seconds
from PIL import Image
from test_components import CASES as ALL_CASES, NOT_DATA, NOT_JSON
from zenml import save_artifact
from zenml.client import Client
from zenml.materializers.materializer_registry import materializer_registry

from redaction_serde import materializers
from redaction_serde.fidelity import compare
from redaction_serde.materializers import (
    FILES,
    RECORDS_FILE,
    REPORT_FILE,
    SHEET_FILE,
    VISUALISATION_BYTES,
    PredictionsMaterializer,
    RecordCollectionMaterializer,
    boxes_per_class,
    report_html,
    sample_boxes,
    shard_name,
    summarise,
)
from redaction_serde.errors import DecodeError, EncodeError, LimitError, Limits, SerdeError
from redaction_serde.records import dumps, load, loads
from redaction_serde.boxes import boxes_of, count_boxes

from icevision.core import BBox, ClassMap
from icevision.data import RecordCollection

CASES = {name: make for name, make in ALL_CASES.items() if name not in NOT_DATA}


def of(format, shard=3, base=RecordCollectionMaterializer, **options):
    return type('M', (base,), dict(FORMAT=format, SHARD=shard, **options))


def base_for(data):
    return PredictionsMaterializer if isinstance(data, list) else RecordCollectionMaterializer


@pytest.fixture
def uri(tmp_path_factory):
    """A new folder in the artifact store."""
    path = (
        Path(Client().active_stack.artifact_store.path) / tmp_path_factory.mktemp('uri').name / str(time.monotonic_ns())
    )
    path.mkdir(parents=True)
    return str(path)


@pytest.fixture
def many(pages):
    """Ten records."""
    records = [r for _ in range(3) for r in loads(dumps(pages))][:10]
    for i, r in enumerate(records):
        r.set_record_id(i)
    return pages.new(records)


def saved(cls, uri, data):
    m = cls(uri)
    m.save(data)
    return m


def reader(m, data, cls=None):
    """A materializer as ZenML makes it to load an artifact: another object, told the recorded hash."""
    other = (cls or type(m))(m.uri)
    other.expected_content_hash = m.compute_content_hash(data)
    return other


def files_of(uri):
    return sorted(p for p in Path(uri).iterdir())


# ---------------------------------------------------------------- whole


@pytest.mark.parametrize('format', FILES)
@pytest.mark.parametrize('name', CASES)
def test_comes_back_whole(name, format, uri):
    before = CASES[name]()
    if name in NOT_JSON and format in ('json', 'jsonl'):
        with pytest.raises(EncodeError, match='JSON has no'):
            of(format, 1, base_for(before))(uri).save(before)
        assert not files_of(uri)
        return
    m = saved(of(format, 1, base_for(before)), uri, before)
    after = reader(m, before).load(None)
    report = compare(before, after)
    assert report, report
    assert dumps(after, 'msgpack') == dumps(before, 'msgpack')
    assert m.compute_content_hash(before) == type(m)(uri).compute_content_hash(after)
    n = len(before) if isinstance(before, list) else len(before._records._list)
    assert m.get_item_count(before) == n
    for i, item in enumerate(before if isinstance(before, list) else before._records._list):
        found = reader(m, before).load_item(None, i)
        assert (
            compare([item], [found])
            if isinstance(before, list)
            else compare(RecordCollection(None).new([item]), RecordCollection(None).new([found]))
        )
    for i in (-1, n, n + 1):
        with pytest.raises(IndexError, match=f'item {i} is not in the artifact'):
            m.load_item(None, i)
    assert m.extract_metadata(before)['bytes'] == sum(p.stat().st_size for p in files_of(uri))
    if format == 'json':
        assert set(m.save_visualizations(before)) == {f'{uri}/{SHEET_FILE}', f'{uri}/{REPORT_FILE}'}


@pytest.mark.parametrize('shard', [1, 2, 9, 10, 11])
def test_shards_of_every_size(many, uri, shard):
    m = saved(of('jsonl', shard), uri, many)
    assert len(files_of(uri)) == -(-10 // shard) + 1
    assert compare(many, reader(m, many).load(None))
    assert (
        sum(len(load(Path(uri) / shard_name(k))) for k in range(-(-10 // shard))) == 10
    )  # each shard is a file of its own
    assert [m.load_item(None, i).record_id for i in range(10)] == list(range(10))


def test_all_classes_of_a_collection_are_shared_over_shards(many, uri):
    after = saved(of('jsonl', 3), uri, many).load(None)
    assert len({id(r.detection.class_map) for r in after}) == 1


def test_any_option_reads_any_other(pages, uri):
    for format in FILES:
        for path in files_of(uri):
            path.unlink()
        m = saved(of(format), uri, pages)
        for other in FILES:
            assert compare(pages, reader(m, pages, of(other)).load(None))


def test_the_format_of_older_artifacts_is_read(pages, uri):
    (Path(uri) / 'records.json').write_bytes(dumps(pages))
    assert compare(pages, materializers.COCOBBoxRecordCollectionMaterializer(uri).load(None))


def test_what_cannot_be_kept_leaves_nothing(pages, uri):
    pages[2].detection.bboxes[1].ymax = float('nan')
    for format in ('json', 'jsonl'):
        with pytest.raises(EncodeError) as e:
            of(format, 1)(uri).save(pages)
        assert e.value.path == '$.records[2].detection.bboxes[1][3]'
    with pytest.raises(
        EncodeError, match='expected FORMAT to be one of json, jsonl, msgpack, protobuf, parquet, found .pickle.'
    ):
        of('pickle')(uri).save(pages)
    with pytest.raises(EncodeError, match='expected SHARD to be at least 1, found 0'):
        of('jsonl', 0)(uri).save(pages)
    with pytest.raises(EncodeError, match='list of Predictions, found list'):
        PredictionsMaterializer(uri).save([1, 2])
    assert files_of(uri) == []
    assert compare(pages, saved(of('msgpack'), uri, pages).load(None))


def test_a_hash_is_of_what_was_asked_for(pages, uri):
    m, other = saved(of('json'), uri, pages), loads(dumps(pages))
    other[0].detection.bboxes[0].xmin += 1
    assert m.compute_content_hash(other) != m.compute_content_hash(pages)


@pytest.mark.parametrize('format', FILES)
def test_images_travel(pages, uri, format, tmp_path):
    for k, r in enumerate(pages):
        r.set_filepath(shutil.copy(r.filepath, tmp_path / f'{k}.png'))
    bytes_ = [r.filepath.read_bytes() for r in pages]
    m = saved(of(format, IMAGES='embed'), uri, pages)
    shutil.rmtree(tmp_path)
    after = reader(m, pages).load(None)
    assert [r.filepath.read_bytes() for r in after] == bytes_
    assert {d.path.rpartition('.')[2] for d in compare(pages, after).differences} == {'filepath'}
    one = reader(m, pages).load_item(None, 3)
    assert one.filepath.read_bytes() == bytes_[3]
    for r in (after[0], one):
        shutil.rmtree(r.filepath.parent)


def test_paths_under_a_root(pages, uri):
    folder = pages[0].filepath.parent
    m = saved(of('jsonl', ROOT=folder), uri, pages)
    assert not [p for p in files_of(uri) if str(folder).encode() in p.read_bytes()]
    there = reader(m, pages, of('jsonl', ROOT=Path('/there')))
    assert [r.filepath for r in there.load(None)] == [Path('/there') / r.filepath.name for r in pages]
    assert there.load_item(None, 1).filepath == Path('/there') / pages[1].filepath.name


# ---------------------------------------------------------------- not what was saved


@pytest.mark.parametrize('format', FILES)
def test_altered_anywhere(format, many, uri):
    m, rng = saved(of(format, 4), uri, many), random.Random(1)
    for path in files_of(uri):
        good = path.read_bytes()
        for _ in range(12):
            bad, i = bytearray(good), rng.randrange(len(good))
            bad[i] ^= 1 << rng.randrange(8)
            path.write_bytes(bad)
            with pytest.raises(
                DecodeError, match='has changed since it was saved: expected SHA-256 [0-9a-f]{64}, found [0-9a-f]{64}'
            ) as e:
                reader(m, many).load(None)
            assert str(path) in str(e.value) and e.value.path.endswith(path.name)
        path.write_bytes(good)
    assert compare(many, reader(m, many).load(None))


@pytest.mark.parametrize('format', FILES)
def test_cut_or_gone(format, many, uri):
    m = saved(of(format, 4), uri, many)
    for path in files_of(uri):
        good = path.read_bytes()
        for n in (0, 1, len(good) // 2, len(good) - 1):
            path.write_bytes(good[:n])
            with pytest.raises(DecodeError, match=f'has changed since it was saved.*{n} bytes'):
                reader(m, many).load(None)
        path.unlink()
        with pytest.raises(DecodeError, match=r'is gone: expected .*, found no.*run the step again') as e:
            reader(m, many).load(None)
        assert uri in str(e.value)
        path.write_bytes(good)
    assert compare(many, reader(m, many).load(None))


def test_items_are_checked(many, uri):
    m = saved(of('jsonl', 4), uri, many)
    path = Path(uri) / shard_name(1)
    path.write_bytes(path.read_bytes().replace(b'"is_new":false', b'"is_new":true ', 1))
    assert reader(m, many).load_item(None, 3).record_id == 3  # the other shards are as they were
    with pytest.raises(DecodeError, match='has changed'):
        reader(m, many).load_item(None, 4)
    path.unlink()
    with pytest.raises(DecodeError, match='expected 3 shards, found no records-00001'):
        reader(m, many).load_item(None, 4)
    (Path(uri) / 'manifest.json').unlink()
    with pytest.raises(DecodeError, match='the artifact is gone'):
        reader(m, many).load_item(None, 3)


def test_an_item_costs_one_shard(many, uri):
    m = saved(of('jsonl', 2), uri, many)
    read, seen = m._read, []
    m._read = lambda name, *rest: seen.append(name) or read(name, *rest)
    m.load_item(None, 7)
    assert seen == ['manifest.json', 'records-00003.jsonl']
    seen.clear()
    m.load(None)
    assert seen == ['manifest.json', *map(shard_name, range(5))]  # each file once


@pytest.mark.parametrize(
    'manifest, words',
    [
        (b'{', 'truncated'),
        (b'{}', 'missing required field'),
        (b'{"format":"redaction-serde shards","version":"1.0","shards":[]}', 'with 0 shards'),
        (b'{"format":"other","version":"1.0","shards":[]}', "found 'other'"),
        (
            b'{"format":"redaction-serde shards","version":"9.0","shards":[{"items":1,"bytes":1,"sha256":""}]}',
            'version 9.0 are not known',
        ),
        (
            b'{"format":"redaction-serde shards","version":"1.0","shards":[{"items":1,"bytes":1,"sha256":"","path":"../../etc"}]}',
            'path',
        ),
        (
            b'{"format":"redaction-serde shards","version":"1.0","shards":[{"items":1,"bytes":9999999999999,"sha256":""}]}',
            'over the limit',
        ),
        (
            b'{"format":"redaction-serde shards","version":"1.0","shards":[{"items":1,"items":2,"bytes":1,"sha256":""}]}',
            "'items' stands twice",
        ),
    ],
)
def test_hostile_manifests(manifest, words, uri):
    (Path(uri) / 'manifest.json').write_bytes(manifest)
    with pytest.raises(DecodeError, match=words):
        of('jsonl')(uri).load(None)


def test_shards_of_two_saves_do_not_mix(many, uri):
    """Only the manifest's own hash, or nobody, says that it is the right one; its shards still must fit together."""
    import msgspec

    m = saved(of('jsonl', 5), uri, many)
    other = loads(dumps(many))
    for r in other:
        r.detection.class_map._id2class[1] = 'blackout'
    data = dumps(other.new(list(other)[5:]), 'jsonl')
    manifest = msgspec.json.decode((Path(uri) / 'manifest.json').read_bytes())
    manifest['shards'][1] = dict(items=5, bytes=len(data), sha256=materializers.sha256_of(data))
    (Path(uri) / shard_name(1)).write_bytes(data)
    (Path(uri) / 'manifest.json').write_bytes(msgspec.json.encode(manifest))
    with pytest.raises(DecodeError, match='records-00001.jsonl does not belong to the shards before it'):
        type(m)(uri).load(None)
    with pytest.raises(DecodeError, match='has changed'):
        reader(m, many).load(None)


def test_limits(many, uri):
    for format in FILES:
        for path in files_of(uri):
            path.unlink()
        saved(of(format, 4), uri, many)
        for limits in (Limits(bytes=3000), Limits(records=9)):
            with pytest.raises(LimitError):
                of(format, LIMITS=limits)(uri).load(None)
        assert compare(many, of(format, LIMITS=Limits(records=10))(uri).load(None))


# ---------------------------------------------------------------- the store fails


class Store(SimpleNamespace):
    """An artifact store that fails as it is told."""

    def __init__(self, after=0, error=ConnectionError('the server is gone')):
        super().__init__(real=Client().active_stack.artifact_store, after=after, error=error)

    def size(self, path):
        return self.real.size(path)

    def exists(self, path):
        return self.real.exists(path)

    def open(self, path, mode):
        self.after -= 1
        if self.after < 0:
            raise self.error
        return self.real.open(path, mode)


class Full(Store):
    """A disk that is full after a few bytes."""

    def open(self, path, mode):
        @contextmanager
        def file():
            with self.real.open(path, mode) as f:
                yield SimpleNamespace(write=lambda data: (f.write(data[:10]), self.stop())[1])

        return file()

    def stop(self):
        raise OSError(28, 'No space left on device')


@pytest.mark.parametrize(
    'store, words',
    [
        (Store(), 'ConnectionError: the server is gone'),
        (Store(2, PermissionError(13, 'Permission denied')), 'Permission denied'),
        (Full(), 'No space left'),
    ],
)
def test_a_store_that_cannot_be_written(store, words, many, uri):
    m = of('jsonl', 4)(uri, store)
    with pytest.raises(
        SerdeError, match=f'(?s)cannot be written .*{words}.*Nothing has been registered.*at `{uri}/records-'
    ):
        m.save(many)
    assert not (Path(uri) / 'manifest.json').exists()
    with pytest.raises(SerdeError, match='the artifact is gone'):
        of('jsonl', 4)(uri).load(None)  # what was written is not taken for an artifact


def test_a_file_where_the_folder_should_be(pages, uri):
    (Path(uri) / 'x').write_text('')
    with pytest.raises(SerdeError, match='cannot be written .*x/records.json'):
        of('json')(f'{uri}/x').save(pages)
    with pytest.raises(SerdeError, match='outside of artifact store bounds'):
        of('json')('/nowhere').save(pages)
    with pytest.raises(SerdeError):
        of('json')(f'{uri}/x').load(None)


def test_a_store_that_cannot_be_read(many, uri):
    m = saved(of('jsonl', 4), uri, many)
    for after in (0, 1, 3):
        with pytest.raises(SerdeError, match='cannot be read .*the server is gone.*see that it can be reached') as e:
            type(m)(uri, Store(after)).load(None)
        assert not isinstance(e.value, DecodeError)  # the artifact may be well


def test_a_failed_save_registers_nothing(pages, monkeypatch):
    def versions():
        return (
            Client().list_artifact_versions(artifact='never').total
            if 'never' in [a.name for a in Client().list_artifacts(size=100)]
            else 0
        )

    monkeypatch.setattr(RecordCollectionMaterializer, '_write', lambda *args: (_ for _ in ()).throw(SerdeError('no')))
    with pytest.raises(SerdeError):
        save_artifact(pages, 'never', materializer=RecordCollectionMaterializer)
    monkeypatch.undo()
    monkeypatch.setattr(RecordCollectionMaterializer, 'compute_content_hash', lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_artifact(pages, 'never', materializer=RecordCollectionMaterializer)
    assert versions() == 0
    monkeypatch.undo()
    save_artifact(pages, 'never', materializer=RecordCollectionMaterializer)
    assert versions() == 1


# ---------------------------------------------------------------- ZenML


def test_chosen_by_type(pages, monkeypatch):
    assert (
        materializer_registry[RecordCollection]
        is RecordCollectionMaterializer
        is materializers.COCOBBoxRecordCollectionMaterializer
    )
    assert materializer_registry[list].__name__ == 'BuiltInContainerMaterializer'
    version = save_artifact(pages, 'by_type')
    assert version.item_count == 4 and version.data_type.attribute == 'RecordCollection'
    assert compare(pages, version.load())
    path = Path(version.uri) / RECORDS_FILE
    path.write_bytes(path.read_bytes().replace(b'"is_new":false', b'"is_new":true ', 1))
    with pytest.raises(DecodeError, match='has changed since it was saved'):
        version.load()


def test_predictions_by_name():
    before = CASES['predictions']()
    version = save_artifact(before, 'predicted', materializer=PredictionsMaterializer)
    assert version.item_count == 2 and version.run_metadata['predictions'] == 2
    assert compare(before, version.load())


def test_pictures_and_metadata_are_not_worth_a_failure(pages, monkeypatch, uri):
    for name in ('extract_metadata', 'save_visualizations'):
        monkeypatch.setattr(RecordCollectionMaterializer, name, lambda *args: 1 / 0)
    version = save_artifact(pages, 'plain', materializer=RecordCollectionMaterializer)
    assert compare(pages, version.load()) and not version.run_metadata and not version.visualizations


STEPS = '''
import os, signal
from typing import Annotated
from zenml import pipeline, step
from redaction_serde.materializers import PredictionsMaterializer, RecordCollection, RecordCollectionMaterializer
from redaction_serde.records import loads
from icevision.data import Prediction

class Mine(RecordCollectionMaterializer):
    FORMAT, SHARD = 'jsonl', 2
    def save(self, data):
        super().save(data)
        if os.environ.get('DIE') == 'in save': os.kill(os.getpid(), signal.SIGKILL)
    def compute_content_hash(self, data):
        if os.environ.get('DIE') == 'after save': os.kill(os.getpid(), signal.SIGKILL)
        return super().compute_content_hash(data)

@step(output_materializers=Mine)
def read(path: str) -> Annotated[RecordCollection, 'pages']:
    with open(path, 'rb') as f: return loads(f.read())

@step(output_materializers=PredictionsMaterializer)
def predict(pages: RecordCollection) -> Annotated[list[Prediction], 'predicted']: return [Prediction(r) for r in pages]

@step
def count(pages: RecordCollection, predicted: list[Prediction]) -> Annotated[int, 'boxes']: return sum(len(p.pred.detection.bboxes) for p in predicted)

@pipeline(enable_cache=False)
def work(path: str):
    pages = read(path)
    count(pages, predict(pages))
'''
PREPARE = 'import sys; from redaction_serde.compat import prepare_zenml; prepare_zenml("zenml", source="."); sys.path.insert(0, ""); from zenml.client import Client; '
RUN = (
    PREPARE
    + 'import steps_here; run = steps_here.work(sys.argv[1]); print(run.status.value, run.steps["count"].outputs["boxes"][0].load())'
)
LIST = (
    PREPARE
    + '''
versions = Client().list_artifact_versions(artifact="pages").items if "pages" in [a.name for a in Client().list_artifacts()] else []
print(len(versions), [r.status.value for r in Client().list_pipeline_runs(sort_by="asc:created")])
'''
)
LOAD = (
    PREPARE
    + 'from redaction_serde.records import dumps; sys.stdout.write(dumps(Client().get_artifact_version("pages").load()).decode())'
)


ROOT_OF_PROJECT = Path(__file__).resolve().parent.parent


def python(folder, code, *args, **env):
    return processes.run('-c', code, *args, cwd=folder, env={**os.environ, **env})


@pytest.fixture
def folder(pages, tmp_path):
    """A folder with steps, a file of records, and room for a ZenML store of its own."""
    (tmp_path / 'steps_here.py').write_text(STEPS)
    (tmp_path / 'pages.json').write_bytes(dumps(pages))
    return tmp_path


def test_in_another_process(folder, pages):
    done = python(folder, RUN, 'pages.json')
    assert done.returncode == 0 and done.stdout.split() == ['completed', str(sum(map(count_boxes, pages)))], done.stderr
    loaded = python(folder, LOAD)
    assert loaded.returncode == 0 and loads(loaded.stdout) and compare(pages, loads(loaded.stdout)), loaded.stderr


def test_materializer_missing(folder, pages):
    """The error that a user would see, and a remedy: another materializer reads the folder, and still checks it."""
    assert python(folder, RUN, 'pages.json').returncode == 0
    (folder / 'steps_here.py').unlink()
    done = python(folder, LOAD)
    assert (
        done.returncode == 1
        and done.stderr.endswith("No module named 'steps_here'\n")
        and 'cannot locate and import the materializer module' in done.stdout
    ), done.stderr
    loaded = python(
        folder,
        LOAD.replace('Client().get_artifact_version("pages").load()', 'other()').replace(
            'from redaction_serde.records', REMEDY + 'from redaction_serde.records'
        ),
    )
    assert loaded.returncode == 0 and compare(pages, loads(loaded.stdout)), loaded.stderr


REMEDY = """
def other():
    from redaction_serde.materializers import RecordCollectionMaterializer
    version = Client().get_artifact_version("pages")
    m = RecordCollectionMaterializer(version.uri)
    m.expected_content_hash = version.content_hash
    return m.load(None)

"""


def test_killed_between_save_and_return(folder):
    """The files are there, and no artifact points to them: the next run is as if the others had not been."""
    for when in ('in save', 'after save'):
        assert python(folder, RUN, 'pages.json', DIE=when).returncode == -9
    orphans = list(folder.rglob('manifest.json'))
    assert len(orphans) == 2 and python(folder, LIST).stdout.strip() == "0 ['running', 'running']"
    assert python(folder, RUN, 'pages.json').returncode == 0
    assert python(folder, LIST).stdout.strip() == "1 ['running', 'running', 'completed']"
    assert all(path.exists() for path in orphans)


def test_two_processes_in_one_warm_store(folder, pages):
    assert python(folder, LIST).stdout.strip() == '0 []'  # two that start a store at once can fail; this starts it
    both = [processes.start('-c', RUN, 'pages.json', cwd=folder) for _ in range(2)]
    for process in both:
        out, complaints = process.communicate(timeout=300)
        assert process.returncode == 0 and out.split()[0] == 'completed', complaints
    assert python(folder, LIST).stdout.strip() == "2 ['completed', 'completed']"
    assert compare(pages, loads(python(folder, LOAD).stdout))


# ---------------------------------------------------------------- what is counted and shown


@pytest.mark.parametrize('name', [n for n in CASES if n != 'predictions'])
def test_counts_are_those_of_a_slow_count(name):
    c, slow = CASES[name](), {}
    for r in c._records._list:
        for box in boxes_of(r):
            slow[box.class_name] = slow.get(box.class_name, 0) + 1
    s = summarise(c)
    assert (s.records, s.boxes) == (len(c._records._list), sum(slow.values()))
    assert boxes_per_class(c) == slow


def test_classes_by_name(pages):
    slow = {}
    for r in pages:
        for box in boxes_of(r):
            slow[box.class_name] = slow.get(box.class_name, 0) + 1
    assert boxes_per_class(pages) == slow
    named = next(c for c in pages[0].detection.components if hasattr(c, 'label_ids'))
    named.label_ids[0] = 99
    assert boxes_per_class(pages) == slow  # the record itself says what the box is
    named.labels = []
    assert boxes_per_class(pages)['id 99'] == 1


def test_worst_cases(pages):
    boxes = pages[1].detection.bboxes
    boxes[0], boxes[1], boxes[2] = BBox(-7, 0, 20, 20), BBox(9, 9, 3, 20), BBox(0, 0, float('inf'), 1)
    for r in pages:
        for b in r.detection.bboxes[3:]:
            b.xmin, b.ymin, b.xmax, b.ymax = 1, 1, 2, 2
    for r in (pages[0], *list(pages)[2:]):
        r.detection.bboxes[:3] = [BBox(0, 0, 850, 1100)] * 3
    s = summarise(pages)
    seen = sample_boxes(pages, s)
    assert seen.faults == {'not finite': 1, 'no area': 1, 'out of the image': 1}
    assert [row[:4] for row in seen.worst] == [
        ('not finite', float('inf'), 1, 2),
        ('no area', -9.0, 1, 1),
        ('out of the image', 7.0, 1, 0),
    ]
    html = report_html(pages, s, seen)
    assert '✗ 1 not finite, 1 no area, 1 out of the image' in html and '-7, 0, 20, 20' in html


def test_the_report_runs_nothing(pages):
    evil = '<script>alert(1)</script>"\'><img src=x onerror=alert(1)>'
    pages[0].set_record_id(evil)
    for r in pages:
        r.detection.class_map._id2class[1] = evil
    s = summarise(pages)
    html = report_html(pages, s, sample_boxes(pages, s))
    assert '<script' not in html and '<img' not in html and '&lt;script&gt;' in html


def test_half_an_image_does_not_spoil_the_sheet(pages, uri, tmp_path):
    path = tmp_path / 'half.png'
    path.write_bytes(pages[0].filepath.read_bytes()[:1000])
    pages[0].set_filepath(path)
    m = saved(of('json'), uri, pages)
    assert len(m.save_visualizations(pages)) == 2


def large(n, boxes):
    """As many records as asked for, few of them different: each is looked at all the same."""
    from icevision.core import (
        BaseRecord,
        BBoxesRecordComponent,
        FilepathRecordComponent,
        InstancesLabelsRecordComponent,
    )
    from icevision.utils import ImgSize

    rng, class_map, some = random.Random(0), ClassMap([f'class {i}' for i in range(300)]), []
    for i in range(min(n, 500)):
        r = BaseRecord((FilepathRecordComponent(), InstancesLabelsRecordComponent(), BBoxesRecordComponent()))
        r.set_record_id(f'{i}-{"x" * 1000}'), r.set_filepath(f'{i}.png'), r.set_img_size(ImgSize(640 + i, 480))
        (
            r.detection.set_class_map(class_map),
            r.detection.set_labels_by_id([rng.randrange(1, 300) for _ in range(boxes)]),
        )
        r.detection.set_bboxes([BBox(*(rng.random() * 640 for _ in range(4))) for _ in range(boxes)])
        some.append(r)
    c = RecordCollection(None)
    c._records._list = [some[i % len(some)] for i in range(n)]
    return c


@pytest.mark.parametrize('n, boxes', [(100_000, 10), (30, 3000)])
def test_large_collections_are_shown_soon_and_small(n, boxes, uri):
    c, m = large(n, boxes), RecordCollectionMaterializer(uri)
    s = summarise(c)
    for show in (materializers.sheet_png, lambda c, s: report_html(c, s, sample_boxes(c, s))):
        shown = show(c, s)
        assert len(shown) <= VISUALISATION_BYTES
        assert cpu_seconds(lambda: show(c, s), 2) < 2
    assert f'of {n * boxes:,} boxes were looked at one by one' in shown and 'others' in shown
    m._saved = (c, 'hash', 1, 1)
    found = m.extract_metadata(c)
    assert found['boxes'] == n * boxes and len(found['classes']) <= 51 and len(str(found)) < 10_000
    assert Image.open(io.BytesIO(materializers.sheet_png(c, s))).size[0] >= 200


def test_costs_little_more_than_the_bytes(uri):
    """Saving and loading 2,000 records of 10 boxes, beside `dumps` and `loads` alone."""
    sys.path.insert(0, str(ROOT_OF_PROJECT / 'bench'))
    try:
        from data import made
    finally:
        sys.path.pop(0)
    before = RecordCollection(None)
    before._records._list = list(made(2_000, 10))
    before._records.data = {r.record_id: r for r in before._records._list}
    m, best = RecordCollectionMaterializer(uri), {}

    def timed(what, f):
        results = []
        seconds = cpu_seconds(lambda: results.append(f()), tries=1)
        best[what] = min(best.get(what, 9e9), seconds)
        return results[0]

    for _ in range(3):
        data = timed('dumps', lambda: dumps(before))
        timed('save', lambda: (m.save(before), m.compute_content_hash(before)))
        timed('loads', lambda: loads(data))
        after = timed('load', lambda: reader(m, before).load(None))
    assert best['save'] < 1.3 * best['dumps'] and best['load'] < 1.3 * best['loads'], best
    assert len(after) == 2_000
