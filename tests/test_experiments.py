"""Readers change something and run all cells: they see the new result, nothing stops, and nothing else is written."""

import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from notebooks import notebooks, part_of
from run_notebooks import run_notebook

ROOT = Path(__file__).resolve().parent.parent
LESSONS = [name for name in notebooks() if part_of(name) in ('learn', 'compare')]

# what a reader changes in a lesson, into what, and what is then seen somewhere below
EXPERIMENTS = {
    'learn/00_why.ipynb': ('round(slope * 35 + intercept)', 'round(slope * 45 + intercept)', '22'),
    'learn/01_bytes.ipynb': ('width = 2480', 'width = 2481', '45321'),
    'learn/01b_five_formats.ipynb': ('x / 11', 'x / 8', '(63, 59, 83)'),
    'learn/02_pickle.ipynb': ("'box': [12, 8]}", "'box': [12, 8, 90]}", '12, 8, 90'),
    'learn/02b_pickles_of_others.ipynb': ('levels = 30', 'levels = 8', 'with 256 ways'),
    'learn/03_json.ipynb': ("'bytes': b'ab',", "'bytes': b'\\xff',", '/w=='),
    'learn/03b_json_at_work.ipynb': ('srsly.json_dumps(1e-20), srsly', 'srsly.json_dumps(1e-9), srsly', '0.000000001'),
    'learn/04_binary_formats.ipynb': ('to_varint(300)', 'to_varint(16384)', '80 80 01'),
    'learn/04b_changing_a_schema.ipynb': ('page=2**32 + 5)', 'page=2**31)', "('wrong', {'page': -2147483648})"),
    'learn/04c_columns.ipynb': ('3300, 1, 95)', '3300, 2, 95)', '00 00 02'),
    'learn/05_materialisation.ipynb': (
        'def boxes_on(page): return 2',
        'def boxes_on(page): return 5',
        "('completed', 50)",
    ),
    'learn/06_what_ml_saves.ipynb': ("'name': 'Zoë',", "'name': 'Ørsted',", '98rsted'),
    'compare/01_who_keeps_what.ipynb': ("('code of the file ran',)", "('the file has run',)", 'the file has run'),
    'compare/02_speed_and_size.ipynb': ('N = 2000', 'N = 200', '(200, 10)'),
    'compare/03_attacks.ipynb': ('place = 134_217_727', 'place = 127', "{'pickle': read right: None"),
}


def test_each_lesson_has_an_experiment():
    assert sorted(EXPERIMENTS) == sorted(LESSONS)


def git(folder, *args):
    done = subprocess.run(['git', '-C', folder, *args], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def checkout(tmp_path):
    """A git checkout of what a notebook can reach by relative paths."""
    for name in ('nbs', 'redaction_serde', 'bench'):
        ignored = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ('settings.ini', 'setup.py', 'pyproject.toml', '.gitignore'):
        shutil.copy(ROOT / name, tmp_path / name)
    git(tmp_path, 'init', '-q')
    git(tmp_path, 'add', '-A')
    git(tmp_path, '-c', 'user.name=x', '-c', 'user.email=x@example.org', 'commit', '-qm', 'x')
    return tmp_path


def said(nb):
    """All that a notebook shows as text."""
    outputs = [o for cell in nb.cells for o in cell.get('outputs', [])]
    return '\n'.join(o.get('text', '') + ''.join(o.get('data', {}).get('text/plain', '')) for o in outputs)


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_an_experiment(name, checkout):
    old, new, seen = EXPERIMENTS[name]
    path = checkout / 'nbs' / name
    nb = nbformat.read(path, 4)
    cell = next(c for c in nb.cells if c.cell_type == 'code' and old in c.source)
    cell.source = cell.source.replace(old, new, 1)
    nbformat.write(nb, path)
    shown = said(run_notebook(path, strict=False))  # raises if a cell does
    assert seen in shown
    assert git(checkout, 'status', '--porcelain') == f' M nbs/{name}\n'


def notebook(path, *sources):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources]), path)
    return path


CHECK = 'from redaction_serde.lessons.reading import as_in_the_text\nwith as_in_the_text:\n    assert 1 == 2'


def test_a_check_is_strict_only_in_the_tests(tmp_path):
    path = notebook(tmp_path / 'a.ipynb', CHECK)
    assert '≠ differs from the text: AssertionError\n  assert 1 == 2' in said(run_notebook(path, strict=False))
    with pytest.raises(CellExecutionError, match='assert 1 == 2'):
        run_notebook(path)


def test_a_solution_in_the_text_is_run(tmp_path):
    path = tmp_path / 'a.ipynb'
    text = '<details><summary>Solution 1</summary>\n\n```python\nx = 1\n```\n\nand\n\n```python\nassert x == 2\n```\n\n</details>'
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    nbformat.write(nb, path)
    with pytest.raises(CellExecutionError, match='assert x == 2'):
        run_notebook(path)
    path.write_text(path.read_text(encoding='utf-8').replace('== 2', '== 1'), encoding='utf-8')
    assert [c.cell_type for c in run_notebook(path).cells] == ['markdown']  # its cells are not left behind
