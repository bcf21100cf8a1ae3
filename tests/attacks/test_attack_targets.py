"""What becomes of a file that is replaced: its mode, owner, names and kind; and of the collector while others read."""

import gc
import os
import stat
import threading

import pytest

import redaction_serde as rs
from redaction_serde import files
from redaction_serde.errors import SerdeError
from redaction_serde.records import gc_paused

from icevision.core import BaseRecord, FilepathRecordComponent
from icevision.data import RecordCollection

IS_ROOT = getattr(os, 'geteuid', lambda: -1)() == 0


def pages(n):
    """A collection of that many records."""
    records = [BaseRecord((FilepathRecordComponent(),)) for _ in range(n)]
    for i, record in enumerate(records):
        record.set_record_id(i)
        record.set_filepath(f'/p/{i}.png')
    return RecordCollection(None).new(records)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def saved(tmp_path):
    """A file with three records."""
    rs.save(pages(3), tmp_path / 'd.json')
    return tmp_path / 'd.json'


@pytest.mark.parametrize('bits', [0o600, 0o640, 0o444, 0o666])
def test_the_mode_is_kept(bits, saved):
    saved.chmod(bits)
    rs.save(pages(1), saved)
    assert mode(saved) == bits and len(rs.load(saved)) == 1


@pytest.mark.skipif(not IS_ROOT, reason='only root gives files away')
def test_the_owner_is_kept(saved):
    os.chown(saved, 12345, 23456)
    saved.chmod(0o640)
    rs.save(pages(1), saved)
    found = saved.stat()
    assert (found.st_uid, found.st_gid, mode(saved)) == (12345, 23456, 0o640) and len(rs.load(saved)) == 1


@pytest.mark.skipif(not IS_ROOT, reason='only root gives files away')
def test_a_group_is_kept_by_whoever_may_keep_no_owner(saved, monkeypatch):
    def fchown(descriptor, owner, group, done=os.fchown):
        if owner != -1:
            raise PermissionError
        done(descriptor, owner, group)

    os.chown(saved, 12345, 23456)
    saved.chmod(0o640)
    monkeypatch.setattr(files.os, 'fchown', fchown)
    rs.save(pages(1), saved)
    assert (saved.stat().st_uid, saved.stat().st_gid, mode(saved)) == (0, 23456, 0o640)


@pytest.mark.skipif(not IS_ROOT, reason='only root gives files away')
@pytest.mark.parametrize('before, after', [(0o640, 0o600), (0o664, 0o644), (0o666, 0o666), (0o660, 0o600)])
def test_another_group_may_do_no_more_than_everybody(before, after, saved, monkeypatch):
    """What the group of the old file could read is not for the writer's group."""

    def fchown(descriptor, owner, group):
        raise PermissionError

    os.chown(saved, 12345, 23456)
    saved.chmod(before)
    monkeypatch.setattr(files.os, 'fchown', fchown)
    rs.save(pages(1), saved)
    assert mode(saved) == after and saved.stat().st_gid != 23456


def test_another_name_of_the_file_keeps_the_old_content(saved, tmp_path):
    os.link(saved, tmp_path / 'other.json')
    rs.save(pages(1), saved)
    assert len(rs.load(saved)) == 1 and len(rs.load(tmp_path / 'other.json')) == 3
    assert saved.stat().st_nlink == (tmp_path / 'other.json').stat().st_nlink == 1


def test_the_target_of_a_link_is_replaced(saved, tmp_path):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'link.json').symlink_to('../d.json')
    rs.save(pages(1), tmp_path / 'folder' / 'link.json')
    assert (tmp_path / 'folder' / 'link.json').is_symlink() and len(rs.load(saved)) == 1


def make_pipe(path):
    os.mkfifo(path)


def make_folder(path):
    path.mkdir()


def make_loop(path):
    path.symlink_to(path.name)


@pytest.mark.parametrize('make', [make_pipe, make_folder, make_loop])
def test_what_is_no_file_is_not_replaced(make, tmp_path):
    make(tmp_path / 'd.json')
    before = os.lstat(tmp_path / 'd.json')
    with pytest.raises((SerdeError, OSError)):
        rs.save(pages(1), tmp_path / 'd.json')
    assert os.lstat(tmp_path / 'd.json').st_mode == before.st_mode and os.listdir(tmp_path) == ['d.json']


@pytest.mark.parametrize('n', [200, 220, 240, 255])
def test_long_names(n, tmp_path):
    path = tmp_path / ('n' * (n - 5) + '.json')
    rs.save(pages(1), path)
    assert len(rs.load(path)) == 1 and os.listdir(tmp_path) == [path.name]


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(OSError):
        rs.save(pages(1), tmp_path / ('n' * 300 + '.json'))
    assert os.listdir(tmp_path) == []


def test_threads_that_write_one_file(saved):
    """Each reads what one of them has written whole, and the collector is on when all have ended."""
    collections, errors = [pages(20), pages(30)], []

    def work(k):
        try:
            for _ in range(8):
                rs.save(collections[k % 2], saved)
                assert len(rs.load(saved)) in (20, 30)
                assert len(rs.loads(rs.dumps(collections[0], 'jsonl'))) == 20
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and gc.isenabled() and os.listdir(saved.parent) == ['d.json']


def test_a_collector_that_was_off_stays_off(saved):
    gc.disable()
    try:
        rs.load(saved)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_pauses_of_threads_that_overlap():
    """The first to begin ends first: the collector comes back with the last of them."""
    begun, end = threading.Event(), threading.Event()

    def pause():
        with gc_paused():
            begun.set()
            end.wait()

    thread = threading.Thread(target=pause)
    with gc_paused():
        thread.start()
        begun.wait()
    assert not gc.isenabled()
    end.set()
    thread.join()
    assert gc.isenabled()


def test_a_file_may_be_written_from_itself(tmp_path):
    path = tmp_path / 'd.jsonl'
    rs.save(pages(300), path)
    rs.write_records(path, rs.iter_records(path))
    assert len(rs.load(path)) == 300


@pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='nobody counts open files here')
def test_readers_that_were_begun_and_dropped_close_their_files(tmp_path):
    path = tmp_path / 'd.jsonl'
    rs.save(pages(3), path)
    before = len(os.listdir('/proc/self/fd'))
    begun = [rs.iter_records(path) for _ in range(50)]
    for records in begun:
        next(records)
    del begun, records
    gc.collect()
    assert len(os.listdir('/proc/self/fd')) == before
