"""What the kernel refuses to a process that has shut itself in, asked for without Python's hooks in between; and `migrate` where it refuses nothing."""

import json
import os
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from redaction_serde import isolation, pickles
from redaction_serde.pickles import migrate
from redaction_serde.records import load, save

ROOT = Path(__file__).resolve().parent.parent
TRY = '''
import ctypes, errno, json, os, socket, sys, threading
from redaction_serde.isolation import isolate
guards, before, acts = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
program = [sys.executable, '-c', 'import json; print(json.dumps([[], "done"]))']
threads = []

def call(*args):
    if libc.syscall(*args) < 0:
        raise OSError(ctypes.get_errno(), 'refused')

def child(act):
    exec(before, globals())
    active = isolate('.', guards)
    try:
        exec(act)
        said = 'done'
    except OSError as e:
        said = errno.errorcode[e.errno]
    os.write(1, json.dumps([active, said]).encode())
    os._exit(0)

home = os.getcwd()
for number, act in enumerate(acts):
    os.makedirs(f'{number}/room')
    os.chdir(f'{number}/room')
    for name in ('inside', '../outside'):
        open(name, 'w').write('x')
    os.symlink('..', 'link')
    answer, pipe = os.pipe()
    if not os.fork():
        os.dup2(pipe, 1)
        child(act)
    os.close(pipe)
    os.wait()
    active, said = json.loads(os.read(answer, 10_000))
    os.close(answer)
    found = [sorted(os.listdir(place)) for place in ('.', '..')]
    untouched = found == [['inside', 'link'], ['outside', 'room']] and open('../outside').read() == 'x'
    print(json.dumps([active, said, untouched]), flush=True)
    os.chdir(home)
'''


class Tried(NamedTuple):
    """What came of an act."""

    active: list  # guards that were in force
    said: str  # 'done', or the name of an error number
    untouched: bool  # is all as it was, in the folder and beside it?


def try_all(acts, folder, guards, before=''):
    """Try each act in a process of its own, in a folder `room` with a file in it and a file beside it."""
    job = json.dumps([list(guards), before, list(acts.values())])
    done = subprocess.run(
        [sys.executable, '-c', TRY, job],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(acts), done.stderr
    return {name: Tried(*json.loads(line)) for name, line in zip(acts, lines)}


def tried(act, folder, guards, before=''):
    """What came of one act."""
    return try_all({'it': act}, folder, guards, before)['it']


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory):
    """(guards, name of an act) -> what came of it."""
    every = {**CALLS, **NEW_CALLS, **FILES, **HARMLESS}
    runs = {'none': [], 'all': isolation.GUARDS, 'seccomp': ['seccomp'], 'Landlock': ['Landlock']}
    return {
        (run, name): outcome
        for run, guards in runs.items()
        for name, outcome in try_all(every, tmp_path_factory.mktemp(run), guards).items()
    }


def refused(outcome, guard):
    """The name of the error with which a guard refuses something."""
    if guard not in outcome.active:
        pytest.skip(f'no {guard} on this machine')
    assert outcome.untouched
    return outcome.said


CALLS = {  # what seccomp refuses
    'a socket': 'socket.socket()',
    'a socket of this machine': 'socket.socket(socket.AF_UNIX)',
    'a pair of sockets': 'socket.socketpair()',
    'a copy of the process': 'os.fork() or os._exit(0)',
    'another program': 'os.execv(program[0], program)',
    'a program beside it': 'os.posix_spawn(program[0], [program[0], "-c", ""], {})',
    'a signal': 'os.kill(os.getppid(), 0)',
    'rights of a file': 'os.chmod("../outside", 0o600)',
    'dates of a file': 'os.utime("../outside")',
    'length of a file': 'os.truncate("../outside", 0)',
    'a name less': 'os.remove("../outside")',
    'another name': 'os.rename("../outside", "../elsewhere")',
    'a name more': 'os.link("inside", "another")',
    'a link': 'os.symlink("/etc", "etc")',
    'a folder': 'os.mkdir("new")',
}
NEW_CALLS = {  # by their number, which all machines share
    'io_uring': 'call(425, 1, ctypes.create_string_buffer(120))',
    'clone3': 'call(435, None, 0)',
    'a handle of a process': 'call(434, os.getpid(), 0)',
}
FILES = {  # what Landlock refuses
    'reading': 'open("/etc/passwd")',
    'reading beside': 'open("../outside")',
    'reading through a link': 'open("link/outside")',
    'writing': 'open("../outside", "a")',
    'a new file': 'open("../new", "w")',
    'a list of files': 'os.listdir("..")',
    'removing': 'os.remove("inside")',
    'removing beside': 'os.remove("../outside")',
    'making a folder': 'os.mkdir("new")',
    'making a link': 'os.symlink("/etc", "etc")',
    'a program': 'os.execv(program[0], program)',
    'its own memory': 'open("/proc/self/mem", "rb")',
}
HARMLESS = {
    'reading in the folder': 'assert open("inside").read() == "x"',
    'writing in the folder': 'open("new", "w").write("y")',
    'a list of the folder': 'os.listdir(".")',
    'a thread': 't = threading.Thread(target=lambda: threads.append(1)); t.start(); t.join(); assert threads',
    'memory': 'bytearray(1 << 24)',
    'time': '__import__("time").sleep(0.001)',
    'chance': 'os.urandom(8)',
}


