"""Machines fail: a writer that is killed, a disk that is full, a folder that cannot be written, two writers, Ctrl-C.

What was there before must be there afterwards, whole, or what is new. A short part on every machine here; `make fuzz`
sets `FAULTS` to the number of times that each writer is killed, and prints the table.
"""

import gc
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest

from redaction_serde.detectors import load_detector, make_detector, save_detector
from redaction_serde.coco.read import read_coco
from redaction_serde.coco.write import write_coco
from redaction_serde.errors import SerdeError
from redaction_serde.materializers import RecordCollectionMaterializer
from redaction_serde.records import dumps, load, loads, save, write_records

from icevision.core import (
    BaseRecord,
    BBox,
    BBoxesRecordComponent,
    ClassMap,
    FilepathRecordComponent,
    InstancesLabelsRecordComponent,
)
from icevision.data import RecordCollection
from icevision.utils.imageio import ImgSize

KILLS, SEED = int(os.environ.get('FAULTS', 3)), os.environ.get('FUZZ_SEED', '0')
TABLE: list = []  # what was done, how often, and what was found afterwards
pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='faults are made in forked processes')


def page(i, x, folder):
    record = BaseRecord((FilepathRecordComponent(), InstancesLabelsRecordComponent(), BBoxesRecordComponent()))
    record.set_record_id(i)
    record.set_filepath(folder / f'{i}.png')
    record.set_img_size(ImgSize(100, 100))
    record.detection.set_class_map(ClassMap(['a']))
    record.detection.add_labels_by_id([1] * 5)
    record.detection.add_bboxes([BBox(x, 2.0, 30.0, 40.0 + k) for k in range(5)])
    return record


def collection(x=1.0, n=300, folder=Path('/p')):
    return RecordCollection(None).new([page(i, x, folder) for i in range(n)])


def told(what, outcomes):
    counts = {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}
    TABLE.append(f'{what:42} {len(outcomes):4}  {", ".join(f"{n} {outcome}" for outcome, n in counts.items())}')


def in_child(work):
    "Run something in a process of its own, and give its number."
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(0)


def killed(work, most, rng):
    "Run something in a process of its own, and kill that at a random moment."
    child = in_child(work)
    time.sleep(rng.random() * most)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def for_ever(work):
    while True:
        work()


def parts(folder):
    return [path for path in Path(folder).rglob('*') if path.name.endswith('.part')]


OLD, NEW = collection(1.0), collection(2.0)
FORMATS = ['json', 'jsonl', 'msgpack', 'pb', 'parquet', 'json.gz', 'jsonl.gz']


def which(found):
    "Old or new: a file must be one of the two, to the byte."
    return {dumps(OLD): 'old', dumps(NEW): 'new'}[dumps(found)]


@pytest.mark.parametrize('suffix', FORMATS)
@pytest.mark.parametrize('write', ['save', 'write_records'])
def test_killed(suffix, write, tmp_path):
    if write == 'write_records' and not suffix.startswith('jsonl'):
        pytest.skip('only JSON Lines is written as a stream')
    path, rng, outcomes, left = tmp_path / f'd.{suffix}', random.Random(f'{SEED} {suffix}'), [], 0
    new = (lambda: save(NEW, path)) if write == 'save' else (lambda: write_records(path, iter(NEW)))
    for _ in range(KILLS):
        save(OLD, path)
        assert not parts(tmp_path)  # a save cleans what killed writers have left
        killed(lambda: for_ever(new), 0.1, rng)
        outcomes.append(which(load(path)))
        left += len(parts(tmp_path))
    told(f'kill -9, {write} .{suffix}', outcomes)


