"""Pickles that are made to fool their reader: back doors of NumPy, frames that hide a name, files that keep a reader busy."""

import io
import pickle
import random
import struct
import sys
from pkgutil import resolve_name

import pytest

from pace import cpu_seconds
from redaction_serde.compat import prepare_icevision
from redaction_serde.errors import DecodeError, LimitError
from redaction_serde.pickles import ALLOWED, INERT, CacheUnpickler, Inert, check_globals, globals_of, migrate

prepare_icevision()

from icevision.core import BaseRecord, FilepathRecordComponent
from icevision.data import RecordCollection

OBJECTS = {name: resolve_name(place) for name, place in ALLOWED.items()}
ADDRESS = struct.pack('<Q', 0x4141414141414141)


def op(x):
    "The instructions that push a plain value."
    return pickle.dumps(x, 3)[2:-1]


def call(module, name, *args):
    "The instructions that call a function with arguments that are instructions."
    return f'c{module}\n{name}\n('.encode() + b''.join(args) + b'tR'


def dtype(code):
    return call('numpy', 'dtype', op(code), op(False), op(True))


def state(*parts):
    return b'(' + b''.join(parts) + b'tb'


# a type of eight bytes, with a field that is a Python object, and flags that say there is none
FIELDS = b'}' + op('a') + b'(' + dtype('O8') + op(0) + b'ts'
LYING = dtype('V8') + state(op(3), op('|'), op(None), b'(' + op('a') + b't', FIELDS, op(8), op(1), op(0))
PLAIN = b'}' + op('a') + b'(' + dtype('f8') + op(0) + b'ts'  # the same with a field that may be
RETYPED = dtype('f8') + state(op(3), op('<'), op(None), b'(' + op('a') + b't', PLAIN, op(8), op(1), op(0))
NEW = call('numpy._core.multiarray', '_reconstruct', b'cnumpy\nndarray\n', b'(' + op(0) + b't', op(b'b'))

BACK_DOORS = {
    'a scalar of a lying type': call('numpy._core.multiarray', 'scalar', LYING, op(ADDRESS)),
    'an array made of bytes that are addresses': call(
        'numpy', 'ndarray', b'(' + op(1) + b't', dtype('O8'), op(ADDRESS)
    ),
    'a buffer of objects': call(
        'numpy._core.numeric', '_frombuffer', op(ADDRESS), dtype('O8'), b'(' + op(1) + b't', op('C')
    ),
    'a buffer of a type that is a list': call(
        'numpy._core.numeric', '_frombuffer', op(ADDRESS), op([('a', 'O8')]), b'(' + op(1) + b't', op('C')
    ),
    'a buffer larger than its bytes': call(
        'numpy._core.numeric', '_frombuffer', op(ADDRESS), dtype('f8'), b'(' + op(1 << 40) + b't', op('C')
    ),
    'a state with a lying type': NEW + state(op(1), b'(' + op(1) + b't', LYING, op(False), op(ADDRESS)),
    'a state that is larger than its bytes': NEW
    + state(op(1), b'(' + op(1 << 62) + op(4) + b't', dtype('f8'), op(False), op(b'')),
    'a state of objects': NEW + state(op(1), b'(' + op(1) + b't', dtype('O8'), op(False), op([1])),
    'a type with a comment': dtype('f8,O8'),
    'a type of a dict': call('numpy', 'dtype', op({'names': ['a'], 'formats': ['O8']})),
    'a time without its unit': dtype('M8'),
    'a class that is changed': b'cicevision.core.bbox\nBBox\n' + state(op({}), op({'xmin': 1})),
    'a function that is changed': b'cnumpy\ndtype\n' + b'}' + op('__doc__') + op('') + b'sb',
}


@pytest.mark.parametrize('case', BACK_DOORS)
def test_back_doors_are_shut(case):
    check_globals(BACK_DOORS[case] + b'.', ALLOWED)  # the names alone are those of any cache
    with pytest.raises((DecodeError, TypeError)):
        CacheUnpickler(io.BytesIO(BACK_DOORS[case] + b'.'), OBJECTS).load()


def test_fields_never_reach_numpy():
    """Of a type's state nothing is taken but the order of bytes."""
    found = CacheUnpickler(io.BytesIO(RETYPED + b'.'), OBJECTS).load()
    assert (found.str, found.fields, found.hasobject) == ('<f8', None, False)


def cache_with(value):
    """A cache of one record, with instructions where a note would be."""
    record = BaseRecord((FilepathRecordComponent(),))
    record.set_record_id(1)
    record.note = 'HERE'
    whole = pickle.dumps(RecordCollection(None).new([record]), 3)
    start = whole.index(b'X\x04\x00\x00\x00HERE')
    end = start + 9
    end += {b'q': 2, b'r': 5}.get(whole[end : end + 1], 0)
    return whole[:start] + value + whole[end:]


