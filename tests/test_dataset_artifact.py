"""A data set that is an artifact: whole or said why not, and never changed by who was given it."""

import os
import time
from pathlib import Path

import pytest
from zenml import pipeline, save_artifact, step
from zenml.client import Client
from zenml.utils import source_utils

import redaction_serde as rs
from redaction_serde.boxes import count_boxes
from redaction_serde.datasets import OpenedDataset
from redaction_serde.errors import DecodeError, Limits, LimitError
from redaction_serde.fidelity import compare
from redaction_serde.materializers import VISUALISATION_BYTES, DatasetMaterializer
from redaction_serde.wire.registry import FORMATS

from icevision.data import RecordCollection


@pytest.fixture
def uri(tmp_path_factory):
    """A new folder in the artifact store."""
    name = f'{tmp_path_factory.mktemp("uri").name}-{time.monotonic_ns()}'
    path = Path(Client().active_stack.artifact_store.path, name)
    path.mkdir(parents=True)
    return str(path)


@pytest.fixture
def dataset(pages, tmp_path):
    """Four pages in three shards, of which the last is there twice."""
    rs.write_dataset(pages[:3], tmp_path / 'set', shard_records=2)
    opened = rs.open_dataset(tmp_path / 'set')
    opened.append(pages[2:3])
    return opened


def saved(dataset, uri):
    materializer = DatasetMaterializer(uri)
    materializer.save(dataset)
    return materializer


def same(some, others):
    some, others = list(some), list(others)
    return len(some) == len(others) and all(map(alike, some, others))


def alike(record, other):
    return bool(compare(RecordCollection(None).new([record]), RecordCollection(None).new([other])))


def shards(uri):
    return sorted(Path(uri, 'shards').iterdir())


@pytest.mark.parametrize('format', [*FORMATS, 'jsonl.gz'])
def test_what_is_saved_comes_back(format, pages, uri, tmp_path):
    rs.write_dataset(pages, tmp_path / 'set', format=format, shard_records=3)
    before = rs.open_dataset(tmp_path / 'set')
    materializer = saved(before, uri)
    after = materializer.load(OpenedDataset)
    assert same(before, after) and after.manifest == before.manifest
    assert same(before, [materializer.load_item(None, i) for i in range(materializer.get_item_count(before))])
    assert materializer.compute_content_hash(before) == DatasetMaterializer(uri).compute_content_hash(after)
    for i in (-1, 4):
        with pytest.raises(IndexError, match=f'item {i} is not in the artifact'):
            materializer.load_item(None, i)


def test_an_empty_data_set(uri, tmp_path):
    rs.write_dataset([], tmp_path / 'set')
    materializer = saved(rs.open_dataset(tmp_path / 'set'), uri)
    after = materializer.load(OpenedDataset)
    assert list(after) == [] and len(materializer.save_visualizations(after)) == 2
    with pytest.raises(IndexError):
        materializer.load_item(None, 0)


def test_who_is_given_it_cannot_change_it(dataset, uri, pages):
    materializer = saved(dataset, uri)
    before = {path.name: path.read_bytes() for path in (*shards(uri), Path(uri, 'manifest.json'))}
    given = materializer.load(OpenedDataset)
    given.append(pages[:2])
    given.remove([0, 1, 2])
    given.vacuum()
    assert {path.name: path.read_bytes() for path in (*shards(uri), Path(uri, 'manifest.json'))} == before
    assert same(dataset, materializer.load(OpenedDataset))


def test_nothing_is_written_twice(dataset, uri, monkeypatch):
    written = []
    write = DatasetMaterializer._write
    monkeypatch.setattr(
        DatasetMaterializer, '_write', lambda self, *file: written.append(file[0]) or write(self, *file)
    )
    saved(dataset, uri)
    assert len(written) == len(shards(uri)) + 1 and written[-1] == 'manifest.json'
    damaged = shards(uri)[1]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    written.clear()
    saved(dataset, uri)
    assert written == [f'shards/{damaged.name}', 'manifest.json']


def inodes(uri):
    return {path.name: path.stat().st_ino for path in shards(uri)}


