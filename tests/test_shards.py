"""A function over the shards of a data set: the same bytes by every way, and an end with a name whatever dies.

Clusters are on 127.0.0.1; the functions that they run stand in `shard_work.py`.
"""

import os
import re
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import shard_work as work

import redaction_serde as rs
from redaction_serde import shards
from redaction_serde.document import Document
from redaction_serde.errors import EncodeError, SerdeError
from redaction_serde.lessons.cases import CASES

from icevision.core import BaseRecord, BBox, ClassMap, FilepathRecordComponent
from icevision.core.record_components import BBoxesRecordComponent, InstancesLabelsRecordComponent
from icevision.core.tasks import detection
from icevision.data import RecordCollection

pytestmark = pytest.mark.timeout(90)
PLACES = dict(host='127.0.0.1', dashboard_address='127.0.0.1:0')
LABELS = ClassMap(['text', 'figure'])


def page(i):
    parts = (FilepathRecordComponent(), InstancesLabelsRecordComponent(task=detection))
    record = BaseRecord((*parts, BBoxesRecordComponent(task=detection)))
    record.set_record_id(str(i))
    record.set_filepath(Path(f'{i}.png'))
    record.set_img_size((100, 80))
    record.detection.set_class_map(LABELS)
    record.detection.add_labels_by_id([1 + k % 2 for k in range(i % 4)])
    record.detection.add_bboxes([BBox.from_xyxy(k, k, k + 10.5, 20) for k in range(i % 4)])
    return record


@pytest.fixture(scope='module', params=['jsonl', 'parquet'])
def pages(request, tmp_path_factory):
    """A data set of ten records in five shards; the third begins with the record '4'."""
    folder = tmp_path_factory.mktemp('pages') / 'set'
    rs.write_dataset(map(page, range(10)), folder, format=request.param, shard_records=2)
    return rs.open_dataset(folder)


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp('rows') / 'set'
    rs.write_dataset(map(page, range(10)), folder, shard_records=2)
    return rs.open_dataset(folder)


@pytest.fixture(scope='module')
def client():
    """Of a cluster of two processes; those that die are replaced."""
    distributed = pytest.importorskip('distributed')
    options = dict(n_workers=2, threads_per_worker=1, processes=True, **PLACES)
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(params=['loop', 'processes', 'cluster'])
def way(request):
    """Each way to do it, as options."""
    return way_of(request, request.param)


@pytest.fixture(params=['processes', 'cluster'])
def way_elsewhere(request):
    return way_of(request, request.param)


def way_of(request, name):
    if name == 'cluster':
        return dict(client=request.getfixturevalue('client'))
    return dict(processes=2 if name == 'processes' else 1)


def content(folder):
    """The bytes of all that counts."""
    parts = [path for path in Path(folder).rglob('*') if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in parts}


def message(error):
    return str(error.value)


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize(['takes', 'function'], [('rows', work.every_second), ('table', work.every_second_row)])
def test_all_ways_make_the_same_bytes(takes, function, pages, client, tmp_path):
    counts = [
        rs.map_shards(pages, function, tmp_path / 'loop', version='1', takes=takes),
        rs.map_shards(pages, function, tmp_path / 'processes', version='1', takes=takes, processes=2),
        rs.map_shards(pages, function, tmp_path / 'cluster', version='1', takes=takes, client=client),
    ]
    contents = [content(tmp_path / name) for name in ('loop', 'processes', 'cluster')]
    assert contents[0] == contents[1] == contents[2] and counts == [5, 5, 5]
    assert rs.open_dataset(tmp_path / 'loop').ids == ['0', '2', '4', '6', '8']
    rs.open_dataset(tmp_path / 'loop').verify()


