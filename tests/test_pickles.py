"""Looking into pickles without running them, and moving an old cache out of pickle: what hostile bytes can and cannot do."""

import io
import os
import pickle
import random
import subprocess
import sys
import time
from collections import OrderedDict
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

import processes
import pytest
from warm import warm_python

from redaction_serde import pickles
from redaction_serde.fidelity import compare
from redaction_serde.lessons.tracer import trace
from redaction_serde.pickles import (
    ALLOWED,
    INERT,
    Inert,
    RestrictedUnpickler,
    check_globals,
    globals_of,
    migrate,
    parser_method,
)
from redaction_serde.records import load, parse_coco
from redaction_serde.errors import DecodeError, EncodeError, LimitError, Limits, SerdeError

from icevision.core import BaseRecord, InstancesLabelsRecordComponent, KeyPoints, KeyPointsRecordComponent
from icevision.data import RandomSplitter, RecordCollection
from icevision.parsers import COCOBBoxParser, COCOMaskParser
from icevision.utils import ImgSize

ROOT = Path(__file__).resolve().parent.parent


def names(data):
    return [str(g) for g in globals_of(data)]


def text(s):
    return b'\x8c' + bytes([len(s)]) + s.encode()


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


SYSTEM = f'{os.system.__module__}.system'

# what it is, bytes, the names that must be found, whether something must be reported as unresolved
HOSTILE = {
    'global of protocol 0': (b'cos\nsystem\n(S\'true\'\ntR.', ['os.system'], False),
    'inst': (b'(S\'true\'\nios\nsystem\n.', ['os.system'], False),
    'obj': (b'(cos\nsystem\nS\'true\'\no.', ['os.system'], False),
    'stack global': (
        b'\x80\x04' + text('os') + text('system') + b'\x93' + text('true') + b'\x85R.',
        ['os.system'],
        False,
    ),
    'as bytes that are text': (b'\x80\x04U\x02osU\x06system\x93.', ['os.system'], False),
    'dotted name': (
        b'\x80\x04' + text('collections') + text('OrderedDict.__init__.__globals__') + b'\x93.',
        ['collections.OrderedDict.__init__.__globals__'],
        False,
    ),
    'eval by way of the memo': (
        b'\x80\x04' + text('eval') + b'\x94' + text('builtins') + b'\x940' + b'0h\x01h\x00\x93' + text('1') + b'\x85R.',
        ['builtins.eval'],
        False,
    ),
    'memo overwritten': (
        b'\x80\x04' + text('builtins') + b'q\x00' + text('len') + b'q\x010' + text('eval') + b'q\x0100h\x00h\x01\x93.',
        ['builtins.eval'],
        False,
    ),
    'memoize after a put elsewhere': (
        b'\x80\x04' + text('builtins') + b'q\x07' + text('eval') + b'\x9400h\x07h\x01\x93.',
        ['builtins.eval'],
        False,
    ),
    'text copied by dup': (b'\x80\x04' + text('code') + b'2\x93.', ['code.code'], False),
    'below a mark that is popped': (b'\x80\x04' + text('os') + text('system') + b'(]]1\x93.', ['os.system'], False),
    'mark popped by itself': (b'\x80\x04' + text('os') + b'(0' + text('system') + b'\x93.', ['os.system'], False),
    'second pickle': (pickle.dumps(1) + b'cos\nsystem\n.', ['os.system'], False),
    'after a module with a space': (b'cos system\nx\n.', ['os system.x'], False),
    'name made by a call': (
        b'\x80\x04' + text('os') + b'cbuiltins\nstr\n' + text('system') + b'\x85R\x93.',
        ['builtins.str', 'os.?'],
        True,
    ),
    'module made by a call': (
        b'\x80\x04cbuiltins\nstr\n' + text('os') + b'\x85R' + text('system') + b'\x93.',
        ['builtins.str', '?.system'],
        True,
    ),
    'name in a list': (b'\x80\x04' + text('os') + b']\x93.', ['os.?'], True),
    'place of the memo that was never filled': (b'\x80\x04' + text('os') + b'h\x07\x93.', ['?.?', 'os.?'], True),
    'nothing on the stack': (b'\x80\x04\x93.', ['?.?', '?.?', '?.?'], True),
    'extension code': (b'\x80\x02\x82\x01.', ['?.?'], True),
    'number that only C reads': (b'I0x10\ncos\nsystem\n.', ['?.?'], True),
    # `pickletools` reads such a name as the unpickler does since 3.14, and not at all before
    'name that is not ASCII': (
        'cmödule\nx\n.'.encode(),
        *((['mödule.x'], False) if sys.version_info >= (3, 14) else (['?.?'], True)),
    ),
    'not a pickle behind it': (pickle.dumps(1) + b'\xff\xff', ['?.?'], True),
    'cut': (b'\x80\x04cos\nsystem\n' + text('true')[:-2], ['os.system', '?.?'], True),
    'nothing at all': (b'', ['?.?'], True),
    'huge place in the memo': (b'\x80\x04]r\xff\xff\xff\xff.', [], False),
    'negative place in the memo': (b']p-5\n.', ['?.?'], True),
    'huge length': (b'\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fx.', ['?.?'], True),
    'huge number': (b'\x80\x04\x8b\xff\xff\x00\x00' + b'\x7f' * 65535 + b'.', [], False),
    'deep lists': (b'\x80\x04' + b']' * 50_000 + b'a' * 49_999 + b'.', [], False),
    'deep calls': (b'\x80\x04cbuiltins\nlist\n' + b')R' * 50_000 + b'.', ['builtins.list'], False),
    'many marks': (b'(' * 50_000 + b'.', ['?.?'], True),
    'a list in itself': (b']q\x00h\x00a.', [], False),
}


