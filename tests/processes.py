"""Other processes of the tests: they share nothing with the one that asks, but begin with icevision imported, and ZenML at hand."""

import re
import shlex
import subprocess
import sys

from warm import warm_python

MODULES = ('redaction_serde.fidelity', 'warm_zenml')

# for `-c`: goes on as the script whose path and arguments follow
SCRIPT = """
import os, runpy, sys
del sys.argv[0]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name='__main__')
"""

# the command line, whose own second process is begun by the program that is named first
CLI = """
import sys
sys.executable = sys.argv.pop(1)
from redaction_serde.cli import main
sys.exit(main())
"""


def python(folder):
    """A program in a folder that begins as `start` does, for those who start `sys.executable`."""
    path = folder / 'python'
    path.write_text(f'#!/bin/sh\nexec {shlex.join(warm_python(*MODULES))} "$@"\n')
    path.chmod(0o700)
    return path


def start(*arguments, **options):
    """A process that goes on as `python -c CODE …` or `python -m MODULE …`, and whose output can be read."""
    command = [*warm_python(*MODULES), *map(str, arguments)]
    streams = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return subprocess.Popen(command, text=True, **streams, **options)


def run(*arguments, timeout=300, **options):
    """Its status, its output and what it complained about, when it has ended."""
    with start(*arguments, **options) as process:
        try:
            out, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def complaints(done):
    """What a process complained of. Python 3.12.0 to 3.12.2 lets no thread start while it ends, and ZenML's log starts one
    (https://github.com/python/cpython/issues/113964): nothing is lost by that, and it is left out."""
    if not (3, 12) <= sys.version_info[:3] < (3, 12, 3):
        return done.stderr
    last_words = r'Exception ignored in atexit callback: <function shutdown at .*?at interpreter shutdown\n'
    return re.sub(last_words, '', done.stderr, flags=re.S)