def test_records_on_a_cluster(client, tmp_path):
    rs.write_dataset(map(page, range(4)), tmp_path / 'set')  # one shard, so that one worker imports icevision
    rows = rs.open_dataset(tmp_path / 'set')
    rs.map_shards(rows, work.every_second_record, tmp_path / 'loop', version='1')
    rs.map_shards(rows, work.every_second_record, tmp_path / 'cluster', version='1', client=client)
    assert content(tmp_path / 'loop') == content(tmp_path / 'cluster')


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('format', ['jsonl', 'parquet', 'msgpack.gz'])
def test_what_is_not_changed_stays_as_it_is(name, format, tmp_path):
    try:
        rs.write_dataset(CASES[name](), tmp_path / 'set', format=format, shard_records=2)
    except SerdeError:
        return
    before = rs.open_dataset(tmp_path / 'set')
    for takes in ('records', 'rows', 'table'):
        rs.map_shards(before, work.same, tmp_path / takes, version='1', takes=takes)
        after = rs.open_dataset(tmp_path / takes).manifest.shards
        assert [(s.sha256, s.boxes) for s in after] == [(s.sha256, s.boxes) for s in before.manifest.shards]


def test_a_value_of_all_shards(way, rows):
    assert rs.reduce_shards(rows, work.listed, list.__add__, takes='rows', **way) == [str(i) for i in range(10)]


def test_what_hangs_on_a_collection_stays(tmp_path):
    collection = RecordCollection(None).new([page(i) for i in range(4)])
    collection.note = 'mine'
    rs.write_dataset(collection, tmp_path / 'set', shard_records=2)
    rs.map_shards(rs.open_dataset(tmp_path / 'set'), list, tmp_path / 'new', version='1')
    assert [rs.load(path).note for path in rs.open_dataset(tmp_path / 'new').paths] == ['mine'] * 2


def test_a_function_may_give_its_records_one_by_one(rows, tmp_path):
    assert rs.map_shards(rows, lambda records: (r for r in records), tmp_path, version='1') == 10
    assert rs.map_shards(rows, lambda records: [], tmp_path, version='2') == 0
    assert rs.map_shards(rows, lambda d: Document(d.header, []), tmp_path, version='3', takes='rows') == 0
    assert len(rs.open_dataset(tmp_path)) == 0


def test_shards_that_are_equal_are_made_once(tmp_path):
    rs.write_dataset([page(1)] * 6, tmp_path / 'set', shard_records=2)
    told = []
    options = dict(version='1', takes='rows', progress=lambda done, all: told.append((done, all)))
    assert rs.map_shards(rs.open_dataset(tmp_path / 'set'), work.same, tmp_path / 'new', **options) == 6
    assert told == [(1, 1)]


def test_it_may_replace_its_own_data_set(tmp_path):
    rs.write_dataset(map(page, range(6)), tmp_path, shard_records=2)
    before = rs.open_dataset(tmp_path)
    assert rs.map_shards(before, work.every_second, tmp_path, version='1', takes='rows') == 3
    assert (len(before), rs.open_dataset(tmp_path).ids) == (6, ['0', '2', '4'])


# ---------------------------------------------------------------- what is there is not made again


def test_finished_shards_are_kept(way, rows, tmp_path):
    notes, out = tmp_path / 'notes', tmp_path / 'set'
    notes.mkdir()
    with pytest.raises(SerdeError, match='no such class'):
        rs.map_shards(rows, work.raising, out, version='1', takes='rows', **way)
    assert not (out / 'manifest.json').exists()
    made = len(list((out / 'parts').iterdir()))
    assert made >= 2
    noted = partial(work.noted, notes=notes)
    assert rs.map_shards(rows, noted, out, version='1', takes='rows', **way) == 10
    called = len(list(notes.iterdir()))
    assert 1 <= called <= 5 - made  # on a cluster some were still running when it raised
    rs.map_shards(rows, noted, out, version='1', takes='rows')
    assert len(list(notes.iterdir())) == called
    rs.map_shards(rows, noted, out, version='2', takes='rows')
    assert len(list(notes.iterdir())) == called + 5


