"""The quarantine of the lesson on attacks keeps its promises: what is without bounds is stopped, and nothing gets out."""

import os
import signal
import sys
import threading

import pytest

from redaction_serde.lessons import attacks
from redaction_serde.lessons.contained import HASH, NOTE, READERS, VERDICTS, Quarantine

if not hasattr(os, 'fork'):
    pytest.skip('processes cannot fork here', allow_module_level=True)


@pytest.fixture(scope='module')
def room():
    with Quarantine(seconds=1) as quarantine:
        yield quarantine
    assert not quarantine.folder.exists() and quarantine._server.poll() is not None  # nothing is left


def call(name, *texts):
    return attacks.pickled_call(name, *texts)


def number(n):
    return b'L' + str(n).encode() + b'L\n'


FOREVER = b'\x80\x02cbuiltins\nsum\n(cbuiltins\nrange\n(' + number(10**13) + b'tRtR.'
TOO_MUCH = b'\x80\x02cbuiltins\nbytearray\n(' + number(1 << 33) + b'tR.'
REACHING_OUT = {
    'write beside its folder': call('io open', '../outside', 'w'),
    'write into the good documents': call('io open', f'../good/json/{HASH}', 'w'),
    'read elsewhere': call('io open', '/etc/hosts'),
    'read a descriptor': b'\x80\x02cio\nopen\n(K\x00tR.',
    'delete': call('posix remove', HASH),
    'rename': call('posix rename', HASH, '../outside'),
    'make a folder': call('posix mkdir', '../outside'),
    'run a command': call('posix system', 'true > ../outside'),
    'start a program': call('subprocess Popen', 'true'),
    'fork': call('posix fork'),
    'make a socket': call('socket socket'),
    'open a library': call('ctypes CDLL', 'libc.so.6'),
}


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux bounds memory')
def test_what_takes_memory_without_bounds_is_stopped(room):
    assert room.read('pickle', TOO_MUCH).verdict == 'out of memory'


def test_what_takes_time_without_bounds_is_stopped(room):
    outcome = room.read('pickle', FOREVER)
    assert outcome.verdict == 'out of time' and outcome.cost


def test_what_writes_without_bounds_is_stopped(room):
    """`open('big', 'w').truncate(2**34)`: a file with a hole needs no memory and no time."""
    opened = call('io open', 'big', 'w')[2:-1]
    data = b'\x80\x02cbuiltins\ngetattr\n(' + opened + b'Vtruncate\ntR(' + number(1 << 34) + b'tR.'
    outcome = room.read('pickle', data)
    assert outcome.verdict == 'refused' and 'too large' in outcome.said


@pytest.mark.parametrize('what', REACHING_OUT)
def test_nothing_gets_out(what, room):
    before = sorted(room.folder.rglob('*'))
    assert room.read('pickle', REACHING_OUT[what]).verdict == 'reached out'
    assert sorted(room.folder.rglob('*')) == before


def test_what_is_allowed_is_found_out(room):
    assert room.read('pickle', call('io open', 'ran', 'w')).verdict == 'ran code'
    assert room.read('pickle', b'cthis\ns\n.').verdict == 'imported'


def test_one_child_does_not_change_the_next(room):
    """What code sets in its process, such as a limit or a folder, ends with it."""
    first = room.read('pickle', call('sys setrecursionlimit').replace(b'(t', b'(K\x05t'))
    assert first.verdict != 'out of time'
    for reader in READERS:
        assert room.read(reader, room.good(reader), {'note': NOTE}).verdict == 'read right', reader


def test_a_good_document_that_says_something_else_is_noticed(room):
    assert room.read('json', b'{"note": [1]}', {'note': NOTE}).verdict == 'changed'


def test_an_interrupted_job_does_not_answer_for_the_next(room):
    """As when the kernel of a notebook is interrupted while a document is read."""
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        room.read('pickle', FOREVER)
    assert room.read('json', b'{}').verdict == 'read right'


@pytest.mark.parametrize('kind', attacks.KINDS)
def test_our_readers_are_harmed_by_the_zip_bomb_only(kind, room):
    documents = attacks.documents(room, kind)
    for reader in attacks.OURS:
        if reader in documents:
            outcome = room.read(reader, *documents[reader])
            assert 'checksum' not in outcome.said  # the attack itself is refused
            assert outcome.verdict == 'refused' or kind == 'zip', (reader, outcome)


def test_every_verdict_can_be_drawn():
    results = {
        'code': {reader: attacks.Outcome(verdict, '<b>&', 1.0, 20.0) for reader, verdict in zip(READERS, VERDICTS)}
    }
    text = attacks.table_html(results)
    assert '<b>&' not in text and all(verdict in text for verdict in VERDICTS)
