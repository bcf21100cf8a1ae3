"""Python processes that begin with slow modules imported, so that some hundreds of them do not import them some hundred times.

A server imports the modules once and forks a process for each that asks. That process takes over the streams, the
folder and the environment of whoever asked, and goes on as `python -c CODE …` or `python -m MODULE …` would; whoever
asked waits for it, passes signals on to it, and ends as it ends. Modules that are not named to the server are imported
by each process.

    python tools/warm.py serve SOCKET MODULE …
    python tools/warm.py ask SOCKET -c CODE … | -m MODULE …
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile


@functools.cache
def warm_python(*modules):
    """A command that takes `-c CODE …` or `-m MODULE …` as Python does, with modules imported beforehand; plain Python where there are no forks.

    Its server ends when this process does.
    """
    plain = [sys.executable, '-W', 'ignore']
    if not hasattr(os, 'fork'):
        return plain
    folder = tempfile.mkdtemp(prefix='warm-')
    path = f'{folder}/socket'
    env = {**os.environ, 'PYTHONWARNINGS': 'ignore', 'OMP_NUM_THREADS': os.environ.get('OMP_NUM_THREADS', '1')}
    command = [sys.executable, __file__, 'serve', path, *modules]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.kill)  # closing its input would do, if it were not slower
    if server.stdout.readline() != b'ready\n':
        return plain
    return [sys.executable, '-S', '-E', __file__, 'ask', path]


def ask(path, *arguments):
    """Have a process started, pass signals on to it, and end as it ends."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        message = {'arguments': arguments, 'cwd': os.getcwd(), 'env': dict(os.environ)}
        socket.send_fds(server, [json.dumps(message).encode() + b'\n'], [0, 1, 2])
        said = server.makefile()
        pid = int(said.readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: kill(pid, number))
        status = int(said.readline() or 1)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    os._exit(status)


def kill(pid, number):
    """Send a signal to a process that may have just ended by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def serve(path, *modules):
    """Import what is slow, and fork a process for each that asks, until standard input is closed."""
    import importlib
    import threading

    for name in modules:
        importlib.import_module(name)
    gc.freeze()  # what all share is not walked, and so not copied, by each
    threading.Thread(target=end_with, args=[lambda: os.read(0, 1)], daemon=True).start()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who attend
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print('ready', flush=True)
        while True:
            asking, _ = server.accept()
            data, streams, *_ = socket.recv_fds(asking, 1 << 16, 3)
            while not data.endswith(b'\n'):
                data += asking.recv(1 << 16)
            if os.fork() == 0:
                break
            asking.close()
            for stream in streams:
                os.close(stream)
    attend(asking, streams, **json.loads(data))


def attend(asking, streams, arguments, cwd, env):
    """Fork the process that was asked for, and say how it has ended; it ends when whoever asked does."""
    import threading

    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        asking.close()
        end(status_of(lambda: become(streams, arguments, cwd, env)))
    for stream in streams:
        os.close(stream)
    asking.sendall(f'{pid}\n'.encode())
    ended = [lambda: asking.recv(1), lambda: kill(pid, signal.SIGKILL)]
    threading.Thread(target=end_with, args=ended, daemon=True).start()
    _, status = os.waitpid(pid, 0)
    asking.sendall(f'{os.waitstatus_to_exitcode(status)}\n'.encode())
    os._exit(0)


def become(streams, arguments, cwd, env):
    """Go on as Python with these arguments."""
    import random
    import runpy
    import types

    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    # new objects for them: the server's remember whether its own can seek
    sys.stdin = sys.__stdin__ = open(0, closefd=False)
    sys.stdout = sys.__stdout__ = open(1, 'w', closefd=False)
    sys.stderr = sys.__stderr__ = open(2, 'w', buffering=1, errors='backslashreplace', closefd=False)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    random.seed()
    atexit._clear()  # what the server's modules want at its end is not for here: some of it waits for threads that no fork has
    added = [place for place in env.get('PYTHONPATH', '').split(os.pathsep) if place]
    sys.path[:] = added + [place for place in sys.path[1:] if place not in added]  # but for the folder of this file
    for place in added:
        if os.path.exists(custom := os.path.join(place, 'sitecustomize.py')):  # as Python does when it starts
            runpy.run_path(custom)
    how, what, *rest = arguments
    sys.path.insert(0, '' if how == '-c' else cwd)
    sys.argv = [how, *rest]
    main = sys.modules['__main__'] = types.ModuleType('__main__')
    if how == '-c':
        exec(compile(what, '<string>', 'exec'), main.__dict__)
    else:
        runpy.run_module(what, run_name='__main__', alter_sys=True)


def status_of(run):
    """With which status would Python end that does this?"""
    import traceback

    try:
        run()
    except SystemExit as e:
        if e.code is None or isinstance(e.code, int):
            return e.code or 0
        print(e.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def end(status):
    """End this process as Python does, but take nothing apart: nearly all of it belongs to the server, and a second goes by."""
    import threading

    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def end_with(read, first=lambda: None):
    """End this process when the one at the other end is gone."""
    while read():
        pass
    first()
    os._exit(1)


if __name__ == '__main__':
    {'serve': serve, 'ask': ask}[sys.argv[1]](*sys.argv[2:])
