"""Every notebook, as its readers meet it: once, in a real Jupyter kernel, without a network."""

import re

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from notebooks import NBS, is_test, notebooks, part_of
from run_notebooks import NetworkError, executed, run_notebook

NOTEBOOKS = notebooks()
PARTS = ('learn', 'build', 'compare', 'reference')


def test_none_is_overlooked():
    parts = [part_of(name) for name in NOTEBOOKS]
    assert len(NOTEBOOKS) == 107 and set(parts) == {'', *PARTS}
    assert [name for name in NOTEBOOKS if not part_of(name)] == ['index.ipynb']


def test_nbdev_finds_the_same():
    from nbdev.doclinks import nbglob

    assert {path.resolve() for path in nbglob(NBS, as_path=True)} == set(NOTEBOOKS.values())


def test_lessons_export_nothing():
    for name, path in NOTEBOOKS.items():
        if part_of(name) not in ('learn', 'compare'):
            continue
        exporting = [
            c.source
            for c in nbformat.read(path, 4).cells
            if '#| export' in c.source or '#| default_exp' in c.source or 'nbdev_export' in c.source
        ]
        assert not exporting, name


def test_names_of_files_are_unique():
    stems = [path.stem for path in NOTEBOOKS.values()]
    assert sorted(stems) == sorted(set(stems))
    pages = [re.sub(r'(^|/)\d+[a-z]?_', r'\1', name) for name in NOTEBOOKS]  # they have no numbers
    assert sorted(pages) == sorted(set(pages))


def test_what_is_hidden_is_no_notebook(tmp_path):
    for name in ('a/01_b.ipynb', 'a/.ipynb_checkpoints/01_b-checkpoint.ipynb', '_draft.ipynb', 'a/notes.md'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert notebooks(tmp_path) == {'a/01_b.ipynb': tmp_path / 'a' / '01_b.ipynb'}


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_in_jupyter(name):
    nb = executed(NOTEBOOKS[name])  # the site shows the same run
    assert not [o for c in nb.cells for o in c.get('outputs', []) if o.output_type == 'error']


REACHING = (
    'import socket\nsocket.create_connection(("192.0.2.1", 80), timeout=1)'  # an address for documentation, RFC 5737
)
HIDING = f'import contextlib\nwith contextlib.suppress(OSError):\n    {REACHING.replace(chr(10), "; ")}'
IN_A_PROCESS = f'import subprocess, sys\nsubprocess.run([sys.executable, "-c", {REACHING!r}], capture_output=True)'


@pytest.mark.parametrize(
    'source, error',
    [
        (REACHING, CellExecutionError),
        (HIDING, NetworkError),
        (IN_A_PROCESS, NetworkError),
    ],
    ids=['openly', 'without a word', 'in another process'],
)
def test_a_notebook_that_wants_the_network_fails(source, error, tmp_path):
    path = tmp_path / 'reaching.ipynb'
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    with pytest.raises(error, match=r'socket\.getaddrinfo.*192\.0\.2\.1'):
        run_notebook(path)


def test_a_kernel_takes_no_port(tmp_path):
    """Ports are chosen before a kernel starts: with many kernels at once, now and then another one has taken it, and it dies."""
    path = tmp_path / 'connected.ipynb'
    source = 'import ipykernel\nassert "ipc" in ipykernel.get_connection_info()'
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    run_notebook(path)


def test_a_cell_of_tests_is_known():
    is_one = [
        'assert a',
        'test_eq(f(1), 2)\nassert a, b',
        "for x in y:\n    test_fail(f)",
        'with ExceptionExpected(A):\n    test_eq(1, 1)',
    ]
    is_none = [
        '',
        'a = 1\nassert a',
        'test_eq',
        'f(1)',
        "with open('a') as f:\n    f.read()",
        '%timeit test_eq(1, 1)',
        'def f():\n    assert 1',
    ]
    assert [is_test(source) for source in (*is_one, *is_none)] == [True] * len(is_one) + [False] * len(is_none)
