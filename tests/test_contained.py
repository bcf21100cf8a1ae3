"""The quarantine of the lesson on attacks keeps its promises: what is without bounds is stopped, and nothing gets out."""

import os
import pickle
import signal
import socket
import sys
import threading
from importlib import import_module

import pytest

from redaction_serde.isolation import GUARDS

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


class Call:
    """What a pickle calls."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def knowing(*calls):
    """A pickle of somebody who knows the hook: it says that all is harmless, and then calls what it likes."""
    events = 'open socket.__new__ os.system subprocess.Popen os.posix_spawn os.exec os.fork os.remove os.mkdir'.split()
    module = Call(import_module, 'redaction_serde.lessons.contained')
    harmless = ['import', 'pickle.find_class', *events]
    return pickle.dumps([Call(setattr, module, '_HARMLESS', harmless), *calls])


PAST_THE_HOOK = {  # what is asked, and which guards of the kernel refuse it
    'a socket': (Call(socket.socket), {'seccomp'}),
    'a program': (Call(os.posix_spawn, '/bin/true', ['true'], {}), {'seccomp'}),
    'another program': (Call(os.execv, '/bin/true', ['true']), {'seccomp', 'Landlock'}),
    'fork': (Call(os.fork), {'seccomp'}),
    'delete': (Call(os.remove, HASH), {'seccomp', 'Landlock'}),
    'a folder': (Call(os.mkdir, 'new'), {'seccomp', 'Landlock'}),
    'read elsewhere': (Call(open, '/etc/passwd'), {'Landlock'}),
    'write beside its folder': (Call(open, '../outside', 'w'), {'Landlock'}),
    'write into a module': (Call(open, os.path.realpath(attacks.__file__), 'a'), {'Landlock'}),
}


@pytest.mark.parametrize('what', PAST_THE_HOOK)
def test_what_gets_past_the_hook_is_refused_by_the_kernel(what, room):
    call, guards = PAST_THE_HOOK[what]
    if not guards & {*room.guards}:
        pytest.skip(f'nothing of {guards} on this machine')
    before = sorted(room.folder.rglob('*'))
    outcome = room.read('pickle', knowing(call))
    assert outcome.verdict == 'reached out' and outcome.said.startswith('the kernel refused it'), outcome
    assert sorted(room.folder.rglob('*')) == before


def test_without_the_kernel_it_is_the_hook_and_no_worse(tmp_path):
    """Whoever knows the hook gets past it then; nothing else changes."""
    with Quarantine(seconds=1, guards=()) as room:
        assert room.guards == []
        assert room.read('pickle', knowing(Call(os.mkdir, 'new'))).verdict == 'read right'
        for what in REACHING_OUT.values():
            assert room.read('pickle', what).verdict == 'reached out'
        for reader in READERS:
            assert room.read(reader, room.good(reader), {'note': NOTE}).verdict == 'read right', reader


def test_the_guards_in_force_are_said(room):
    assert set(room.guards) <= {*GUARDS}


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
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            room.read('pickle', FOREVER)
    finally:
        signal.signal(signal.SIGINT, before)
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
