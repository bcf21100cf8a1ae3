"""Copies of the notebooks for their readers, in lab/: no directives, no export, tests and solutions folded.

python tools/copies.py     makes them, or brings them up to date. A copy that its reader has changed is never lost.

`make lab` opens them, and JupyterLite shows them (`lite.py`). The sources in nbs/ stay as they are.
"""

import datetime
import hashlib
import json
import platform
import re
import shutil
from pathlib import Path

import nbformat
from nbformat.sign import NotebookNotary

from notebooks import NBS, ROOT, hidden, is_export_list, is_import, is_preparing, is_test

LAB = ROOT / 'lab'  # as deep as nbs/, so that links and paths of the notebooks hold
KERNEL = {
    'kernelspec': {'display_name': 'Python 3 (ipykernel)', 'language': 'python', 'name': 'python3'},
    'language_info': {
        'codemirror_mode': {'name': 'ipython', 'version': 3},
        'file_extension': '.py',
        'mimetype': 'text/x-python',
        'name': 'python',
        'nbconvert_exporter': 'python',
        'pygments_lexer': 'ipython3',
        'version': platform.python_version(),
    },
}  # what JupyterLab would write on opening, and then call the notebook changed
EXPORTING = re.compile(r'^(import nbdev|(nbdev\.)?nbdev_export\(\))$', re.M)
DIRECTIVE = re.compile(r'^#\|[ \t]*(\S+?):?(?:[ \t]+(.*))?$', re.M)
LABELS = {
    'Imports',
    'Check',
    'Set-up',
    'Clean-up',
    'Solution',
    'How this is drawn',
    'How this is made',
}  # first lines of folds
ENDING = re.compile(r'^(\w+\.(cleanup|close|stop)\(\)|shutil\.rmtree\(.*\))$', re.M)  # what a lesson has used is let go
FOLDED = {'source_hidden': True}
BLANK = nbformat.v4.new_output('display_data', {'text/plain': ''})  # JupyterLab shows a folded result's first line
ALL_FOLDED = {'source_hidden': True, 'outputs_hidden': True}


# -- one notebook ------------------------------------------------------------------------------------------------------


def fold(cell, directives):
    """What JupyterLab says in the place of a cell that is folded (None for one that is not), and how far it is folded."""
    now = dict(cell.metadata.get('jupyter', {}))
    if 'code-fold' in directives:
        return 'Solution', ALL_FOLDED
    if cell.source.startswith('with as_in_the_text:'):
        return 'Check', FOLDED  # what it prints is meant for the reader
    if 'hide' in directives:
        label = 'Set-up'
        if re.search(r'^ *(assert|test_)', cell.source, re.M):
            label = 'Check'
        elif ENDING.search(cell.source):
            label = 'Clean-up'
        return label, ALL_FOLDED if cell.get('outputs') else FOLDED
    if now.get('source_hidden'):
        return 'How this is drawn' if 'Diagram(' in cell.source else 'Set-up', now
    if directives.get('echo') == 'false':
        return 'How this is made', now | FOLDED
    if 'export' not in directives and not cell.get('outputs') and is_test(cell.source):
        return 'Check', FOLDED
    return None, now


def reader_cell(cell, first):
    """A cell of code as its reader should meet it, or None if it is not for readers.

    `first`: no code is shown before it, except what has to be prepared for the imports.
    """
    directives = dict(DIRECTIVE.findall(cell.source))
    source = EXPORTING.sub('', DIRECTIVE.sub('', cell.source)).strip('\n')
    if not source.strip() or is_export_list(source):
        return None
    label, folds = fold(cell, directives)
    if is_import(source) and (first or label or 'export' in directives):
        label, folds = 'Imports', FOLDED
    if label:
        source = f'# {label}\n{source}'  # JupyterLab shows the first line of what is folded
    metadata = {'jupyter': dict(folds)} if folds else {}
    outputs = [
        output | {'execution_count': None} if 'execution_count' in output else output
        for output in cell.get('outputs', [])
    ]
    if outputs and folds.get('outputs_hidden'):
        outputs.insert(0, BLANK)
    changed = {'source': source, 'metadata': metadata, 'outputs': outputs, 'execution_count': None}
    return nbformat.from_dict({**cell, **changed})


