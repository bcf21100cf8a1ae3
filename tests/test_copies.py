"""The copies that `make lab` and JupyterLite open: for readers, and never taken from them."""

import gc
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import copies
import lite
import nbformat
import re

import pytest
from notebooks import NBS, notebooks

NOTEBOOKS = notebooks()


def made(*sources, **metadata):
    cells = [nbformat.v4.new_code_cell(source, metadata=metadata) for source in sources]
    return copies.reader_copy(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell('# T'), *cells])).cells


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_a_copy_is_for_its_reader(name):
    source = nbformat.read(NOTEBOOKS[name], 4)
    copy = copies.reader_copy(source)
    code = [c for c in copy.cells if c.cell_type == 'code']
    assert copy.cells[0].source.startswith('# ')
    assert not [c.source for c in code if '#|' in c.source or '\nnbdev.nbdev_export()' in c.source]
    assert set(copy.metadata) == {'kernelspec', 'language_info'}
    for cell in code:
        label = cell.source.partition('\n')[0]
        folds = cell.metadata.get('jupyter', {})
        assert bool(folds.get('source_hidden')) == (label[2:] in copies.LABELS), cell.source
        assert label != '# Solution' or folds['outputs_hidden']
    prose = [c for c in source.cells if c.cell_type != 'code']
    text = [c for c in copy.cells if c.cell_type != 'code']
    assert not [c.source for c in text if re.search(r'</details>\n\n(?!&nbsp;)', c.source)]
    assert [nbformat.from_dict({**c, 'source': c.source.replace('&nbsp;\n\n', '')}) for c in text] == prose
    assert nbformat.read(NOTEBOOKS[name], 4) == source  # which is still as it was


def test_imports_are_one_fold():
    first = '#| default_exp a.b', '#| export\nimport os', 'import sys', '#| hide\nfrom a import test_eq'
    prepare, shown, late = '#| export\n_ = prepare_icevision()\nimport icevision', 'x = 1', 'import torch'
    fold, code, last = made(*first, prepare, shown, late)[1:]
    lines = ['# Imports', 'import os', 'import sys', 'from a import test_eq', '_ = prepare_icevision()']
    assert fold.source.split('\n') == [*lines, 'import icevision'] and fold.metadata.jupyter == copies.FOLDED
    assert (code.source, last.source) == ('x = 1', 'import torch') and not code.metadata and not last.metadata


@pytest.mark.parametrize(
    'source, expected, folds',
    [
        ('#| export\ndef f(): ...', 'def f(): ...', {}),
        ('#| hide\ntest_eq(1, 1)', '# Check\ntest_eq(1, 1)', copies.FOLDED),
        ('#| hide\nfolder = 1', '# Set-up\nfolder = 1', copies.FOLDED),
        ('#| hide\nos.chdir(home)\nwork.cleanup()', '# Clean-up\nos.chdir(home)\nwork.cleanup()', copies.FOLDED),
        ('with as_in_the_text:\n    pass', '# Check\nwith as_in_the_text:\n    pass', copies.FOLDED),
        ('#| code-fold: true\n#| code-summary: "S"\nx = 1', '# Solution\nx = 1', copies.ALL_FOLDED),
        (
            '#| hide\nfolder.cleanup()\nimport nbdev\n\nnbdev.nbdev_export()',
            '# Clean-up\nfolder.cleanup()',
            copies.FOLDED,
        ),
    ],
)
def test_a_cell(source, expected, folds):
    cell = made('x = 0', source)[2]
    assert (cell.source, cell.metadata.get('jupyter', {})) == (expected, folds)


def test_imports_before_the_first_lines_that_are_shown_are_folded():
    platform = '#| export\nimport os\n\ntry:\n    import fcntl\nexcept ImportError:  # Windows\n    fcntl = None'
    prepare = "prepare_zenml('store', source='../..');"
    fold, shown, last = made(platform, 'import sys', prepare, '#| export\nimport zenml', 'import json')[1:]
    assert fold.source.endswith('fcntl = None\nimport sys') and last.source == '# Imports\nimport zenml\nimport json'
    assert shown.source == prepare and not shown.metadata
    assert not made('try:\n    import a\nexcept ImportError:\n    print(1)')[1].metadata  # this says something