@pytest.mark.parametrize('case', HOSTILE)
def test_globals_of_hostile(case):
    data, expected, unresolved = HOSTILE[case]
    start = time.monotonic()
    assert names(data) == expected
    assert any(not g.resolved for g in globals_of(data)) == unresolved
    assert time.monotonic() - start < 5
    assert all(len(repr(g)) < 400 for g in globals_of(data))


@pytest.mark.parametrize('case', HOSTILE)
def test_trace_of_hostile(case):
    found = trace(HOSTILE[case][0])
    assert len(repr(found)) < 400 * (len(found) + 2) and len(found._repr_html_()) < 6000 * (len(found) + 2)
    assert found.more == (
        len(found) == 1000
        and HOSTILE[case][0].count(b'R') + HOSTILE[case][0].count(b']') + HOSTILE[case][0].count(b'(') > 1000
    )


@pytest.mark.parametrize('case', [c for c, (_, found, _) in HOSTILE.items() if found])
def test_gate_refuses_hostile(case):
    with pytest.raises(DecodeError) as e:
        check_globals(HOSTILE[case][0], {*ALLOWED, *INERT}, 'old.pkl')
    assert e.value.path.startswith('old.pkl, byte ') and 'Nothing was loaded' in str(e.value)


class Page:
    def __init__(self):
        self.name = 'p'


class PageWithSlots:
    __slots__ = ('name',)

    def __init__(self):
        self.name = 'p'


@pytest.mark.parametrize('protocol', range(6))
def test_honest_pickles_resolve(protocol):
    shared = [
        OrderedDict(a=1),
        {1, 2},
        frozenset([3]),
        (),
        (1,),
        (1, 2, 3, 4),
        b'x',
        bytearray(b'y'),
        'é',
        None,
        True,
        1.5,
        2**70,
        -1,
        PurePosixPath('a'),
        Page(),
        len,
        3j,
    ]
    shared.append(shared)
    if protocol > 1:
        shared.append(PageWithSlots())
    data = pickle.dumps(shared, protocol)
    seen = []

    class Watching(pickle.Unpickler):
        def find_class(self, module, name):
            seen.append(f'{module}.{name}')
            return super().find_class(module, name)

    Watching(io.BytesIO(data)).load()
    assert set(names(data)) == set(seen) and all(g.resolved for g in globals_of(data))
    assert trace(data)[-1].opcode == 'STOP' and not [s for s in trace(data) if 'nothing to take' in s.note]