def spaced(cell):
    """A cell of text with some room after each fold: JupyterLab leaves none, and an answer would stand with the next question."""
    text = re.sub(r'</details>\n\n(?=\S)', '</details>\n\n&nbsp;\n\n', cell.source)
    return nbformat.from_dict({**cell, 'source': text})


def reader_copy(nb):
    """A notebook without its machinery. Imports, and the set-up beside them, are one fold; for the rest see `fold`."""
    cells, first = [], True
    for cell in nb.cells:
        new = reader_cell(cell, first) if cell.cell_type == 'code' else spaced(cell)
        if new is None:
            continue
        labels = [c.source.partition('\n')[0] if c.cell_type == 'code' else '' for c in (cells[-1:] + [new])]
        if labels == ['# Imports', '# Imports'] or (first and labels == ['# Imports', '# Set-up'] and not new.outputs):
            cells[-1].source += '\n' + new.source.partition('\n')[2]
            continue
        folded = new.cell_type != 'code' or new.metadata.get('jupyter', {}).get('source_hidden', False)
        first = first and (folded or is_preparing(new.source))
        cells.append(new)
    return nbformat.v4.new_notebook(cells=cells, metadata=KERNEL)


# -- the folder --------------------------------------------------------------------------------------------------------


def digest(data):
    return hashlib.sha256(data).hexdigest()[:20]


def content(path):
    """What a reader may have changed in a file, as a digest: running a notebook changes nothing."""
    if path.suffix != '.ipynb':
        return digest(path.read_bytes())
    try:
        cells = nbformat.read(path, as_version=4).cells
    except Exception:  # no notebook any more: it is the reader's own, whatever it is
        return digest(path.read_bytes())
    return digest(json.dumps([(cell.cell_type, cell.source) for cell in cells]).encode())


def aside(path):
    """A free name beside a file, under which what its reader made of it is kept."""
    day = datetime.date.today().isoformat()
    names = (path.with_name(f'mine-{day}{n}-{path.name}') for n in ('', *(f'-{i}' for i in range(2, 10_000))))
    return next(name for name in names if not name.exists())


def write(source, target):
    """Make one copy. A notebook is signed, as its outputs come from here: JupyterLab then shows them whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix != '.ipynb':
        shutil.copyfile(source, target)
        return
    nb = reader_copy(nbformat.read(source, as_version=4))
    nbformat.write(nb, target)
    NotebookNotary().sign(nbformat.read(target, as_version=4))


def make(folder=LAB, sources=NBS):
    """Bring the copies up to date. Returns the files that were kept beside a newer one, by the names of both.

    A copy is made anew if its source is another than it was; if its reader has changed it, it is kept under another name.
    """
    record = folder / '.made.json'
    made = json.loads(record.read_text(encoding='utf-8')) if record.exists() else {}
    kept = {}
    version = digest(Path(__file__).read_bytes() + platform.python_version().encode())
    for source in sorted(path for path in sources.rglob('*') if path.is_file()):
        name = source.relative_to(sources).as_posix()
        target = folder / name
        if hidden(name):
            continue
        wanted = digest(source.read_bytes() + version.encode())
        before = made.get(name, {})
        if target.exists() and before.get('source') == wanted:
            continue
        if target.exists() and content(target) != before.get('content'):
            kept[name] = aside(target)
            target.rename(kept[name])
        write(source, target)
        made[name] = {'source': wanted, 'content': content(target)}
    record.write_text(json.dumps(made, indent=1), encoding='utf-8')
    return kept


def main():
    kept = make()
    print(
        f'The lessons are copies, in {LAB.relative_to(ROOT)}/: change what you like. `make lab NBS=nbs` opens the sources.'
    )
    for name, path in kept.items():
        print(f'There is a newer lab/{name}; yours is now {path.relative_to(ROOT)}')


if __name__ == '__main__':
    main()