def test_two_do_the_same_at_once(rows, tmp_path):
    def meanwhile(document, version):
        rs.map_shards(rows, work.same, tmp_path, version=version, takes='rows')
        return document

    for_the_same = partial(meanwhile, version='1')
    assert rs.map_shards(rows, for_the_same, tmp_path, version='1', takes='rows') == 10
    rs.open_dataset(tmp_path).verify()


def test_two_do_different_things_at_once(rows, tmp_path):
    def meanwhile(document):
        rs.map_shards(rows, work.every_second, tmp_path, version='theirs', takes='rows')
        return document

    with pytest.raises(SerdeError, match='another writer has changed the data set'):
        rs.map_shards(rows, meanwhile, tmp_path, version='mine', takes='rows')
    assert len(rs.open_dataset(tmp_path)) == 5


# ---------------------------------------------------------------- what is refused


def test_errors_name_the_shard(way, rows, tmp_path):
    with pytest.raises(SerdeError) as error:
        rs.map_shards(rows, work.raising, tmp_path, version='1', takes='rows', **way)
    assert re.search(
        r'RuntimeError: no such class: 99 \(.*shard_work.py, line \d+\) - at `shard 2 \(shards/', message(error)
    )


def test_a_damaged_shard_is_named(way, tmp_path):
    rs.write_dataset(map(page, range(6)), tmp_path / 'set', shard_records=2)
    dataset = rs.open_dataset(tmp_path / 'set')
    path = dataset.paths[1]
    path.write_bytes(path.read_bytes().replace(b'.png', b'.gif'))
    with pytest.raises(SerdeError, match='(?s)expected SHA-256.*shard 1'):
        rs.reduce_shards(dataset, len, int.__add__, takes='rows', **way)


def test_what_comes_back_must_be_what_was_given(rows, tmp_path):
    for takes, expected in (('records', 'expected records'), ('rows', 'a Document'), ('table', 'a pyarrow.Table')):
        with pytest.raises(EncodeError, match=expected):
            rs.map_shards(rows, lambda shard: 7, tmp_path, version='1', takes=takes)
    with pytest.raises(EncodeError, match='expected a BaseRecord'):
        rs.map_shards(rows, lambda shard: [7], tmp_path, version='1')
    with pytest.raises(EncodeError, match='the same columns'):
        rs.map_shards(rows, lambda table: table.drop_columns('rest'), tmp_path, version='1', takes='table')
    assert not (tmp_path / 'manifest.json').exists()


def test_rows_that_nobody_could_read_are_refused(rows, tmp_path):
    def broken(document):
        document.records[0].t1.label_ids.append(99)
        return document

    with pytest.raises(SerdeError, match='99'):
        rs.map_shards(rows, broken, tmp_path, version='1', takes='rows')

    def wrong(document):
        document.records[0].t1.bboxes = 'none'
        return document

    with pytest.raises(SerdeError):
        rs.map_shards(rows, wrong, tmp_path, version='1', takes='rows')


def with_column(table, name, values):
    import pyarrow as pa

    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))


def test_a_column_that_says_something_else_than_the_record_is_refused(pages, tmp_path):
    def relabelled(table, both=False):
        ids = [[2] * len(found) for found in table['label_id'].to_pylist()]
        table = with_column(table, 'label_id', ids)
        return with_column(table, 'label', [['figure'] * len(found) for found in ids]) if both else table

    with pytest.raises(EncodeError, match='the column label says something else'):
        rs.map_shards(pages, relabelled, tmp_path, version='1', takes='table')
    assert rs.map_shards(pages, partial(relabelled, both=True), tmp_path, version='2', takes='table') == 10
    assert {k for record in rs.open_dataset(tmp_path) for k in record.detection.label_ids} == {2}


