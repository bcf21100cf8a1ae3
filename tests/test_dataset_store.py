"""A data set in a store is the old one or the new one, whole, whatever request fails; and what is wrong with it has a name."""

import os
import pickle
import random
import socket
import subprocess
import sys

import pytest
import shard_work as work
from test_dataset import check_that_the_second_writer_is_told, edited_text, numbered, page
from test_faults import in_child
from test_opened import same
from test_round_trip import alike

import redaction_serde as rs
from redaction_serde import cli
from redaction_serde.errors import DecodeError, EncodeError, LimitError, Limits, SerdeError
from redaction_serde.lessons.cases import CASES
from redaction_serde.shards import map_shards, reduce_shards
from redaction_serde.storage import _PASSWORD, _QUERY, Folder, folder_at
from redaction_serde.wire.registry import decode

fsspec = pytest.importorskip('fsspec')
MemoryFileSystem = fsspec.get_filesystem_class('memory')

URL = 'faulty://set'
SECRET = 'never-to-be-shown'


class Faulty(MemoryFileSystem):
    """A store whose n-th request of some sort fails: before it has an effect, or when only the answer is lost."""

    protocol = 'faulty'
    store, pseudo_dirs = {}, ['']
    requests, fails = [], {}  # verb -> the request of it that fails, and whether it has its effect

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace('faulty://', 'memory://'))

    def _request(self, verb, act):
        self.requests.append(verb)
        number, with_effect = self.fails.get(verb, (0, False))
        if self.requests.count(verb) != number:
            return act()
        if with_effect:
            act()
        raise RuntimeError(f'the connection is lost, {SECRET}')

    def pipe_file(self, path, value, mode='overwrite', **options):
        put = super().pipe_file
        verb = 'manifest' if path.endswith('manifest.json') else 'note' if '/parts/' in path else 'shard'
        return self._request(verb, lambda: put(path, value, mode=mode, **options))

    def cat_file(self, path, *args, **options):
        get = super().cat_file
        return self._request('get', lambda: get(path, *args, **options))

    def info(self, path, **options):
        ask = super().info
        return self._request('info', lambda: ask(path, **options))

    def ls(self, path, *args, **options):
        ask = super().ls
        return self._request('ls', lambda: ask(path, *args, **options))


@pytest.fixture(autouse=True)
def faulty():
    fsspec.register_implementation('faulty', Faulty, clobber=True)
    Faulty.store.clear(), Faulty.requests.clear(), Faulty.fails.clear()
    Faulty.pseudo_dirs[:] = ['']
    yield Faulty
    Faulty.fails.clear()


def failing(**fails):
    """The next request of a verb that fails, by its number from 1, and whether it has its effect."""
    Faulty.requests.clear()
    Faulty.fails.clear()
    Faulty.fails.update(fails)


def ids(url=URL, **options):
    opened = rs.open_dataset(url, **options)
    assert [record.record_id for record in opened] == opened.ids
    return opened.ids


def names(inside='shards'):
    return sorted(path.rpartition('/')[2] for path in Faulty.store if f'/{inside}/' in path)


def stored(k=0, url=URL):
    """The path of a shard in the store."""
    return f'/set/shards/{rs.open_dataset(url, verify=False).manifest.shards[k].sha256}.jsonl'


# ---------------------------------------------------------------- the same as in a folder