WORDS = [
    b'\x80\x04',
    b'(',
    b')',
    b']',
    b'}',
    b'\x8f',
    b'0',
    b'1',
    b'2',
    b'N',
    b'\x94',
    b'q\x00',
    b'q\x01',
    b'q\x02',
    b'h\x00',
    b'h\x01',
    b'h\x02',
    b'p3\n',
    b'g3\n',
    b'a',
    b'e',
    b's',
    b'u',
    b'\x90',
    b'\x91',
    b'l',
    b't',
    b'd',
    b'\x85',
    b'\x86',
    b'\x87',
    b'R',
    b'b',
    b'\x81',
    b'\x92',
    b'o',
    b'\x93',
    b'\x93',
    b'\x93',
    b'iosx\ny\n',
    b'cm\nn\n',
    b'K\x01',
    b'I1\n',
    b'J\x01\x00\x00\x00',
    b'.',
    b'\x98',
    b'\x97',
    text('a'),
    text('b'),
    text('c'),
    text('os'),
    b'U\x01d',
    b"S'e'\n",
    b'Vf\n',
    b'X\x01\x00\x00\x00g',
    b'P1\n',
    b'Q',
    b'\x82\x01',
    b'G' + bytes(8),
    b'\x88',
    b'C\x01z',
    b'\x95' + bytes(8),
]


def loads_watched(data, base):
    """Load with nothing but inert objects; what was asked for until it ended."""
    seen = []

    class Watching(base):
        def find_class(self, module, name):
            seen.append(f'{module}.{name}')
            return Inert

        def persistent_load(self, pid):
            return 'pid'

    try:
        Watching(io.BytesIO(data)).load()
    except Exception:
        pass
    return seen


@pytest.mark.parametrize('base', [pickle.Unpickler, pickle._Unpickler], ids=['C', 'Python'])
def test_nothing_that_pickle_imports_is_missed(base):
    """Random programs: whatever a real unpickler asks for is named, or something is reported as unresolved."""
    rng, loaded = random.Random(7), 0
    for _ in range(15_000):
        data = b''.join(rng.choices(WORDS, k=rng.randint(3, 25))) + b'.'
        seen, found = loads_watched(data, base), globals_of(data)
        loaded += bool(seen)
        missed = set(seen) - {str(g) for g in found if g.resolved}
        open_ended = [g.module for g in found if not g.resolved and g.opcode == 'STACK_GLOBAL']
        assert all(any(module is None or m.startswith(module + '.') for module in open_ended) for m in missed), (
            data,
            seen,
            found,
        )
    assert loaded > 300


def test_restricted_unpickler():
    data = pickle.dumps([Call(OrderedDict), 1])
    assert RestrictedUnpickler(io.BytesIO(data), {'collections.OrderedDict': OrderedDict}).load() == [OrderedDict(), 1]
    for case in ('global of protocol 0', 'inst', 'stack global', 'eval by way of the memo', 'dotted name'):
        with pytest.raises(DecodeError, match='not allowed here'):
            RestrictedUnpickler(io.BytesIO(HOSTILE[case][0]), {'collections.OrderedDict': OrderedDict}).load()


def test_nested_getattr_leads_nowhere():
    climb = Call(getattr, Call(getattr, OrderedDict, '__init__'), '__globals__')
    data = pickle.dumps(climb)
    check_globals(data, ALLOWED)  # the names alone are those of any cache
    with pytest.raises(DecodeError, match="'__init__' of a type"):
        RestrictedUnpickler(
            io.BytesIO(data), {'builtins.getattr': parser_method, 'collections.OrderedDict': OrderedDict}
        ).load()
    with pytest.raises(DecodeError):
        parser_method(Inert(), '__class__')