def test_killed_while_images_are_written(tmp_path):
    source, target, rng, outcomes = tmp_path / 'in', tmp_path / 'out', random.Random(SEED), []
    source.mkdir()
    for i in range(20):
        (source / f'{i}.png').write_bytes(b'%d' % i * 100_000)
    data = dumps(collection(n=20, folder=source), images='embed')
    for _ in range(KILLS):
        target.mkdir()
        killed(lambda: loads(data, images_dir=target), 0.1, rng)
        whole = [path for path in target.iterdir() if path not in parts(target)]
        assert all(path.stem == hashlib.sha256(path.read_bytes()).hexdigest() for path in whole)
        assert len(loads(data, images_dir=target)) == 20 == len(list(target.glob('*.png')))
        outcomes.append('whole, as far as they were there' if len(whole) < 20 else 'all there')
        for path in target.iterdir():
            path.unlink()
        target.rmdir()
    told('kill -9, images of a document', outcomes)


class Fifties(RecordCollectionMaterializer):
    SKIP_REGISTRATION, FORMAT, SHARD = True, 'jsonl', 50


def test_killed_while_shards_are_written():
    from zenml.client import Client

    store, rng, outcomes = Path(Client().active_stack.artifact_store.path), random.Random(SEED), []
    for i in range(KILLS):
        folder = store / f'fault-{time.monotonic_ns()}'
        folder.mkdir(parents=True)
        killed(lambda: Fifties(str(folder)).save(NEW), 0.08, rng)
        try:
            outcomes.append(which(Fifties(str(folder)).load(RecordCollection)))
        except (SerdeError, OSError):
            outcomes.append('refused')
    told('kill -9, shards of an artifact', outcomes)


def test_killed_while_coco_is_written(tmp_path):
    path, rng, outcomes = tmp_path / 'd.coco.json', random.Random(SEED), []
    texts = {}
    for name, some in (('old', OLD), ('new', NEW)):
        write_coco(some, path, lossy=True)
        texts[path.read_bytes()] = name
    for _ in range(KILLS):
        write_coco(OLD, path, lossy=True)
        killed(lambda: for_ever(lambda: write_coco(NEW, path, lossy=True)), 0.1, rng)
        outcomes.append(texts[path.read_bytes()])
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that crowds are missing
            assert len(read_coco(path)) == 300
    told('kill -9, write_coco', outcomes)


def test_killed_while_a_detector_is_written(tmp_path):
    rng, outcomes = random.Random(SEED), []
    old, new = (make_detector(ClassMap(['a']), image_size=(64, 64), seed=seed) for seed in (1, 2))
    for _ in range(min(KILLS, 25)):
        save_detector(old, tmp_path)
        killed(lambda: for_ever(lambda: save_detector(new, tmp_path)), 0.5, rng)
        load_detector(tmp_path)  # its weights are compared with the hash in its card
        outcomes.append('whole')
    told('kill -9, save_detector', outcomes)


@contextmanager
def small_disk(folder):
    "A file system of 64 kB."
    made = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', folder], capture_output=True)
    if made.returncode:
        pytest.skip(f'no small file system can be mounted here: {made.stderr.decode().strip()}')
    try:
        yield
    finally:
        subprocess.run(['umount', folder], check=True)


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='tmpfs is of Linux')
def test_a_full_disk(tmp_path):
    small, outcomes, rng = collection(1.0, 20), [], random.Random(SEED)
    big = collection(2.0, 1500)
    for record in big:
        record.set_record_id(rng.randbytes(100).hex())  # which no gzip makes small
    with small_disk(tmp_path):
        for suffix in FORMATS:
            path = tmp_path / f'd.{suffix}'
            save(small, path)
            before = path.read_bytes()
            with pytest.raises(OSError):
                save(big, path)
            assert path.read_bytes() == before and not parts(tmp_path)
            outcomes.append('old, and OSError')
        told('full disk (64 kB), each format', outcomes)


def test_a_limit_on_the_size_of_files(tmp_path):
    resource = pytest.importorskip('resource')
    outcomes = []
    for suffix in FORMATS:
        path = tmp_path / f'd.{suffix}'
        save(OLD, path)

        def limited():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
            try:
                save(NEW, path)
            except OSError:
                (tmp_path / f'{suffix}.said').touch()

        os.waitpid(in_child(limited), 0)
        assert (tmp_path / f'{suffix}.said').exists() and not parts(tmp_path)
        outcomes.append(f'{which(load(path))}, and OSError')
    told('RLIMIT_FSIZE, each format', outcomes)