def test_a_cache_with_an_address(tmp_path):
    (tmp_path / 'old.pkl').write_bytes(cache_with(BACK_DOORS['a scalar of a lying type']))
    with pytest.raises(DecodeError, match='plain type of array'):
        migrate(tmp_path / 'old.pkl', tmp_path / 'new.json')
    assert not (tmp_path / 'new.json').exists()


def read_all(data, reader):
    """All that `pickle.load` asks for while it reads one pickle after the other."""
    asked = []

    class Watching(pickle.Unpickler):
        def find_class(self, module, name):
            asked.append(f'{module}.{name}')
            return Inert

        def persistent_load(self, pid):
            return 'pid'

    file = reader(data)
    try:
        while True:
            Watching(file).load()
    except Exception:
        return asked


READERS = {
    'memory': io.BytesIO,
    'file': lambda data: io.BufferedReader(io.BytesIO(data)),
    'file with a small buffer': lambda data: io.BufferedReader(io.BytesIO(data), 16),
}
WORDS = [
    b'(',
    b')',
    b'0',
    b'2',
    b'N',
    b'\x94',
    b'h\x00',
    b't',
    b'\x85',
    b'R',
    b'\x93',
    b'.',
    b'cos\nx\n',
    b'cmathos\ny\n',
    b'ios\nz\n',
    b'\x8c\x02os',
    b'\x8c\x01a',
    b'U\x01b',
    b"S'e'\n",
    b'Vf\n',
    b'X\x01\x00\x00\x00g',
    b'K\x01',
    b'I1\n',
    b'\n',
    b'c',
    b'os\n',
]


def frame(length):
    return b'\x95' + length.to_bytes(8, 'little')


@pytest.mark.parametrize('reader', READERS)
def test_frames_hide_no_name(reader):
    """Random programs in random frames: what a real unpickler asks for is named, or the pickle is reported."""
    rng, asked_for, framed = random.Random(13), 0, 0
    for _ in range(12_000):
        words = rng.choices(WORDS, k=rng.randint(2, 12))
        for _ in range(rng.randint(0, 2)):
            words.insert(rng.randrange(len(words)), frame(rng.randint(0, 24)))
        data = b'\x80\x04' + b''.join(words) + b'.'
        asked, found = read_all(data, READERS[reader]), globals_of(data)
        asked_for += bool(asked)
        if set(asked) - {str(g) for g in found if g.resolved}:
            framed += any('frame' in g.why for g in found)
            assert any(not g.resolved for g in found), (data, asked, found)
    assert asked_for > 300
    # a large buffer holds frame and line at once; the unpickler of 3.14.8 was never led across a frame
    assert framed > 5 or reader == 'file' or sys.version_info >= (3, 14)


@pytest.mark.parametrize(
    'data',
    [
        frame(9) + b'charmless' + b'os\nsystem\n.',  # the line goes on behind its frame
        frame(40) + frame(8) + b'N0N0N0N0' + b'cos\nsystem\n.' + b'N0' * 10,  # a frame in a frame
        frame(30) + b'N.' + b'cos\nsystem\n.' + b'N' * 28,
    ],
    ids=['crossed', 'in each other', 'ends too early'],
)
def test_odd_frames_are_reported(data):
    assert any('frame' in g.why for g in globals_of(b'\x80\x04' + data))


def test_honest_frames_are_not_reported():
    data = [list(range(1000)), 'x' * 100_000, b'y' * 100_000, {str(i): i for i in range(20_000)}]
    for dump in (pickle.dumps, pickle._dumps):
        assert globals_of(dump(data, 4)) == []


def test_the_caller_is_not_kept_busy(tmp_path):
    """A file of instructions that are all in error: looking at it took 23 s of the caller's time a megabyte."""
    (tmp_path / 'old.pkl').write_bytes(b'0' * 1_000_000)

    def refused():
        with pytest.raises(DecodeError) as e:
            migrate(tmp_path / 'old.pkl', tmp_path / 'new.json')
        assert len(e.value.problems) <= 1000 and len(str(e.value)) < 10_000

    assert cpu_seconds(refused, 2) < 2


@pytest.mark.skipif(not hasattr(__import__('signal'), 'SIGXCPU'), reason='no such limit')
def test_looking_has_a_limit(tmp_path):
    (tmp_path / 'old.pkl').write_bytes(b'N0' * 8_000_000 + b'N.')

    def refused():
        with pytest.raises(LimitError, match='raise seconds'):
            migrate(tmp_path / 'old.pkl', tmp_path / 'new.json', seconds=1)

    assert cpu_seconds(refused, 2) < 2


def test_more_than_enough_is_not_listed():
    found = globals_of(b'\x80\x04' + b'\x93' * 100_000)
    assert 1000 <= len(found) < 1010 and 'not read' in found[-1].why
    with pytest.raises(DecodeError):
        check_globals(b'0' * 10_000, {*ALLOWED, *INERT})
