"""`redaction-serde dataset`: files become one data set, once, and a question in SQL sees its shards and nothing else."""

import sys
from pathlib import Path

import pytest

import redaction_serde as rs
from redaction_serde import cli
from redaction_serde.lessons.pages import make_documents
from redaction_serde.lessons.timing import made


@pytest.fixture(scope='module')
def coco_file(tmp_path_factory):
    return make_documents(tmp_path_factory.mktemp('pages'), n_pages=5, seed=0)


@pytest.fixture(scope='module')
def parquet(coco_file, tmp_path_factory):
    pytest.importorskip('duckdb'), pytest.importorskip('pyarrow')
    folder = tmp_path_factory.mktemp("it's [a] s*") / 'set'
    assert run('write', coco_file, folder, '--format', 'parquet', '--shard', 2) == 0
    return folder


def run(*args):
    return cli.main(['dataset', *map(str, args)])


def refused(capsys, *args):
    "What a command that cannot be done says."
    capsys.readouterr()
    assert run(*args) == 2
    said = capsys.readouterr()
    assert not said.out and said.err.startswith('redaction-serde: ') and said.err.count('\n') == 1
    return said.err


# ---------------------------------------------------------------- write, append


def test_files_of_each_kind_become_one_data_set(coco_file, tmp_path, capsys):
    ours, folder = tmp_path / 'ours.msgpack.gz', tmp_path / 'set'
    collection = made(3, 2)
    collection.made_by = 'hand'
    rs.save(collection, ours)
    assert run('write', coco_file, ours, folder, '--shard', 2) == 0
    assert '8 records' in capsys.readouterr().out
    with rs.open_dataset(folder, verify='now') as dataset:
        assert [shard.records for shard in dataset.manifest.shards] == [2, 2, 1, 2, 1]
        assert rs.load(dataset.paths[-1]).made_by == 'hand'
        paths = [record.filepath for record in dataset]
    assert cli.main(['convert', str(coco_file), str(tmp_path / 'a.json')]) == 0
    assert paths[:5] == [record.filepath for record in rs.load(tmp_path / 'a.json')]


def test_a_data_set_is_replaced_only_by_force(coco_file, tmp_path, capsys):
    ours, folder = tmp_path / 'ours.json', tmp_path / 'set'
    rs.save(made(3, 2), ours)
    assert run('write', coco_file, folder) == 0
    manifest = Path(folder, 'manifest.json').read_bytes()
    assert '--force replaces it' in refused(capsys, 'write', ours, folder)
    assert Path(folder, 'manifest.json').read_bytes() == manifest
    assert run('write', ours, folder, '--force') == 0 and len(rs.open_dataset(folder)) == 3


def test_nothing_is_added_twice(coco_file, tmp_path, capsys):
    ours, folder = tmp_path / 'ours.json', tmp_path / 'set'
    rs.save(made(3, 2), ours)
    assert run('write', coco_file, folder) == 0
    assert run('append', ours, coco_file, folder) == 0
    said = capsys.readouterr().out
    assert 'annotations.json is in it already' in said and '3 records added' in said
    assert run('append', coco_file, folder, '--only', 'boxes') == 0  # is something else
    assert len(rs.open_dataset(folder)) == 13


def test_a_write_goes_on_where_it_was(coco_file, tmp_path, monkeypatch, capsys):
    "The second file cannot be read; when that is put right, the first is not read again."
    bad, folder = tmp_path / 'bad.json', tmp_path / 'set'
    rs.save(made(3, 2), bad)
    good = bad.read_bytes()
    bad.write_bytes(good.replace(b'"records"', b'"rekords"', 1))
    assert 'bad.json' in refused(capsys, 'write', coco_file, bad, folder)
    assert not Path(folder, 'manifest.json').exists()
    bad.write_bytes(good)
    monkeypatch.setattr(cli, 'document_of_coco', None)
    assert run('write', coco_file, bad, folder) == 0 and len(rs.open_dataset(folder)) == 8


def test_what_cannot_be_written_is_said(coco_file, tmp_path, capsys):
    ours, embedded, folder = tmp_path / 'ours.json', tmp_path / 'embedded.json', tmp_path / 'set'
    rs.save(made(3, 2), ours)
    rs.save(rs.read_coco(coco_file, coco_file.parent / 'images'), embedded, images='embed')
    assert 'given twice' in refused(capsys, 'write', ours, ours, folder)
    assert '--only is for COCO' in refused(capsys, 'write', ours, folder, '--only', 'boxes')
    assert 'carries images' in refused(capsys, 'write', embedded, folder)
    assert 'shard_records' in refused(capsys, 'write', ours, folder, '--shard', 0)
    assert 'No such file' in refused(capsys, 'write', tmp_path / 'none.json', folder)
    assert 'there is no data set here' in refused(capsys, 'append', ours, folder)


# ---------------------------------------------------------------- info, verify


def test_info_and_verify(coco_file, tmp_path, capsys):
    folder = tmp_path / 'set\x1b[2K'
    assert run('write', coco_file, folder, '--shard', 2) == 0
    assert run('info', folder) == 0 and run('verify', folder) == 0
    said = capsys.readouterr().out
    assert '5 records' in said and 'every byte is as it was written' in said and '\x1b' not in said
    shard = rs.open_dataset(folder).paths[1]
    shard.write_bytes(shard.read_bytes().replace(b'0', b'1', 1))
    assert run('info', folder) == 0
    capsys.readouterr()
    assert shard.name in refused(capsys, 'verify', folder)