def test_what_stands_in_rest_is_not_changed_by_its_column(tmp_path):
    rs.write_dataset([page(1)], tmp_path / 'set')  # its box has whole numbers and others
    moved = lambda table: with_column(table, 'xmin', [[0.5]])  # noqa: E731
    with pytest.raises(EncodeError, match='the column xmin says something else than the records'):
        rs.map_shards(rs.open_dataset(tmp_path / 'set'), moved, tmp_path / 'new', version='1', takes='table')


def test_images_are_not_lost(tmp_path):
    (tmp_path / '1.png').write_bytes(b'picture')
    record = page(1)
    record.set_filepath(tmp_path / '1.png')
    rs.write_dataset([record], tmp_path / 'set', images='embed')
    with pytest.raises(EncodeError, match='the images in this shard would be lost'):
        rs.map_shards(rs.open_dataset(tmp_path / 'set'), list, tmp_path / 'new', version='1')
    rs.map_shards(rs.open_dataset(tmp_path / 'set'), work.same, tmp_path / 'new', version='1', takes='rows')
    (tmp_path / 'images').mkdir()
    found = rs.open_dataset(tmp_path / 'new', images_dir=tmp_path / 'images')[0]
    assert Path(found.filepath).read_bytes() == b'picture'


def test_what_cannot_be_meant(rows, tmp_path):
    call = partial(rs.map_shards, rows, work.same, tmp_path)
    for options, expected in [
        (dict(takes='boxes'), 'expected takes='),
        (dict(processes=0), 'expected processes='),
        (dict(processes=2, client=object()), 'found both'),
        (dict(version=2), 'expected version='),
    ]:
        with pytest.raises(SerdeError, match=expected):
            call(**{'version': '1', **options})
    for dataset in (rows[:2], [page(1)]):
        with pytest.raises(SerdeError, match='expected what open_dataset gives'):
            rs.map_shards(dataset, work.same, tmp_path, version='1')
    rs.write_dataset([], tmp_path / 'empty')
    with pytest.raises(SerdeError, match='there is no shard'):
        rs.reduce_shards(rs.open_dataset(tmp_path / 'empty'), len, int.__add__)


# ---------------------------------------------------------------- elsewhere


def test_a_function_that_cannot_be_loaded_there(way_elsewhere, rows, tmp_path, monkeypatch):
    (tmp_path / 'only_here.py').write_text('def same(shard): return shard\n')
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    monkeypatch.undo()
    with pytest.raises(SerdeError, match="(?s)cannot be loaded where it should run.*only_here.*its module.*shard"):
        rs.map_shards(rows, only_here.same, tmp_path / 'set', version='1', takes='rows', **way_elsewhere)
    assert rs.reduce_shards(rows, len, int.__add__, takes='rows', **way_elsewhere) == 10


def test_what_cannot_be_sent(way_elsewhere, rows, tmp_path):
    own = threading.Lock()
    with pytest.raises(SerdeError, match='cannot be sent to another process'):
        rs.map_shards(rows, lambda shard: own and shard, tmp_path, version='1', takes='rows', **way_elsewhere)
    with pytest.raises(SerdeError, match='(?s)cannot be sent to another process.*shard'):
        rs.reduce_shards(rows, work.lock, max, takes='rows', **way_elsewhere)


def test_a_process_that_dies_while_it_writes(way_elsewhere, rows, tmp_path):
    function = partial(work.dying_while_writing, mark=tmp_path / 'mark')
    assert rs.map_shards(rows, function, tmp_path / 'set', version='1', takes='rows', **way_elsewhere) == 10
    assert (tmp_path / 'mark').exists()
    rs.map_shards(rows, work.same, tmp_path / 'expected', version='1', takes='rows')
    counting = [{k: v for k, v in content(tmp_path / name).items() if '.part' not in k} for name in ('set', 'expected')]
    assert counting[0] == counting[1]