class Balance(HTMLParser):
    """Every tag that is opened is closed, and nothing runs."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        assert tag != 'script' and not [k for k, _ in attrs if k.startswith('on')]
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_trace_is_escaped():
    data = pickle.dumps(['<script>alert(1)</script>', Call(len, '"><img src=x onerror=alert(1)>')])
    html = trace(data)._repr_html_()
    assert '<script' not in html and '<img' not in html
    checked = Balance()
    checked.feed(html)
    assert not checked.open
    assert 'scope="col"' in html and 'scope="row"' in html
    assert '@media' in html and 'overflow-wrap: break-word' in html  # it fits a phone, and long words break


def test_trace_ends_at_its_limit():
    found = trace(pickle.dumps(list(range(5000))), limit=50)
    assert len(found) == 50 and found.more and repr(found).endswith('…')


def test_importing_is_light():
    code = 'import redaction_serde.pickles, sys; print([m for m in ("torch", "icevision", "numpy", "fickling", "cloudpickle", "dill", "fastcore") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True).stdout.strip() == '[]'


CONTAINED = '''
import os, socket, subprocess, sys, ctypes, threading
from redaction_serde.pickles import contain
contain(sys.argv[1], seconds=2, memory=1 << 29, size=1 << 20)
try: {act}
except (PermissionError, MemoryError, OSError) as e: print('refused', type(e).__name__)
else: print('done')
sys.stdout.flush()
os._exit(0)
'''


def contained(act, folder):
    return subprocess.run(
        [sys.executable, '-c', CONTAINED.format(act=act), str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])},
    )


@pytest.mark.skipif(sys.platform == 'win32', reason='commands of POSIX')
@pytest.mark.parametrize(
    'act',
    [
        'open("../out.txt", "w")',
        'open("/etc/passwd")',
        'open(b"../out.txt", "wb")',
        'os.open("../out.txt", os.O_CREAT | os.O_WRONLY)',
        'open(os.getcwd() + "-beside.txt", "w")',
        'open("link/out.txt", "w")',
        'os.remove("inside")',
        'os.rename("inside", "../out.txt")',
        'os.symlink("/etc", "here")',
        'os.mkdir("../out.txt")',
        'os.system("touch ../out.txt")',
        'subprocess.run(["true"])',
        'os.fork()',
        'os.execv("/bin/true", ["true"])',
        'os.posix_spawn("/bin/true", ["true"], {})',
        'os.kill(os.getppid(), 0)',
        'socket.socket()',
        'socket.create_connection(("127.0.0.1", 9))',
        'socket.gethostbyname("localhost")',
        'ctypes.CDLL(None)',
        'import antigravity',
        'exec("1")',
        'bytearray(1 << 30)',
        'open("big", "wb").write(bytes(1 << 21))',
    ],
)
def test_contained(act, tmp_path):
    folder = tmp_path / 'room'
    folder.mkdir()
    (folder / 'inside').write_text('x')
    (folder / 'link').symlink_to(tmp_path)
    assert contained(act, folder).stdout.startswith('refused')
    assert {p.name for p in tmp_path.iterdir()} == {'room'}


@pytest.mark.skipif(sys.platform == 'win32', reason='no such limit')
def test_contained_in_time(tmp_path):
    start = time.monotonic()
    assert contained('sum(range(10**11))', tmp_path).returncode < 0
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    'act', ['open("inside.txt", "w").close()', 'os.stat("/")', 'os.environ.get("HOME")', 'threading.Lock()']
)
def test_not_contained(act, tmp_path):
    assert contained(act, tmp_path).stdout == 'done\n'


@pytest.fixture(scope='module')
def cache(pages_file, tmp_path_factory):
    """A cache as icevision itself writes it, and the splits."""
    path = tmp_path_factory.mktemp('cache') / 'records.pkl'
    return path, COCOMaskParser(str(pages_file), str(pages_file.parent / 'images')).parse(
        RandomSplitter([0.5, 0.5], seed=1), autofix=False, show_pbar=False, cache_filepath=path
    )


@pytest.fixture
def warm(monkeypatch):
    """The process of `migrate` begins with icevision imported: of a test that is about the cache, not about that process."""

    def command():
        executable, isolated, *warnings, how, code, places = started()
        return [*warm_python(*processes.MODULES), how, code, places]

    started = pickles._command
    monkeypatch.setattr(pickles, '_command', command)


def test_migrate(cache, tmp_path, pages_file):
    path, splits = cache
    before = path.read_bytes()
    outs = migrate(path, [tmp_path / 'train.json.gz', str(tmp_path / 'valid.msgpack')], root=pages_file.parent)
    assert [o.name for o in outs] == ['train.json.gz', 'valid.msgpack']
    for split, out in zip(splits, outs):
        assert compare(split, load(out, root=pages_file.parent))
        assert load(out).create_record_fn() is not None
    assert path.read_bytes() == before and {p.name for p in tmp_path.iterdir()} == {'train.json.gz', 'valid.msgpack'}


def test_migrate_what_cloudpickle_wrote(cache, tmp_path, warm):
    """As ZenML stores what has no materializer, in a file that is named `artifact.pkl`."""
    import cloudpickle

    _, splits = cache
    data = cloudpickle.dumps(list(splits))
    assert 'cloudpickle.cloudpickle._builtin_type' in names(data)
    (tmp_path / 'artifact.pkl').write_bytes(data)
    outs = migrate(tmp_path / 'artifact.pkl', [tmp_path / 'train.json', tmp_path / 'valid.json'])
    for split, out in zip(splits, outs):
        assert compare(split, load(out))


def test_migrate_lets_cloudpickle_ask_for_methods_only(cache, tmp_path, warm):
    import cloudpickle

    _, splits = cache
    data = cloudpickle.dumps(splits[0])
    assert data.count(b'MethodType') == 1
    (tmp_path / 'artifact.pkl').write_bytes(data.replace(b'MethodType', b'ModuleType'))
    with pytest.raises(DecodeError, match="asks for the type 'ModuleType'"):
        migrate(tmp_path / 'artifact.pkl', tmp_path / 'out.json')


def test_migrate_every_kind_of_record(tmp_path, warm):
    """All that the cases of the other tests hold, as one cache, at the protocols that Python 3.7 and later write."""
    from test_components import CASES

    collections, refused = {}, {}
    for name, make in CASES.items():
        made = make()
        if not isinstance(made, RecordCollection):
            continue
        try:
            data = [pickle.dumps(made, p) for p in (3, 4, 5)]
        except Exception:
            continue  # what pickle itself cannot write
        try:
            collections[name] = [check_globals(d, {*ALLOWED, *INERT}) for d in data] and made
        except DecodeError as e:
            refused[name] = str(e)
    assert len(collections) > 10, refused
    for name, why in refused.items():
        assert 'PIL.' in why or 'test_components' in why or 'torch' in why or 'redaction_serde' in why, (name, why)
    outs = [tmp_path / f'{name}.json' for name in collections]
    for protocol in (3, 5):
        (tmp_path / 'all.pkl').write_bytes(pickle.dumps(list(collections.values()), protocol))
        migrate(tmp_path / 'all.pkl', outs)
        for out, c in zip(outs, collections.values()):
            assert compare(c, load(out)), out.name


def test_migrate_one_collection_of_old_names(cache, tmp_path, warm):
    """A single collection; paths of Windows and of Python 3.13; arrays of NumPy 1."""
    _, (split, _) = cache
    data = (
        pickle.dumps(split, 3)
        .replace(b'cpathlib\nPosixPath\n', b'cpathlib._local\nWindowsPath\n')
        .replace(b'cpathlib._local\nPosixPath\n', b'cpathlib._local\nWindowsPath\n')
    )
    assert 'pathlib._local.WindowsPath' in names(data)
    (tmp_path / 'old.pkl').write_bytes(data)
    (out,) = migrate(tmp_path / 'old.pkl', tmp_path / 'new.json')
    assert len(load(out)) == len(split)
    assert {
        'numpy.core.multiarray._reconstruct',
        'numpy.core.multiarray.scalar',
        'numpy._core.multiarray._reconstruct',
    } <= ALLOWED.keys()


def refused(tmp_path, data, match, error=SerdeError, out='new.json', **options):
    (tmp_path / 'old.pkl').write_bytes(data if isinstance(data, bytes) else pickle.dumps(data))
    with pytest.raises(error, match=match) as e:
        migrate(tmp_path / 'old.pkl', tmp_path / out, **options)
    assert 'old.pkl' in e.value.path or isinstance(e.value, EncodeError)
    assert [p.name for p in tmp_path.iterdir()] == ['old.pkl']
    return e.value


def test_migrate_names_every_unknown(cache, tmp_path):
    canary = tmp_path / 'canary'
    error = refused(tmp_path, [cache[1][0], Call(os.system, f'touch {canary}'), Call(eval, '1')], 'Nothing was loaded')
    assert f'import {SYSTEM},' in str(error) and 'import builtins.eval,' in str(error) and len(error.problems) == 2
    assert all(word in str(error) for word in ('inert', 'allow'))


@pytest.mark.parametrize('case', [c for c, (_, found, _) in HOSTILE.items() if found])
def test_migrate_refuses_hostile(case, tmp_path):
    refused(tmp_path, HOSTILE[case][0], 'Nothing was loaded', DecodeError)


def test_migrate_refuses_before_it_loads(cache, tmp_path):
    refused(tmp_path, cache[0].read_bytes() * 2, 'expected one pickle, as icevision writes it, found 2', DecodeError)
    refused(tmp_path, cache[0].read_bytes(), 'over the limit', LimitError, limits=Limits(bytes=100))
    refused(tmp_path, cache[0].read_bytes(), 'no format for the name', EncodeError, out='new.pickle')
    refused(tmp_path, cache[0].read_bytes()[:-9], 'cannot be read any further', DecodeError)
    with pytest.raises(OSError):
        migrate(tmp_path / 'none.pkl', tmp_path / 'new.json')


@pytest.mark.parametrize(
    'data, match, error',
    [
        (
            {'plain': 'data'},
            'icevision caches are, found dict; what else was pickled, load where you trust it, and store it with `save`',
            DecodeError,
        ),
        ([1, 2], 'expected a RecordCollection', DecodeError),
        ([], 'holds 0 collections', DecodeError),
        (
            pickle.dumps(Call(getattr, Call(getattr, OrderedDict, '__init__'), '__globals__')),
            "attribute '__init__' of a type",
            DecodeError,
        ),
        (HOSTILE['huge place in the memo'][0], 'holds 0 collections', DecodeError),
        (HOSTILE['deep lists'][0], 'expected a RecordCollection', DecodeError),
        (b'cnumpy\nndarray\n((I99999999999\nttR.', 'memory|cannot be loaded', SerdeError),
        (b'cicevision.core.record\nBaseRecord\n(I1\ntR.', 'cannot be loaded: TypeError', DecodeError),
    ],
    ids=['dict', 'list', 'empty', 'nested getattr', 'huge memo', 'deep', 'huge array', 'wrong arguments'],
)
def test_migrate_refuses_what_is_no_cache(data, match, error, tmp_path, warm):
    refused(tmp_path, data, match, error)


def test_migrate_wants_a_file_for_each_split(cache, tmp_path, warm):
    error = refused(tmp_path, cache[0].read_bytes(), r'holds 2 collections \(2, 2 records\) for 1 files')
    assert isinstance(error, DecodeError)


def test_migrate_ends_in_time(tmp_path):
    """A billion ways through thirty lists, where a label should be."""
    record, lists = BaseRecord((InstancesLabelsRecordComponent(),)), []
    for _ in range(30):
        lists = [lists, lists]
    record.set_record_id(1)
    record.detection.labels = lists
    refused(
        tmp_path,
        RecordCollection(None).new([record]),
        'raise seconds|raise memory',
        LimitError,
        seconds=3,
        memory=1 << 30,
    )


def test_migrate_stands_in_for_parsers(pages_file, tmp_path, warm):
    """A parser of one's own, defined in a script that nobody has any more."""
    pages = parse_coco(str(pages_file), str(pages_file.parent / 'images'))
    lost = type('LostParser', (COCOBBoxParser,), {'__module__': '__main__'})
    sys.modules['__main__'].LostParser = lost
    try:
        pages.create_record_fn = lost(str(pages_file), str(pages_file.parent / 'images')).create_record
        data = pickle.dumps(pages)
    finally:
        del sys.modules['__main__'].LostParser
    refused(tmp_path, data, '__main__.LostParser, which is not on the list')
    assert compare(pages, load(*migrate(tmp_path / 'old.pkl', tmp_path / 'new.json', inert=['__main__.LostParser'])))