def test_info_of_many_shards_is_short(coco_file, tmp_path, capsys):
    ours = tmp_path / 'ours.json'
    rs.save(made(20, 1), ours)
    assert run('write', ours, tmp_path / 'set', '--shard', 1) == 0
    capsys.readouterr()
    assert run('info', tmp_path / 'set') == 0 and '… and 8 more' in capsys.readouterr().out


# ---------------------------------------------------------------- query


def asked(capsys, folder, sql, *options):
    capsys.readouterr()
    assert run('query', folder, sql, *options) == 0
    return capsys.readouterr().out.splitlines()


def test_a_query_sees_every_record(parquet, capsys):
    dataset = rs.open_dataset(parquet)
    assert asked(capsys, parquet, 'SELECT count(*) AS n FROM records') == ['n', '-', '5']
    boxes = sum(shard.boxes for shard in dataset.manifest.shards)
    assert asked(capsys, parquet, 'SELECT sum(len(label)) AS n FROM records')[2] == str(boxes)
    assert asked(capsys, parquet, 'DESCRIBE records')[2].split()[0] == 'record_id'


def test_a_query_that_has_many_answers_is_cut(parquet, capsys):
    said = asked(capsys, parquet, 'FROM range(100)', '--rows', 3)
    assert said[2:] == ['0', '1', '2', '… and more; --rows 30 shows more']
    assert len(asked(capsys, parquet, 'FROM range(3)', '--rows', 3)) == 5
    assert '--rows' in refused(capsys, 'query', parquet, 'FROM records', '--rows', 0)


def test_what_a_query_shows_is_printable(parquet, capsys):
    said = asked(capsys, parquet, "SELECT chr(27) || '[2K' AS \"a\x1b[2K\", repeat('x', 1000), NULL, '\\x1B'::BLOB")
    assert not any('\x1b' in line for line in said) and max(map(len, said)) < 200


REFUSED = [
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM read_parquet('{other}')",
    "SELECT * FROM read_parquet('http://127.0.0.1:9/x.parquet')",
    'SELECT * FROM paths',  # a variable of ours
    "COPY records TO '{folder}/mine.csv'",
    "COPY (SELECT 1 AS a) TO '{shard}' (FORMAT parquet, USE_TMP_FILE false)",
    "ATTACH '{folder}/mine.db'",
    'INSTALL httpfs',
    'SET enable_external_access = true',
    'EXPLAIN ANALYZE SELECT 1',
    'CREATE TABLE mine AS SELECT 1',
    'SELECT 1; SELECT 2',
    'SELECT',
    '',
]


@pytest.mark.parametrize('sql', REFUSED)
def test_a_query_reads_nothing_else(sql, parquet, tmp_path, capsys):
    import pyarrow
    import pyarrow.parquet

    other = tmp_path / 'other.parquet'
    pyarrow.parquet.write_table(pyarrow.table({'a': [1]}), other)
    shard = str(rs.open_dataset(parquet).paths[0]).replace("'", "''")
    refused(capsys, 'query', parquet, sql.format(other=other, folder=tmp_path, shard=shard))
    assert [path.name for path in tmp_path.iterdir()] == ['other.parquet']
    rs.open_dataset(parquet).verify()


def test_duckdb_itself_is_locked(parquet):
    "Whoever has the connection gets no further than the question does."
    import duckdb

    for sql in REFUSED[:7] + REFUSED[9:12]:
        with cli.connect_to(rs.open_dataset(parquet).paths) as connection, pytest.raises(duckdb.Error):
            connection.execute(sql.format(other='/etc/passwd', folder='/tmp')).fetchall()


def test_shards_are_verified_before_they_are_asked(coco_file, tmp_path, capsys):
    folder = tmp_path / 'set'
    assert run('write', coco_file, folder, '--format', 'parquet') == 0
    (shard,) = rs.open_dataset(folder).paths
    data = shard.read_bytes()
    last = len(data) - 9 - int.from_bytes(data[-8:-4], 'little')  # of the pages; the footer is behind it
    shard.write_bytes(data[:last] + bytes([data[last] ^ 1]) + data[last + 1 :])
    assert 'this shard is damaged' in refused(capsys, 'query', folder, 'SELECT 1')
    assert asked(capsys, folder, 'SELECT count(*) FROM records', '--no-verify')[2] == '5'


def test_remedies(coco_file, tmp_path, parquet, capsys, monkeypatch):
    folder, empty = tmp_path / 'set', tmp_path / 'empty'
    assert run('write', coco_file, folder) == 0
    assert '--format parquet' in refused(capsys, 'query', folder, 'SELECT 1')
    rs.write_dataset([], empty, format='parquet')
    assert 'no records' in refused(capsys, 'query', empty, 'SELECT 1')
    monkeypatch.setitem(sys.modules, 'duckdb', None)
    assert 'pip install duckdb' in refused(capsys, 'query', parquet, 'SELECT 1')
