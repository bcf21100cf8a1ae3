"""Jupyter kernels that begin with torch and its relatives imported, so that a hundred notebooks do not import them a hundred times.

A server imports them once and forks a process for each kernel; that process takes over the streams, the folder and the
environment of whoever asked, and goes on as `python -m ipykernel` would. What is imported beforehand is of other people
and is what `import icevision` imports first; icevision itself, matplotlib (which looks at its environment when it is
imported) and everything of ours are imported by each notebook.

    python tools/warm_kernels.py SOCKET                     the server
    python tools/warm_kernels.py SOCKET -f CONNECTION_FILE  a kernel, for Jupyter: lives as long as its process does
"""

import json
import os
import signal
import socket
import sys

PRELOADED = ['torch', 'torch._dynamo.utils', 'torchvision.models', 'sklearn.decomposition', 'scipy.stats', 'pandas']


def ask(path, *arguments):
    """Have a kernel started, pass signals on to it, and end as it ends."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        message = {'arguments': arguments, 'cwd': os.getcwd(), 'env': dict(os.environ)}
        socket.send_fds(server, [json.dumps(message).encode() + b'\n'], [0, 1, 2])
        pid = int(server.recv(20))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: os.kill(pid, number))
        while server.recv(1):  # the other end is closed when the kernel has ended
            pass


def serve(path):
    """Import what is slow, and fork a kernel for each that asks, until standard input is closed."""
    import importlib
    import threading

    for name in PRELOADED:
        importlib.import_module(name)
    assert 'matplotlib' not in sys.modules
    threading.Thread(target=end_with, args=[lambda: os.read(0, 1)], daemon=True).start()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for kernels that have ended
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
                server.close()
                become_kernel(asking, streams, **json.loads(data))
            asking.close()
            for stream in streams:
                os.close(stream)


def become_kernel(asking, streams, arguments, cwd, env):
    """Never returns."""
    import random
    import threading

    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    random.seed()
    asking.sendall(str(os.getpid()).encode())
    threading.Thread(target=end_with, args=[lambda: asking.recv(1)], daemon=True).start()
    added = [place for place in env.get('PYTHONPATH', '').split(os.pathsep) if place]
    sys.path[:] = added + [place for place in sys.path if place not in added]
    for place in added:
        if os.path.exists(custom := os.path.join(place, 'sitecustomize.py')):  # as Python does when it starts
            import runpy

            runpy.run_path(custom)
    from ipykernel.kernelapp import launch_new_instance

    sys.argv = ['ipykernel_launcher', *arguments]
    code = 1
    try:
        launch_new_instance()
        code = 0
    finally:
        os._exit(code)


def end_with(read):
    """End this process when the one at the other end is gone."""
    while read():
        pass
    os._exit(1)


if __name__ == '__main__':
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        ask(*sys.argv[1:])