@pytest.mark.parametrize('what', CALLS)
def test_calls_that_seccomp_refuses(what, outcomes):
    assert refused(outcomes['seccomp', what], 'seccomp') == 'EPERM'


@pytest.mark.parametrize('what', NEW_CALLS)
def test_calls_that_an_older_kernel_does_not_have(what, outcomes):
    assert refused(outcomes['seccomp', what], 'seccomp') == 'ENOSYS'


@pytest.mark.parametrize('what', FILES)
def test_files_that_landlock_refuses(what, outcomes):
    assert refused(outcomes['Landlock', what], 'Landlock') == 'EACCES'


@pytest.mark.parametrize('what', [*CALLS, *FILES])
def test_none_of_it_is_refused_without_guards(what, outcomes):
    """Else the tests above would show nothing."""
    outcome = outcomes['none', what]
    assert outcome.active == [] and outcome.said == 'done'


@pytest.mark.parametrize('what', HARMLESS)
def test_what_a_reader_needs_is_left(what, outcomes):
    assert outcomes['all', what].said == 'done'


@pytest.mark.parametrize('guard', ['namespaces', 'Landlock', 'seccomp'])
def test_no_way_to_this_machine(guard, tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as server:
        act = f'socket.create_connection(("127.0.0.1", {server.getsockname()[1]}))'
        (tmp_path / 'open').mkdir()
        assert tried(act, tmp_path / 'open', []).said == 'done'
        said = refused(tried(act, tmp_path, [guard]), guard)
    if guard == 'Landlock' and said == 'done':
        pytest.skip('a Landlock without TCP')
    assert said in ('EPERM', 'EACCES', 'ENETUNREACH')


THREAD = '''
go, told = threading.Event(), []
def late():
    go.wait()
    try: told.append(socket.socket())
    except OSError as e: told.append(e)
thread = threading.Thread(target=late)
thread.start()
'''


def test_a_thread_that_was_there_before(tmp_path):
    """seccomp binds it as well; Landlock before version 8 and namespaces do not, and do not count as in force."""
    act = 'go.set(); thread.join(); raise told[0]'
    outcome = tried(act, tmp_path, isolation.GUARDS, THREAD)
    assert refused(outcome, 'seccomp') == 'EPERM' and 'namespaces' not in outcome.active
    assert 'Landlock' not in outcome.active or isolation._landlock_version() >= 8


def test_a_system_that_is_too_strict(outcomes, tmp_path):
    """A container may forbid all of it: what is refused is not said to be in force, and nothing fails."""
    if 'seccomp' not in outcomes['seccomp', 'time'].active:
        pytest.skip('no seccomp on this machine')
    outcome = tried('open("../outside")', tmp_path, ['namespaces', 'Landlock'], 'isolate(".", ["seccomp"])')
    assert outcome.active == [] and outcome.said == 'done'


@pytest.mark.parametrize('machine', ['riscv64', 'i686', ''])
def test_nothing_is_done_on_a_machine_whose_numbers_are_unknown(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(platform, 'machine', lambda: machine)
    assert isolation.isolate(tmp_path) == []


@pytest.mark.parametrize('machine, header', [
    ('x86_64', '/usr/include/x86_64-linux-gnu/asm/unistd_64.h'),
    ('aarch64', '/usr/include/asm-generic/unistd.h'),
])  # fmt: skip
def test_numbers_are_those_of_the_kernel(machine, header):
    if not Path(header).exists():
        pytest.skip(f'no {header} here')
    found = dict(re.findall(r'#define __NR(?:3264)?_(\w+)\s+(\d+)', Path(header).read_text()))
    ours = isolation._refused(machine)
    assert {name: int(found[name]) for name in ours} == ours
    assert int(found['clone']) == isolation._CLONE[machine]
    assert max(ours.values()) < isolation._FIRST_UNKNOWN == int(found['pidfd_send_signal'])


@pytest.fixture(scope='module')
def cache(pages_file, tmp_path_factory):
    """A small cache as icevision writes it."""
    from icevision.data import SingleSplitSplitter
    from icevision.parsers import COCOBBoxParser

    path = tmp_path_factory.mktemp('cache') / 'old.pkl'
    parser = COCOBBoxParser(str(pages_file), str(pages_file.parent / 'images'))
    (pages,) = parser.parse(SingleSplitSplitter(), autofix=False, show_pbar=False, cache_filepath=path)
    return path, pages


@pytest.mark.parametrize('missing', [*isolation.GUARDS, 'all'])
def test_migrate_without(missing, cache, tmp_path, monkeypatch):
    wanted = tuple(name for name in isolation.GUARDS if missing not in (name, 'all'))
    monkeypatch.setattr(pickles, '_WANTED', wanted)
    moved = migrate(cache[0], tmp_path / 'new.json')
    save(cache[1], tmp_path / 'same.json')
    assert (tmp_path / 'new.json').read_bytes() == (tmp_path / 'same.json').read_bytes() and len(load(moved[0])) == 4
    assert set(moved.isolation) & {*isolation.GUARDS} <= {*wanted}


@pytest.mark.parametrize('suffix', ['json.gz', 'parquet'])
def test_migrate_says_what_is_in_force(suffix, cache, outcomes, tmp_path):
    """All that this machine has, in the whole process: no library may leave a thread behind."""
    moved = migrate(cache[0], tmp_path / f'new.{suffix}')
    assert [name for name in moved.isolation if name in isolation.GUARDS] == outcomes['all', 'time'].active
    assert 'CPU' in moved.isolation and moved == [tmp_path / f'new.{suffix}']