def test_a_new_version_is_its_new_shards(dataset, pages, monkeypatch):
    """What a step was given is linked, not copied; what is deleted with a version is gone from no other one."""
    first = save_artifact(dataset, 'versions')
    assert not {path.stat().st_ino for path in dataset.paths} & set(inodes(first.uri).values())
    written = []
    write = DatasetMaterializer._write
    monkeypatch.setattr(
        DatasetMaterializer, '_write', lambda self, *file: written.append(file[0]) or write(self, *file)
    )
    given = first.load()
    given.append(pages[3:])
    second = save_artifact(given, 'versions')
    assert 'manifest.json' in written and not [name for name in written if name.startswith('shards/')]
    assert inodes(first.uri).items() < inodes(second.uri).items()
    Client().delete_artifact_version(first.id, delete_from_artifact_store=True)
    assert not Path(first.uri).exists()
    second.load().verify()
    assert same([*dataset, *pages[3:]], second.load())


def test_a_shard_on_another_disk_is_copied(dataset, monkeypatch):
    def refused(*paths):
        raise OSError('Invalid cross-device link')

    monkeypatch.setattr(os, 'link', refused)
    first = save_artifact(dataset, 'copies')
    second = save_artifact(first.load(), 'copies')
    assert not set(inodes(first.uri).values()) & set(inodes(second.uri).values())
    assert same(dataset, second.load())


def test_a_data_set_of_a_store_is_saved(pages, uri):
    fsspec = pytest.importorskip('fsspec')
    rs.write_dataset(pages, 'memory://to-be-saved', shard_records=2)
    materializer = saved(rs.open_dataset('memory://to-be-saved'), uri)
    assert same(pages, materializer.load(OpenedDataset))
    fsspec.filesystem('memory').rm('/to-be-saved', recursive=True)


def test_a_damaged_shard_is_not_saved(dataset, uri):
    shard = dataset.paths[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b' ')
    with pytest.raises(DecodeError, match='has changed'):
        saved(dataset, uri)
    assert not Path(uri, 'manifest.json').exists()


def test_what_has_changed_is_refused(dataset, uri):
    version = save_artifact(dataset, 'a_data_set')
    manifest, shard = Path(version.uri, 'manifest.json'), shards(version.uri)[0]
    for path in (manifest, shard):
        good = path.read_bytes()
        path.write_bytes(good[:-2] + b' \n')
        with pytest.raises(DecodeError):
            list(version.load())
        path.rename(path.with_name('aside'))
        with pytest.raises(DecodeError, match='is gone'):
            version.load()
        path.with_name('aside').unlink()
        path.write_bytes(good)
    assert same(dataset, version.load())


def test_limits(dataset, uri):
    saved(dataset, uri)
    small = type('Small', (DatasetMaterializer,), dict(LIMITS=Limits(records=1), SKIP_REGISTRATION=True))
    with pytest.raises(LimitError, match='records'):
        small(uri).load(OpenedDataset)


def test_the_dashboard(dataset, uri, pages):
    materializer = saved(dataset, uri)
    told = materializer.extract_metadata(dataset)
    assert (told['records'], told['shards']) == (4, 3)
    assert told['boxes'] == sum(map(count_boxes, dataset))
    for path in materializer.save_visualizations(dataset):
        assert 0 < Path(path).stat().st_size < VISUALISATION_BYTES
    html = Path(uri, 'report.html').read_text()
    assert f'{told["boxes"]:,} boxes' in html and '<script' not in html


@step
def write_pages(annotations: str, images: str, folder: str) -> OpenedDataset:
    rs.write_dataset(rs.read_coco(annotations, images), folder, shard_records=2)
    return rs.open_dataset(folder)


@step
def add_one(given: OpenedDataset) -> OpenedDataset:
    given.append([given[0]])
    return given


@pipeline(enable_cache=False)
def data_set_pipeline(annotations: str, images: str, folder: str):
    add_one(write_pages(annotations, images, folder))


def test_a_step_changes_what_it_was_given_and_returns_it(pages_file, tmp_path, monkeypatch):
    monkeypatch.setattr(source_utils, '_CUSTOM_SOURCE_ROOT', str(Path(__file__).parent))  # where the steps are
    run = data_set_pipeline(str(pages_file), str(pages_file.parent / 'images'), str(tmp_path / 'set'))
    before, after = (run.steps[name].outputs['output'][0].load() for name in ('write_pages', 'add_one'))
    assert (len(before), len(after)) == (4, 5) and same(list(before) + [before[0]], after)