@pytest.mark.skipif(getattr(os, 'geteuid', lambda: 0)() == 0, reason='root may write to every folder')
def test_a_folder_that_cannot_be_written(tmp_path):
    save(OLD, tmp_path / 'd.json')
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PermissionError):
            save(NEW, tmp_path / 'd.json')
    finally:
        tmp_path.chmod(0o755)
    assert which(load(tmp_path / 'd.json')) == 'old'
    told('read-only folder', ['old, and OSError'])


def test_a_file_system_that_cannot_be_written(tmp_path):
    with small_disk(tmp_path):
        save(collection(1.0, 20), tmp_path / 'd.json')
        before = (tmp_path / 'd.json').read_bytes()
        subprocess.run(['mount', '-o', 'remount,ro', tmp_path], check=True)
        with pytest.raises(OSError):
            save(NEW, tmp_path / 'd.json')
        assert (tmp_path / 'd.json').read_bytes() == before
    told('read-only file system', ['old, and OSError'])


@pytest.mark.parametrize('suffix', ['json', 'jsonl', 'msgpack', 'pb'])
def test_two_writers(suffix, tmp_path):
    path, outcomes = tmp_path / f'd.{suffix}', []
    save(OLD, path)
    children = [in_child(lambda some=some: [save(some, path) for _ in range(10)]) for some in (OLD, NEW)]
    for _ in range(10):
        outcomes.append(which(load(path)))
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    outcomes.append(which(load(path)))
    assert not parts(tmp_path)
    told(f'two writers and a reader, .{suffix}', outcomes)


@pytest.mark.parametrize('verb', ['save', 'load', 'write_records'])
def test_interrupted(verb, tmp_path):
    path, rng, outcomes = tmp_path / 'd.jsonl', random.Random(SEED), []
    save(OLD, path)
    work = {
        'save': lambda: save(NEW, path),
        'load': lambda: load(path),
        'write_records': lambda: write_records(path, iter(NEW)),
    }[verb]

    def stop(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        start = time.monotonic()
        work()
        once = time.monotonic() - start
        for _ in range(4 * KILLS):
            save(OLD, path)
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1e-4, rng.random() * once))
                work()
                signal.setitimer(signal.ITIMER_REAL, 0)
                said = 'done'
            except KeyboardInterrupt:
                said = 'interrupted'
            assert gc.isenabled() and not parts(tmp_path)
            outcomes.append(f'{said}, {which(load(path))}')
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    told(f'Ctrl-C, {verb}', outcomes)


def test_what_was_loaded_is_young(tmp_path):
    """It once went to the oldest generation uncounted, so that a program which loads in a loop grew without end."""
    save(OLD, tmp_path / 'd.json')
    gc.collect()
    found = load(tmp_path / 'd.json')
    oldest = set(map(id, gc.get_objects(generation=2)))
    assert not any(id(record) in oldest for record in found)


def test_what_is_replaced_keeps_what_is_not_content(tmp_path):
    path, link = tmp_path / f'{"n" * 240}.json', tmp_path / 'link.json'
    save(OLD, path)
    path.chmod(0o600)
    link.symlink_to(path)
    save(NEW, link)
    assert link.is_symlink() and which(load(path)) == 'new' and path.stat().st_mode & 0o777 == 0o600
    os.mkfifo(tmp_path / 'pipe.json')
    with pytest.raises(SerdeError, match='only regular files are replaced'):
        save(NEW, tmp_path / 'pipe.json')
    with pytest.raises(FileNotFoundError, match='the folder does not exist'):
        save(NEW, tmp_path / 'missing' / 'd.json')


def test_table():
    print('\n' + '\n'.join(TABLE))