@pytest.mark.parametrize('format', ['jsonl', 'msgpack', 'json.gz'])
def test_the_same_bytes_as_in_a_folder(format, tmp_path):
    rs.write_dataset(alike(9), tmp_path, format=format, shard_records=4)
    rs.write_dataset(alike(9), URL, format=format, shard_records=4)
    there = {path.removeprefix('/set/'): file.getvalue() for path, file in Faulty.store.items()}
    assert there == {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
    opened = rs.open_dataset(URL, verify='now')
    assert same(opened, alike(9)) and same(opened[::-2], alike(9)[::-2])
    assert opened.find(opened.ids[5]).record_id == opened.ids[5] and opened.raw(-1) == opened.raw(8)
    assert all(path.startswith('faulty://set/shards/') for path in opened.paths)
    opened.verify()


@pytest.mark.parametrize('name', CASES)
def test_cases(name):
    collection = CASES[name]()
    if isinstance(collection, list):
        with pytest.raises(EncodeError, match='expected a BaseRecord'):
            rs.write_dataset(collection, URL)
        return
    try:
        rs.dumps(collection, 'jsonl')
    except SerdeError:
        with pytest.raises(SerdeError):
            rs.write_dataset(collection, URL, shard_records=2)
        return
    rs.write_dataset(collection, URL, shard_records=2)
    assert same(rs.open_dataset(URL), list(collection))


def test_changes():
    rng = random.Random(0)
    rs.write_dataset(numbered(20), URL, shard_records=7)
    opened, model, next_id = rs.open_dataset(URL), list(range(20)), 20
    for _ in range(20):
        if rng.random() < 0.4:
            n = rng.randrange(9)
            assert opened.append(numbered(n, next_id), shard_records=4) == n
            model += range(next_id, next_id + n)
            next_id += n
        elif rng.random() < 0.8:
            wanted = set(rng.sample(range(len(model)), min(rng.randrange(6), len(model))))
            assert opened.remove(wanted) == len(wanted)
            model = [x for i, x in enumerate(model) if i not in wanted]
        else:
            opened.vacuum()
            assert names() == sorted({path.rpartition('/')[2] for path in opened.paths})
        assert opened.ids == model == ids(verify='now')


def test_a_file_url_is_a_folder(tmp_path):
    url = (tmp_path / 'a set').as_uri()
    rs.write_dataset(numbered(3), url)
    assert ids(tmp_path / 'a set') == ids(url) == [0, 1, 2]
    assert type(folder_at(url)) is Folder


# ---------------------------------------------------------------- requests


def test_a_shard_is_one_request_and_the_manifest_comes_last():
    rs.write_dataset(numbered(9), URL, shard_records=3)
    puts = [verb for verb in Faulty.requests if verb in ('shard', 'note', 'manifest')]
    assert puts == ['shard'] * 3 + ['manifest']


def test_sizes_come_from_one_listing():
    rs.write_dataset(numbered(50), URL, shard_records=1)
    Faulty.requests.clear()
    opened = rs.open_dataset(URL)
    assert Faulty.requests == ['info', 'get', 'ls']
    Faulty.requests.clear()
    opened[7], opened[7], opened.raw(7)
    assert Faulty.requests == ['info', 'get']


def test_a_few_shards_are_held():
    rs.write_dataset(numbered(30), URL, shard_records=3)
    opened = rs.open_dataset(URL)
    order = random.Random(0).sample(range(30), 30)
    assert [opened[i].record_id for i in order] == order
    assert len(opened._source._sources) == opened._source.folder.most_open == 4
    Faulty.requests.clear()
    assert [record.record_id for record in opened[12:]] == list(range(12, 30))
    assert Faulty.requests.count('get') <= 6
    opened.close()
    with pytest.raises(SerdeError, match='closed'):
        opened[0]


# ---------------------------------------------------------------- a store that goes away


STAGES = {
    'before the first shard': ('shard', 1),
    'in a shard': ('shard', 4),
    'at a note': ('note', 2),
    'under the condition': ('ls', 1),
    'at the manifest': ('manifest', 1),
}


@pytest.mark.parametrize('lost', [False, True], ids=['no effect', 'answer lost'])
@pytest.mark.parametrize('append', [True, False], ids=['append', 'write'])
@pytest.mark.parametrize('stage', STAGES)
def test_every_stage_of_a_failing_write(stage, append, lost):
    made = []

    def part(k):
        return rs.Part(f'input {k}', lambda: made.append(k) or numbered(4, 10 * k))

    rs.write_dataset(numbered(3), URL, shard_records=2)
    opened = rs.open_dataset(URL)
    verb, number = STAGES[stage]
    some = [part(k) for k in (1, 2, 3)]

    def write(into):
        return into.append(some, shard_records=2) if append else rs.write_dataset(some, URL, shard_records=2)

    failing(**{verb: (number, lost)})
    with pytest.raises(SerdeError, match='the store cannot be .*RuntimeError.*See that it can be reached') as e:
        write(opened)
    assert SECRET not in str(e.value) and 'faulty://set/' in str(e.value)
    failing()
    new = [*range(10, 14), *range(20, 24), *range(30, 34)]
    new = [0, 1, 2, *new] if append else new
    is_new = lost and stage == 'at the manifest'
    assert ids(verify='now') == (new if is_new else [0, 1, 2])
    write(rs.open_dataset(URL))
    assert ids(verify='now') == new
    assert len(made) - 3 <= 1 and (len(made) == 3 or 'shard' in stage or 'note' in stage)
    opened = rs.open_dataset(URL)
    opened.vacuum()
    assert names() == sorted(path.rpartition('/')[2] for path in opened.paths) and not names('parts')


@pytest.mark.parametrize('verb, act', [
    ('info', lambda: rs.open_dataset(URL)),
    ('get', lambda: rs.open_dataset(URL)),
    ('ls', lambda: rs.open_dataset(URL)),
    ('get', lambda: rs.open_dataset(URL, verify='now').verify()),
])  # fmt: skip
def test_a_store_that_cannot_be_read(verb, act):
    rs.write_dataset(numbered(3), URL)
    failing(**{verb: (1, False)})
    with pytest.raises(SerdeError, match='the store cannot be read') as e:
        act()
    assert not isinstance(e.value, DecodeError) and SECRET not in str(e.value)


def test_a_record_that_cannot_be_fetched_names_its_shard():
    rs.write_dataset(numbered(6), URL, shard_records=3)
    opened = rs.open_dataset(URL)
    opened[0]
    failing(get=(1, False))
    assert opened[1].record_id == 1  # it is held
    with pytest.raises(SerdeError, match=opened.manifest.shards[1].sha256):
        opened[4]
    assert opened[4].record_id == 4  # the connection is back


# ---------------------------------------------------------------- two writers


def test_the_second_of_two_writers_is_told():
    check_that_the_second_writer_is_told(URL)


@pytest.mark.parametrize('begun', [True, False], ids=['another manifest', 'the first'])
def test_a_writer_between_look_and_replacement(begun, monkeypatch):
    """The other one writes when the first has looked, and nothing but the store can tell."""
    from redaction_serde import datasets

    if begun:
        rs.write_dataset(numbered(1, 5), URL)
    check_there = datasets._check_there

    def slowly(*args):
        monkeypatch.setattr(datasets, '_check_there', check_there)
        rs.write_dataset(numbered(1, 7), URL)
        check_there(*args)

    monkeypatch.setattr(datasets, '_check_there', slowly)
    with pytest.raises(SerdeError, match='another writer has changed'):
        rs.write_dataset(numbered(1, 9), URL)
    assert ids() == [7]


def test_two_who_write_the_same_are_both_right(monkeypatch):
    from redaction_serde import datasets

    check_there = datasets._check_there

    def slowly(*args):
        monkeypatch.setattr(datasets, '_check_there', check_there)
        rs.write_dataset(numbered(3), URL)
        check_there(*args)

    monkeypatch.setattr(datasets, '_check_there', slowly)
    assert rs.write_dataset(numbered(3), URL) == 3 and ids() == [0, 1, 2]


def test_a_vacuum_during_a_write_is_noticed():
    rs.write_dataset(numbered(3), URL)
    opened = rs.open_dataset(URL)

    def coming():
        yield from numbered(4, 10)
        rs.open_dataset(URL).vacuum()

    with pytest.raises(DecodeError, match='gone'):
        opened.append(coming(), shard_records=2)
    assert ids() == [0, 1, 2] and opened.append(numbered(1, 10)) == 1


def test_who_has_it_open_is_told_of_a_vacuum():
    rs.write_dataset(numbered(10), URL, shard_records=5)
    before, now = rs.open_dataset(URL), rs.open_dataset(URL)
    gone = now.manifest.shards[0].sha256
    now.remove([0])
    now.vacuum()
    with pytest.raises(DecodeError, match=f'this shard is gone.*open that again.*{gone}'):
        before[1]
    assert before[5].record_id == 5
    with pytest.raises(SerdeError, match='has changed since it was opened'):
        before.verify()


# ---------------------------------------------------------------- what is damaged, and what is hostile


def put(path, data):
    MemoryFileSystem.pipe_file(Faulty(), path, data)


@pytest.mark.parametrize('format', ['jsonl', 'msgpack'])
def test_any_flipped_bit_of_a_shard_is_named(format):
    rs.write_dataset(alike(9), URL, format=format, shard_records=3)
    rng, opened = random.Random(0), rs.open_dataset(URL)
    name = opened.paths[1].removeprefix('faulty://set/')
    path = f'/set/{name}'
    whole = Faulty.store[path].getvalue()
    for cut in (False, True) * 10:
        i = rng.randrange(len(whole))
        put(path, whole[:i] if cut else whole[:i] + bytes([whole[i] ^ 1 << rng.randrange(8)]) + whole[i + 1 :])
        with pytest.raises(DecodeError, match='this shard is damaged.*write its records again') as e:
            opened.verify()
        assert e.value.path == name and len(e.value.problems) == 1
        with pytest.raises(DecodeError, match=name):
            rs.open_dataset(URL, verify='now')
        if cut:
            continue
        lazily = rs.open_dataset(URL)
        assert lazily[0] and lazily[8]
        for read in (lazily.__getitem__, lazily.raw):
            with pytest.raises(DecodeError, match=name):
                read(4)
    for data in (b'', whole + b' '):
        put(path, data)
        with pytest.raises(DecodeError, match=f'expected {len(whole)} bytes, found {len(data)}.*{name}'):
            rs.open_dataset(URL)
    rs.write_dataset(alike(9), URL, format=format, shard_records=3)
    rs.open_dataset(URL).verify()


def test_what_was_compared_is_compared_again_when_it_is_fetched_again(monkeypatch):
    rs.write_dataset(numbered(6), URL, shard_records=3)
    opened = rs.open_dataset(URL, verify='now')
    packed = pickle.dumps(opened)
    path = stored()
    put(path, Faulty.store[path].getvalue().replace(b'"record_id":1', b'"record_id":7'))
    assert ids(verify=False) == [0, 7, 2, 3, 4, 5]
    for again in (opened, pickle.loads(packed)):
        with pytest.raises(DecodeError, match='SHA-256'):
            again[1]


def test_a_damaged_shard_of_a_finished_part_is_made_again():
    def part():
        return [rs.Part('a', lambda: numbered(3))]

    rs.write_dataset(part(), URL)
    whole = Faulty.store[stored()].getvalue()
    put(stored(), whole[:-1] + b' ')
    rs.write_dataset(part(), URL)
    assert Faulty.store[stored()].getvalue() == whole


def test_shards_that_are_gone_are_all_named():
    rs.write_dataset(numbered(9), URL, shard_records=3)
    opened = rs.open_dataset(URL)
    for path in opened.paths[::2]:
        Faulty.store.pop(path.removeprefix('faulty:/'))
    for act in (opened.verify, lambda: rs.open_dataset(URL, verify=False)):
        with pytest.raises(DecodeError, match='2 problems.*\n.*gone') as e:
            act()
        assert [f'faulty://set/{p.path}' for p in e.value.problems] == opened.paths[::2]


def test_any_flipped_bit_of_the_manifest_is_noticed():
    rs.write_dataset(numbered(9), URL, shard_records=3)
    opened, path = rs.open_dataset(URL), '/set/manifest.json'
    whole = Faulty.store[path].getvalue()
    for i in range(0, len(whole), 3):
        put(path, whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        with pytest.raises(SerdeError):
            opened.verify()
        try:
            assert rs.open_dataset(URL).manifest == opened.manifest  # only white space was another
        except SerdeError as e:
            assert str(e)


@pytest.mark.parametrize('change, message', [
    ({'sha256': '../../../etc/passwd'}, '64 hexadecimal digits'),
    ({'sha256': '0' * 64}, 'this shard is gone.*shards/0000'),
    ({'bytes': 10**15}, 'over the limit'),
    ({'bytes': 0}, 'expected 0 bytes, found'),
    ({'records': 4}, 'the manifest says 4 records, found 3'),
])  # fmt: skip
def test_hostile_manifests(change, message):
    rs.write_dataset(numbered(6), URL, shard_records=3)
    put('/set/manifest.json', edited_text(Faulty.store['/set/manifest.json'].getvalue(), change))
    with pytest.raises(DecodeError, match=message):
        rs.open_dataset(URL)[0]


def test_limits():
    rs.write_dataset(numbered(9), URL, shard_records=3)
    for limits in (Limits(bytes=10), Limits(records=2)):
        with pytest.raises(LimitError):
            rs.open_dataset(URL, limits=limits)[0]
    put('/set/manifest.json', b' ' * 1000)
    with pytest.raises(LimitError, match='raise Limits'):
        rs.open_dataset(URL, limits=Limits(bytes=999))
    put('/set/manifest.json', b'')
    with pytest.raises(DecodeError, match='not the manifest'):
        rs.open_dataset(URL)


# ---------------------------------------------------------------- what a store is told


def test_the_command_line_takes_a_url(capsys):
    for format in ('jsonl', 'parquet'):
        rs.write_dataset(alike(9), URL, format=format, shard_records=4)
        for command in ('info', 'verify'):
            assert cli.main(['dataset', command, URL]) == 0
            assert 'faulty://set: 9 records' in capsys.readouterr().out
    assert cli.main(['dataset', 'query', URL, 'SELECT 1']) != 0
    assert 'copy the data set to a folder of this machine' in capsys.readouterr().err


def test_there_is_nothing_there():
    with pytest.raises(FileNotFoundError, match='there is no data set here'):
        rs.open_dataset('faulty://nothing')
    put('/set/manifest.json', b'{"name":"an app"}')
    with pytest.raises(EncodeError, match='choose another folder'):
        rs.write_dataset(numbered(1), URL)


@pytest.mark.parametrize('missing', ['fsspec', 's3fs'])
def test_what_is_not_installed_has_a_name(missing):
    code = f"""
import sys
sys.modules[{missing!r}] = None
import redaction_serde as rs
try:
    rs.open_dataset('s3://bucket/set')
except rs.SerdeError as e:
    print(e)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert 'not installed' in done.stdout and "pip install 'redaction_serde[s3]'" in done.stdout, done.stderr
    assert done.stdout.strip().endswith('- at `s3://bucket/set`')


def test_stores_are_imported_for_a_url_only(tmp_path):
    code = f"""
import sys, redaction_serde as rs
rs.write_dataset, rs.open_dataset
from redaction_serde.storage import folder_at
folder_at({str(tmp_path)!r})
print([m for m in ('fsspec', 's3fs', 'botocore', 'aiohttp') if m in sys.modules])
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stdout + done.stderr


def test_credentials_are_in_no_message_and_in_no_file():
    options = {'secret': SECRET}
    rs.write_dataset(numbered(3), URL, storage_options=options)
    opened = rs.open_dataset(URL, storage_options=options)
    assert all(SECRET.encode() not in file.getvalue() for file in Faulty.store.values())
    assert SECRET not in repr(opened) + repr(opened[:1]) + str(opened.paths)
    for password in (SECRET, f'{SECRET}/and@more', f'/{SECRET}'):
        with pytest.raises(SerdeError, match='a password must not stand in a URL') as e:
            rs.open_dataset(f'sftp://me:{password}@host/set')
        assert SECRET not in str(e.value)


@pytest.mark.parametrize('query', ['token={}', 'X-Amz-Signature={}&x=1', 'part=1&sig={}', 'a/b?token={}'])
def test_a_query_is_in_no_message_either(query):
    with pytest.raises(SerdeError, match='a query .* must not stand in the URL of a folder') as e:
        rs.open_dataset('https://host/set?' + query.format(SECRET))
    assert SECRET not in str(e.value)


def test_a_port_is_no_password_and_a_question_mark_no_query():
    assert _PASSWORD.search('sftp://host:22/pages@2x') is None
    assert _QUERY.search('s3://bucket/what?/pages=2') is None


@pytest.mark.parametrize('answer', [{}, {'type': 'file'}, {'type': 'file', 'name': 7, 'size': 1}, None])
def test_a_store_that_answers_nonsense_is_one_that_cannot_be_asked(answer, monkeypatch):
    rs.write_dataset(numbered(3), URL)
    monkeypatch.setattr(Faulty, 'ls', lambda self, path, **options: [answer])
    with pytest.raises(SerdeError, match='the store cannot be read'):
        rs.open_dataset(URL)
    monkeypatch.undo()
    monkeypatch.setattr(Faulty, 'info', lambda self, path, **options: answer and {})
    with pytest.raises(SerdeError, match='the store cannot be read'):
        rs.open_dataset(URL)


# ---------------------------------------------------------------- S3


class S3:
    """moto's S3 server in a thread: it can be stopped, and started with what it had."""

    def __init__(self):
        with socket.create_server(('127.0.0.1', 0)) as s:
            self.port = s.getsockname()[1]
        self.where = dict(endpoint_url=f'http://127.0.0.1:{self.port}', region_name='us-east-1')
        self.options = dict(
            key='key',
            secret=SECRET,
            client_kwargs=self.where,
            config_kwargs=dict(retries=dict(max_attempts=1), connect_timeout=5, read_timeout=20),
        )
        self.start()

    def start(self):
        from moto.server import ThreadedMotoServer

        self.server = ThreadedMotoServer('127.0.0.1', self.port, verbose=False)
        self.server.start()

    def stop(self):
        self.server.stop()


@pytest.fixture(scope='module')
def server():
    pytest.importorskip('moto', reason='moto is not installed')
    pytest.importorskip('s3fs', reason='s3fs is not installed')
    import boto3

    server = S3()
    server.client = boto3.client('s3', **server.where, aws_access_key_id='key', aws_secret_access_key=SECRET)
    server.client.create_bucket(Bucket='pages')
    yield server
    server.stop()


@pytest.fixture
def s3(server, monkeypatch):
    """The server, empty."""
    monkeypatch.setattr(fsspec.get_filesystem_class('s3'), 'retries', 1)
    for entry in server.client.list_objects_v2(Bucket='pages').get('Contents', []):
        server.client.delete_object(Bucket='pages', Key=entry['Key'])
    return server


ON_S3 = 's3://pages/some/set'


def test_s3(s3, tmp_path):
    rs.write_dataset(alike(9), tmp_path, shard_records=4)
    rs.write_dataset(alike(9), ON_S3, shard_records=4, storage_options=s3.options)
    for entry in s3.client.list_objects_v2(Bucket='pages')['Contents']:
        data = s3.client.get_object(Bucket='pages', Key=entry['Key'])['Body'].read()
        assert (tmp_path / entry['Key'].removeprefix('some/set/')).read_bytes() == data
    opened = rs.open_dataset(ON_S3, verify='now', storage_options=s3.options)
    assert same(opened, alike(9))
    opened.verify()
    assert opened.append(numbered(2)) == 2 and opened.remove([0]) == 1
    assert opened.vacuum() > 0
    fresh = rs.open_dataset(ON_S3, storage_options=s3.options)
    fresh.verify()
    assert same(fresh, [*alike(9)[1:], *numbered(2)])
    assert pickle.loads(pickle.dumps(fresh[2:4])).ids == fresh.ids[2:4]


@pytest.mark.parametrize('begun', [True, False], ids=['another manifest', 'the first'])
def test_s3_itself_refuses_the_second_writer(begun, s3):
    """Both have looked; the store knows that the second one's manifest is of another one."""
    place = folder_at(ON_S3, s3.options)
    if begun:
        place.write('manifest.json', b'old')
    with place.exclusive('manifest.json') as first, place.exclusive('manifest.json') as second:
        first(b'new 1')
        with pytest.raises(FileExistsError, match='somebody else has replaced manifest.json'):
            second(b'new 2')
        second(b'new 1')  # the same: perhaps our own, whose answer was lost
    assert place.read('manifest.json', Limits()) == b'new 1'
    with place.exclusive('manifest.json') as replace:
        place.remove('manifest.json')
        with pytest.raises(FileExistsError):
            replace(b'new 3')
    assert place.size('manifest.json') is None


def test_s3_work_on_shards(s3):
    """What is sent to another process has what it needs to fetch a shard, and to put one."""
    rs.write_dataset(numbered(6), ON_S3, shard_records=3, storage_options=s3.options)
    opened, out = rs.open_dataset(ON_S3, storage_options=s3.options), 's3://pages/some/other'
    stored, draft = pickle.loads(pickle.dumps((opened.stored[1], opened.draft(out))))
    draft.finish(draft.make(rs.Part('a', lambda: work.every_second(decode(stored.read())))))
    assert ids(out, verify='now', storage_options=s3.options) == [3, 5]
    map_shards(opened, work.every_second, out, version='1', takes='rows')
    assert ids(out, verify='now', storage_options=s3.options) == [0, 2, 3, 5]


@pytest.mark.timeout(120)
def test_s3_two_processes(s3):
    """For rows no process imports icevision, which would take longer than all the rest."""
    rs.write_dataset(numbered(12), ON_S3, shard_records=3, storage_options=s3.options)
    opened, out = rs.open_dataset(ON_S3, storage_options=s3.options), 's3://pages/some/other'
    map_shards(opened, work.every_second, out, version='1', takes='rows', processes=2)
    assert ids(out, verify='now', storage_options=s3.options) == [0, 2, 3, 5, 6, 8, 9, 11]
    assert reduce_shards(opened, work.imported, set.union, takes='rows', processes=2) == set()


def test_s3_two_writers(s3):
    rs.write_dataset(numbered(3), ON_S3, storage_options=s3.options)
    first, second = (rs.open_dataset(ON_S3, storage_options=s3.options) for _ in range(2))

    def while_the_other_writes():
        yield page(10)
        first.append([page(11)])

    with pytest.raises(SerdeError, match='another writer has changed'):
        second.append(while_the_other_writes())
    assert ids(ON_S3, storage_options=s3.options) == [0, 1, 2, 11]


def test_s3_bits_and_missing_shards(s3):
    rs.write_dataset(numbered(6), ON_S3, shard_records=3, storage_options=s3.options)
    opened = rs.open_dataset(ON_S3, storage_options=s3.options)
    keys = [path.removeprefix('s3://pages/') for path in opened.paths]
    data = s3.client.get_object(Bucket='pages', Key=keys[0])['Body'].read()
    s3.client.put_object(Bucket='pages', Key=keys[0], Body=data[:-5] + bytes([data[-5] ^ 4]) + data[-4:])
    with pytest.raises(DecodeError, match='SHA-256.*this shard is damaged.*write its records again'):
        opened[0]
    for wrong in (b'', data + b' '):
        s3.client.put_object(Bucket='pages', Key=keys[0], Body=wrong)
        with pytest.raises(DecodeError, match=f'expected {len(data)} bytes, found {len(wrong)}'):
            opened[0]
    s3.client.delete_object(Bucket='pages', Key=keys[1])
    with pytest.raises(DecodeError) as e:
        opened.verify()
    assert [problem.path for problem in e.value.problems] == [key.removeprefix('some/set/') for key in keys]


def test_there_is_no_bucket(s3):
    for url in ('s3://no-such-bucket/set', 's3://no-such-bucket'):
        with pytest.raises(FileNotFoundError, match='make it first'):
            rs.write_dataset(numbered(1), url, storage_options=s3.options)
    assert [bucket['Name'] for bucket in s3.client.list_buckets()['Buckets']] == ['pages']


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork')
def test_a_forked_worker_has_a_connection_of_its_own(s3, tmp_path):
    rs.write_dataset(numbered(6), ON_S3, shard_records=3, storage_options=s3.options)
    opened = rs.open_dataset(ON_S3, storage_options=s3.options)
    opened[0]

    def work():
        (tmp_path / 'found').write_text(str(opened.raw(5).t0.record_id))

    os.waitpid(in_child(work), 0)
    assert (tmp_path / 'found').read_text() == '5' and opened[4].record_id == 4


def test_s3_goes_away_in_mid_write(s3):
    """What was there stays, whole; what had been finished is found again when the store is back."""
    made = []

    def part(k):
        def records():
            made.append(k)
            yield from numbered(3, 10 * k)
            if made == [1, 2]:
                s3.stop()

        return rs.Part(f'input {k}', records)

    def write():
        return rs.write_dataset([part(1), part(2)], ON_S3, shard_records=3, storage_options=s3.options)

    rs.write_dataset(numbered(3), ON_S3, storage_options=s3.options)
    with pytest.raises(SerdeError, match=r'the store cannot be written \(\w+\)\. See that.*s3://pages/some/set') as e:
        write()
    s3.start()
    assert SECRET not in str(e.value)
    assert ids(ON_S3, verify='now', storage_options=s3.options) == [0, 1, 2]
    write()
    assert made == [1, 2, 2] and ids(ON_S3, storage_options=s3.options) == [10, 11, 12, 20, 21, 22]


def test_s3_is_gone(s3):
    rs.write_dataset(numbered(6), ON_S3, shard_records=3, storage_options=s3.options)
    opened = rs.open_dataset(ON_S3, storage_options=s3.options)
    opened[0]
    s3.stop()
    try:
        assert opened[1].record_id == 1
        for act in (lambda: opened[4], opened.verify, lambda: rs.open_dataset(ON_S3, storage_options=s3.options)):
            with pytest.raises(SerdeError, match='the store cannot be read.*See that it can be reached') as e:
                act()
            assert SECRET not in str(e.value) and not isinstance(e.value, DecodeError)
    finally:
        s3.start()
    assert opened[4].record_id == 4
