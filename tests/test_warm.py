"""Processes that begin with slow modules imported are like those that import them."""

import os
import subprocess

import pytest
from warm import warm_python

STEPS = """
import sys
from zenml import pipeline, step

@step
def say() -> int:
    print('heard', file=sys.stderr)
    return 1

@pipeline(enable_cache=False)
def saying():
    say()
"""
RUN = """
import sys
assert not [name for name in sys.modules if name.startswith(('zenml', 'redaction_serde'))]
from redaction_serde.compat import prepare_zenml
prepare_zenml(sys.argv[1], source='.')
from zenml.client import Client
client = Client()
assert not client.list_pipelines().total and client.active_stack.name == 'default'
from steps import saying
run = saying()
print(len(client.list_pipelines()), run.status.value, run.steps['say'].output.uri.startswith(sys.argv[1]))
"""


@pytest.fixture
def steps(tmp_path):
    (tmp_path / 'steps.py').write_text(STEPS)
    return tmp_path


def run(steps, store):
    done = subprocess.run([*warm_python('warm_zenml'), '-c', RUN, store], cwd=steps, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_each_process_chooses_its_store_and_finds_it_new(steps, tmp_path):
    for name in ('one', 'two'):
        store = tmp_path / name
        assert run(steps, str(store)) == ['1 completed True']
        logs = '\n'.join(path.read_text() for path in store.rglob('*.log'))
        assert 'heard' in logs, 'ZenML hears what a step says'


QUIET = """
import logging, sys, warnings
logging.getLogger('another').info('said by another package')
warnings.warn('warned')
own = ('warnings', '_py_warnings')  # its name since Python 3.14
print(logging.root.handlers, logging.root.level == logging.WARNING, warnings.showwarning.__module__ in own)
"""


def test_who_does_not_import_zenml_has_none_of_its_logging(tmp_path):
    done = subprocess.run([*warm_python('warm_zenml'), '-c', QUIET], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == '[] True True\n' and 'said' not in done.stderr, done


DRAWN = """
import sys
assert 'matplotlib' not in sys.modules
from matplotlib import pyplot
figure = pyplot.figure()
print(pyplot.get_backend(), type(figure.canvas).__module__)
"""


@pytest.mark.parametrize('named, used', [('svg', 'svg'), ('agg', 'agg'), (None, 'agg')])
def test_matplotlib_takes_the_backend_of_the_process_that_imports_it(named, used):
    env = {
        name: value for name, value in os.environ.items() if name not in ('MPLBACKEND', 'DISPLAY', 'WAYLAND_DISPLAY')
    }
    if named:
        env['MPLBACKEND'] = named
    done = subprocess.run([*warm_python('warm_matplotlib'), '-c', DRAWN], env=env, capture_output=True, text=True)
    assert done.stdout.split() == [used, f'matplotlib.backends.backend_{used}'], done