def test_a_shard_that_kills_every_process_in_a_pool(rows, tmp_path):
    with pytest.raises(SerdeError, match='(?s)the process that worked on it died.*shard 2'):
        rs.map_shards(rows, work.dying, tmp_path, version='1', takes='rows', processes=2)
    assert rs.map_shards(rows, work.same, tmp_path, version='1', takes='rows') == 10


def test_a_shard_that_kills_every_worker(client, rows, tmp_path):
    with pytest.raises(SerdeError, match='(?s)several workers died.*for certainty.*shard'):
        rs.map_shards(rows, work.dying, tmp_path, version='1', takes='rows', client=client)
    assert rs.map_shards(rows, work.same, tmp_path, version='1', takes='rows', client=client) == 10


def test_no_workers(rows, tmp_path):
    distributed = pytest.importorskip('distributed')
    options = dict(n_workers=0, processes=True, **PLACES)
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster, set_as_default=False) as client:
        began = time.monotonic()
        with pytest.raises(SerdeError, match='no worker has come in 0.5 seconds'):
            rs.map_shards(rows, work.same, tmp_path, version='1', client=client, wait=0.5)
        assert time.monotonic() - began < 60


def test_workers_that_go(rows, tmp_path, monkeypatch):
    distributed = pytest.importorskip('distributed')
    monkeypatch.setattr(shards, '_LOOK', 0.2)
    function = partial(work.waiting, mark=tmp_path / 'mark')
    options = dict(n_workers=1, threads_per_worker=1, processes=True, **PLACES)
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster, set_as_default=False) as client:
        threading.Thread(target=lambda: wait_for(tmp_path / 'mark') and cluster.scale(0)).start()
        with pytest.raises(SerdeError, match='there has been no worker for 1 seconds'):
            rs.map_shards(rows, function, tmp_path / 'set', version='1', takes='rows', client=client, wait=1)


def wait_for(path):
    while not path.exists():
        time.sleep(0.02)
    return True


def test_a_scheduler_that_is_killed(rows, tmp_path, monkeypatch):
    distributed = pytest.importorskip('distributed')
    monkeypatch.setattr(shards, '_LOOK', 0.2)
    file, local = tmp_path / 'scheduler.json', ['--host', '127.0.0.1', '--dashboard-address', '127.0.0.1:0']
    run = partial(subprocess.Popen, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, '-m', 'distributed.cli.dask_scheduler', '--port', '0', '--scheduler-file', file, *local]
    scheduler = run(command, env=env)
    worker = [sys.executable, '-m', 'distributed.cli.dask_worker', '--scheduler-file', file, '--no-nanny', *local]
    worker = run([*worker, '--nthreads', '1', '--local-directory', tmp_path, '--death-timeout', '20'], env=env)
    try:
        wait_for(file)
        with distributed.Client(scheduler_file=str(file), timeout=30, set_as_default=False) as client:
            threading.Thread(target=lambda: wait_for(tmp_path / 'mark') and scheduler.kill()).start()
            function = partial(work.waiting, mark=tmp_path / 'mark')
            with pytest.raises(SerdeError, match='the scheduler is gone. Shards that are finished are kept'):
                rs.map_shards(rows, function, tmp_path / 'set', version='1', takes='rows', client=client)
        assert rs.map_shards(rows, work.same, tmp_path / 'set', version='1', takes='rows') == 10
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()


def test_workers_need_little(rows, tmp_path):
    """Neither icevision nor torch nor ZenML where rows or tables are taken; and Dask only for those who have a client."""
    code = f"""
import sys
for name in ('icevision', 'torch', 'zenml', 'distributed', 'dask', 'matplotlib'):
    sys.modules[name] = None
import redaction_serde as rs, shard_work as work
pages = rs.open_dataset({str(rows._source.folder)!r})
for takes in ('rows', 'table'):
    print(rs.map_shards(pages, work.same, {str(tmp_path / 'new')!r}, version='1', takes=takes))
"""
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    found = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, timeout=60)
    assert found.stdout.split() == ['10', '10'], found.stderr