def test_migrate_imports_what_it_is_allowed_to(tmp_path, monkeypatch):
    """Keypoints refer to a class of the user, whose labels are not in the pickle."""
    (tmp_path / 'lib').mkdir()
    (tmp_path / 'lib' / 'my_points.py').write_text(
        'from icevision.core import KeypointsMetadata\nclass Corners(KeypointsMetadata):\n    labels = ("left", "right")\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path / 'lib'))
    import my_points

    record = BaseRecord((KeyPointsRecordComponent(),))
    record.set_record_id(1)
    record.set_img_size(ImgSize(40, 30))
    record.detection.add_keypoints([KeyPoints.from_xyv([1, 2, 2, 3, 4, 1], my_points.Corners)])
    (tmp_path / 'old').mkdir()
    pages = RecordCollection(None).new([record])
    refused(tmp_path / 'old', pages, 'my_points.Corners, which is not on the list')
    assert compare(
        pages,
        load(
            *migrate(tmp_path / 'old' / 'old.pkl', tmp_path / 'new.json', allow=['my_points.Corners']),
            keypoints=[my_points.Corners],
        ),
    )
    refused(
        tmp_path / 'old', pages, 'cannot be loaded: AttributeError', allow=['my_points.Corners', 'my_points.NoSuch']
    )


def test_what_the_other_process_says_is_checked(cache, tmp_path, monkeypatch):
    """Even if the child were taken over, only a valid document of ours is written."""

    def lying(folder, job, path):
        for i in range(2):
            (Path(folder) / f'part-{i}').write_bytes(pickle.dumps(Call(os.system, 'true')))

    monkeypatch.setattr(pickles, '_run_child', lying)
    with pytest.raises(DecodeError):
        migrate(cache[0], [tmp_path / 'a.json', tmp_path / 'b.json'])
    assert not list(tmp_path.iterdir())


def test_dead_child_is_reported(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, '_START', 'import sys; sys.exit("no luck today")')
    refused(tmp_path, cache[0].read_bytes(), 'ended with status 1: no luck today', DecodeError)


def test_child_gets_no_secrets(cache, tmp_path, monkeypatch):
    monkeypatch.setenv('SECRET_TOKEN', 'hush')
    monkeypatch.setattr(
        pickles,
        '_START',
        'import os, json; json.dump(dict(error="DecodeError", problems=[["$", " ".join(os.environ)]]), open("answer.json", "w"))',
    )
    assert 'SECRET_TOKEN' not in str(refused(tmp_path, cache[0].read_bytes(), 'PATH'))