def test_a_list_of_exports_is_dropped():
    assert len(made('#| export\n# found here, too\n_all_ = ["a"]')) == 1


def test_a_folded_result_does_not_give_itself_away():
    result = nbformat.v4.new_output('execute_result', {'text/plain': '42'})
    cell = nbformat.v4.new_code_cell('6 * 7', outputs=[result], metadata={'jupyter': {'outputs_hidden': True}})
    (copy,) = copies.reader_copy(nbformat.v4.new_notebook(cells=[cell])).cells
    blank, kept = copy.outputs  # JupyterLab shows the first line of the first one, even of what is folded
    assert blank.data == {'text/plain': ''} and kept == result and cell.outputs == [result]
    assert made('6 * 7', jupyter={'outputs_hidden': True})[1].outputs == []  # nothing to fold


def test_exports_are_dropped():
    assert len(made('#| hide\nimport nbdev\n\nnbdev.nbdev_export()', '#| default_exp a')) == 1


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Two notebooks, a page and a hidden file."""
    monkeypatch.setenv('JUPYTER_DATA_DIR', str(tmp_path / 'data'))
    folder = tmp_path / 'nbs'
    for name in ('index.ipynb', 'learn/01_a.ipynb'):
        put(folder / name, 'print(1)')
    (folder / 'cards.md').write_text('cards')
    (folder / '_draft.md').touch()
    return folder


def put(path, source):
    path.parent.mkdir(exist_ok=True, parents=True)
    cells = [nbformat.v4.new_markdown_cell('# T', id='a'), nbformat.v4.new_code_cell(source, id='b')]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def edit(path, source):
    nb = nbformat.read(path, 4)
    nb.cells[1].source = source
    nbformat.write(nb, path)


def code(path):
    return nbformat.read(path, 4).cells[1].source


def test_what_a_reader_has_changed_is_kept(sources, tmp_path):
    lab = tmp_path / 'lab'
    lesson = lab / 'learn' / '01_a.ipynb'
    assert copies.make(lab, sources) == {} and sorted(p.name for p in lab.rglob('*.*')) == [
        '.made.json',
        '01_a.ipynb',
        'cards.md',
        'index.ipynb',
    ]
    edit(lesson, 'mine')
    assert copies.make(lab, sources) == {} and code(lesson) == 'mine'  # the source is as it was
    put(sources / 'learn' / '01_a.ipynb', 'print(2)')
    put(sources / 'index.ipynb', 'print(2)')
    kept = copies.make(lab, sources)
    assert list(kept) == ['learn/01_a.ipynb'] and code(kept['learn/01_a.ipynb']) == 'mine'
    assert code(lesson) == code(lab / 'index.ipynb') == 'print(2)'
    edit(lesson, 'mine again')
    put(sources / 'learn' / '01_a.ipynb', 'print(3)')
    again = copies.make(lab, sources)
    assert code(again['learn/01_a.ipynb']) == 'mine again' and code(kept['learn/01_a.ipynb']) == 'mine'


def test_what_a_reader_has_only_run_makes_way(sources, tmp_path):
    lab = tmp_path / 'lab'
    copies.make(lab, sources)
    nb = nbformat.read(lab / 'index.ipynb', 4)
    nb.cells[1].outputs = [nbformat.v4.new_output('stream', text='1\n')]
    nb.cells[1].execution_count = 1
    nbformat.write(nb, lab / 'index.ipynb')
    put(sources / 'index.ipynb', 'print(2)')
    assert copies.make(lab, sources) == {} and code(lab / 'index.ipynb') == 'print(2)'


def test_what_was_there_before_is_kept(sources, tmp_path):
    lab = tmp_path / 'lab'
    put(lab / 'index.ipynb', 'mine')
    (lab / 'cards.md').write_text('my cards')
    kept = copies.make(lab, sources)
    assert code(kept['index.ipynb']) == 'mine' and kept['cards.md'].read_text() == 'my cards'


def test_a_broken_copy_is_kept(sources, tmp_path):
    lab = tmp_path / 'lab'
    copies.make(lab, sources)
    (lab / 'index.ipynb').write_text('no notebook')
    (lab / '.made.json').write_text(json.dumps({}))
    assert copies.make(lab, sources)['index.ipynb'].read_text() == 'no notebook'


def test_a_lesson_that_was_thrown_away_comes_back(sources, tmp_path):
    lab = tmp_path / 'lab'
    copies.make(lab, sources)
    (lab / 'index.ipynb').unlink()
    copies.make(lab, sources)
    assert code(lab / 'index.ipynb') == 'print(1)'


def test_copies_lie_as_deep_as_their_sources():
    assert copies.LAB.parent == NBS.parent


def test_what_a_browser_cannot_check_it_does_not_show():
    runs, not_run = ['x = 1', 'y = 2', 'z = 3'], ['import subprocess', 'subprocess.run("true")']
    check = 'with as_in_the_text:\n    assert subprocess'
    cells = [nbformat.v4.new_code_cell(source) for source in [*runs, *not_run, check]]
    lesson = lite.lesson(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell('# T'), *cells]))
    assert '4 of its 5 cells can run here' in lesson.cells[1].source
    assert not any('as_in_the_text' in cell.source for cell in lesson.cells)
    assert sum('shown, not run' in cell.source for cell in lesson.cells) == 1


def in_the_browser(*sources, failing=(), **outputs):
    """The cells of a lesson of such cells; `outputs` by the number of the cell, such as `_2=[…]`."""
    cells = [nbformat.v4.new_code_cell(s, outputs=outputs.get(f'_{i}', [])) for i, s in enumerate(sources)]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell('# T'), *cells])
    _title, _note, *made = lite.lesson(notebook, failing).cells
    return made


RUN = [f'x{i} = {i}' for i in range(6)]


def test_what_a_browser_does_not_have_is_named_also_by_what_builds_on_it():
    import_cell, calls, builds, fails, on_that = in_the_browser(
        'import numpy.random as np\nimport json',
        'a = np.zeros(3)',
        'print(a)',
        'b = 1 / 0',
        'print(b)',
        *RUN,
        failing=['b = 1 / 0'],
    )[:5]
    assert import_cell.source == '# Imports\nimport json'
    assert calls.source.endswith('it needs `numpy`.*') and builds.source.endswith('it needs `numpy`.*')
    assert fails.source.endswith('more than a browser has.*') and on_that.source.endswith('more than a browser has.*')


def test_a_module_can_be_imported_from_its_package():
    head = in_the_browser('from redaction_serde.lessons import hexdump', *RUN)[0]
    assert head.cell_type == 'code'
    assert in_the_browser('from redaction_serde.lessons import pages', *RUN)[0].cell_type == 'markdown'


def test_what_a_cell_drew_is_shown_where_it_is_not_run():
    drawn = nbformat.v4.new_output('display_data', {'image/png': 'aGk='}, metadata={'image/png': {'alt': 'two boxes'}})
    cell = in_the_browser('import numpy', 'numpy.draw()', *RUN, _1=[drawn])[1]
    assert '![two boxes](attachment:0.png)' in cell.source and cell.attachments['0.png'] == {'image/png': 'aGk='}


class Talkative:
    """A reference to itself, which the collector finds; then Python code runs, wherever that happens."""

    def __init__(self):
        self.me = self

    def __del__(self):
        sum(range(100))


def test_threads_take_turns_in_the_parser():
    """In Python 3.11 two at once end in a SystemError, if one is interrupted there: which the collector sees to here."""
    notebook = nbformat.read(NOTEBOOKS['learn/01_bytes.ipynb'], 4)
    often, short = gc.get_threshold(), sys.getswitchinterval()

    def many_times(_):
        for _ in range(10):
            waste = [Talkative() for _ in range(1000)]
            del waste
            assert lite.lesson_alone(notebook, set()).cells

    gc.set_threshold(50)
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(many_times, range(2)))
    finally:
        gc.set_threshold(*often)
        sys.setswitchinterval(short)


def test_a_solution_that_is_not_run_is_folded():
    solution = nbformat.v4.new_code_cell('# Solution\nimport torch', outputs=[])
    assert lite.shown(solution, {'torch'}).source.startswith('<details><summary>Solution</summary>\n\n```python\n')
    assert lite.shown(nbformat.v4.new_code_cell('import torch', outputs=[]), {'torch'}).source.startswith('```python')
