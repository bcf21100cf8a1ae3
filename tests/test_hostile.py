"""Valid files, mutated at random: only a `SerdeError` may come out, quickly and without much memory.

A short run of the same mutations on every machine here; `make fuzz` runs for minutes with a new seed.
"""

import os
import random
import resource
import sys
import time
from pathlib import Path

import pytest

from redaction_serde.checks import broken_references
from redaction_serde.errors import Limits, SerdeError
from redaction_serde.records import loads
from redaction_serde.values import from_value
from redaction_serde.wire.registry import decode, unzip_bytes, zip_bytes

GOLDEN = sorted((Path(__file__).parent / 'golden').glob('*'))
SECONDS, TRIES, SEED = (
    float(os.environ.get("FUZZ_SECONDS", 0)),
    int(os.environ.get("FUZZ_TRIES", 6000)),
    os.environ.get('FUZZ_SEED', '0'),
)
WORDS = [
    b'NaN',
    b'Infinity',
    b'-1',
    b'1e999',
    b'1e-999',
    b'99999999999999999999',
    b'null',
    b'true',
    b'""',
    b'{}',
    b'[]',
    b'[[]]',
    b'"\\ud800"',
    b'\xff',
    b'\x00',
    b'../',
    b'/etc/passwd',
    b'{"$tuple":[1]}',
    b'{"$ndarray":{"dtype":"<f8","shape":[99999999999],"data":""}}',
    b'{"$ndarray":{"dtype":"|O","shape":[1],"values":[1]}}',
    b'{"$dict":[[[],1]]}',
    b'{"$path":1}',
    b'{"$image":{"mode":"P","size":[1,1],"data":"AA==","palette":[999]}}',
    b'[' * 3000,
    b'{"a":' * 3000,
    b'"__class__"',
    b'"composite"',
    b'\xdd\xff\xff\xff\xff',
    b'\xdf\xff\xff\xff\xff',
    b'\xc6\xff\xff\xff\xff',
    b'\xdb\xff\xff\xff\xff',
    b'\xcb\x7f\xf8\0\0\0\0\0\0',
    b'\xc7\xff\x01',
    b'\x92' * 2000,
]


def mutate(data, rng, other):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        i, j = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        kind = rng.randrange(8)
        if kind == 0 and i < len(data):
            data[i] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[i:]
        elif kind == 2:
            del data[i : min(j, i + 40)]
        elif kind == 3:
            data[i:i] = rng.choice(WORDS)
        elif kind == 4:
            data[i : min(j, i + 12)] = rng.choice(WORDS)
        elif kind == 5:
            data[i:i] = data[i : min(j, i + 200)]
        elif kind == 6:
            data[i : min(j, i + 60)] = other[i : i + rng.randrange(60)]
        else:  # replace one JSON value
            cut = data.find(b':', i)
            end = min((e for e in (data.find(c, cut) for c in (b',', b'}', b']')) if e > 0), default=len(data))
            if cut > 0:
                data[cut + 1 : end] = rng.choice(WORDS)
        if not data:
            break
    return bytes(data)


def references(*args, **limits):
    broken_references(decode(*args, **limits))


def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


@pytest.mark.parametrize('format', ['json', 'jsonl', 'msgpack', 'protobuf', 'parquet', 'gz'])
def test_only_our_errors_come_out(format):
    rng, files = (
        random.Random(f'{SEED} {format}'),
        [p.read_bytes() for p in GOLDEN if p.suffix == f'.{format}' or format == 'gz'],
    )
    start, before, tried, slowest = time.monotonic(), memory(), 0, 0.0
    while tried < TRIES or time.monotonic() - start < SECONDS:
        data = mutate(rng.choice(files), rng, rng.choice(files))
        if format == 'gz':
            data = mutate(zip_bytes(data), rng, b'\x1f\x8b') if rng.random() < 0.5 else zip_bytes(data)
        began, tried = time.monotonic(), tried + 1
        for read in (decode, references, loads):
            try:
                read(data, limits=Limits(bytes=1 << 24), verify=rng.random() < 0.2)
            except SerdeError as e:
                assert str(e) and e.path
            except Exception as e:
                raise AssertionError(f'{type(e).__name__}: {e} for {data!r}') from e
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 5
    assert memory() - before < 500 << 20


def test_a_bomb_in_gzip_stops_at_the_limit():
    import gzip

    bomb, before = gzip.compress(bytes(300 << 20), 9), memory()
    with pytest.raises(SerdeError):
        loads(bomb, limits=Limits(bytes=1 << 20))
    with pytest.raises(SerdeError):
        unzip_bytes(bomb, Limits(bytes=1 << 20))
    assert memory() - before < 50 << 20


@pytest.mark.parametrize('mode, size', [('RGBA', [65535, 65535]), ('1', [9, 65535]), ('L', [2, 2])])
def test_a_picture_is_counted_before_it_is_allocated(mode, size):
    picture, before = {'$image': dict(mode=mode, size=size, data='AAAA')}, memory()
    with pytest.raises(SerdeError, match='want .* bytes, found 3'):
        from_value(picture, '$.img')
    assert memory() - before < 50 << 20
