"""JupyterLite: lessons that run in the reader's browser, with Pyodide and every wheel served from the site itself.

`lesson` says which part of a notebook can run there; `build` makes the folder. Nothing is fetched when a page is read.
"""

import ast
import contextlib
import hashlib
import json
import os
import queue
import re
import shutil
import subprocess
import symtable
import sys
import sysconfig
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from copies import reader_copy
from notebooks import IMPORT

ROOT = Path(__file__).resolve().parent.parent
KERNEL = ['micropip', 'packaging', 'ipython', 'jedi', 'comm', 'traitlets']  # what the kernel asks for
OURS = [
    'msgspec',
    'fastcore',
    'protobuf',
    'typing-extensions',
]  # what the lessons ask for, of what there is for Pyodide
IMPORTS = {'msgspec', 'fastcore', 'google', 'redaction_serde', 'IPython'}  # their names in an import statement
ROOMS = {
    'schema',
    'formats',
    'document',
    'errors',
    'pickles',
    'lessons.diagrams',
    'lessons.fates',
    'lessons.hexdump',
    'lessons.listings',
    'lessons.messages',
    'lessons.reading',
    'lessons.tracer',
}  # modules of ours that need nothing else, or whole rooms
NEVER = {
    'subprocess',
    'signal',
    'socket',
    'multiprocessing',
    'ctypes',
    'resource',
}  # can be imported there, but not used
# When a cell fails, JupyterLite cancels what waits in line, and answers none of it. Only Run All knows then that its own
# cells will not be run; those of another run, or a question of the notebook's, would be waited for until the page is closed.
SILENT = '''if(("interrupt"===n||"interrupt-subsequent"===n)&&"execute_request"===s.header.msg_type){'''
ANSWERED = '''if("execute_request"!==s.header.msg_type)return a(s);if(n){'''
REPLY = '''let r={status:"error",ename:"Kernel Interrupt",evalue:"Interrupted",traceback:[]}'''
ABORTED = REPLY.replace('r=', 'r="error"===n?{status:"aborted"}:')
ENOUGH = 0.45  # a lesson is offered if at least this part of its cells can run
PARSING = threading.Lock()


# -- which part of a notebook ------------------------------------------------------------------------------------------


def missing(node):
    """Modules that an import statement wants and that a browser does not have."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if not has(alias.name)]
    module = node.module or ''
    by_name = all(has(f'{module}.{alias.name}') for alias in node.names)  # modules themselves, from a package
    return [] if has(module) or by_name else [module]


def has(module):
    top, _, rest = module.partition('.')
    if top == 'redaction_serde':
        return not rest or any(f'{rest}.'.startswith(f'{room}.') for room in ROOMS)
    return top in sys.stdlib_module_names or top in IMPORTS


def names(source):
    """The global names that a cell binds, and those that it uses, in functions too."""

    def walk(table, top):
        for symbol in table.get_symbols():
            if top and (symbol.is_assigned() or symbol.is_imported()):
                bound.add(symbol.get_name())
            if symbol.is_referenced() and (top or symbol.is_global()):
                used.add(symbol.get_name())
        for child in table.get_children():
            walk(child, False)

    bound, used = set(), set()
    walk(symtable.symtable(source, 'cell', 'exec'), True)
    return bound, used


def thinned(source, tree):
    """A cell of imports without those that a browser cannot have: source, and the lost names with their modules."""
    lost = {}
    for node in tree.body:
        if not isinstance(node, IMPORT) or not missing(node):
            continue
        gone = set(missing(node))
        if isinstance(node, ast.Import):
            lost |= {(a.asname or a.name).split('.')[0]: a.name for a in node.names if a.name in gone}
            node.names = [a for a in node.names if a.name not in gone]
        else:
            lost |= {a.asname or a.name: node.module for a in node.names}
            node.names = []
    tree.body = [n for n in tree.body if getattr(n, 'names', True)]
    label = source.partition('\n')[0] + '\n' if source.startswith('#') else ''
    return (label * bool(tree.body) + ast.unparse(tree) if lost else source), lost


def shown(cell, needs):
    """A cell that cannot run in a browser, as text, with what it printed and drew when the site was built."""
    import nbformat

    packages = {name if name.startswith('redaction_serde') else name.partition('.')[0] for name in needs}
    what = ', '.join(f'`{name}`' for name in sorted(packages)[:4]) or 'more than a browser has'
    text = f'```python\n{cell.source}\n```\n\n*This cell is shown, not run: it needs {what}.*'
    said, pictures = '', {}
    for output in cell.outputs:
        data = output.get('data', {})
        if 'image/png' in data:
            name = f'{len(pictures)}.png'
            pictures[name] = {'image/png': ''.join(data['image/png'])}
            alt = output.metadata.get('image/png', {}).get('alt', '')
            text += f'\n\n![{alt}](attachment:{name})'
            continue
        plain = output.get('text') or ''.join(data.get('text/plain', ''))
        if not plain.startswith('<IPython.core.display.'):  # an object that draws itself, whose text says nothing
            said += plain
    if said.strip():
        text += f'\n\n```text\n{said.rstrip()[:2000]}\n```'
    if cell.source.startswith('# Solution\n'):  # the reader tries first
        text = f'<details><summary>Solution</summary>\n\n{text}\n\n</details>'
    return nbformat.v4.new_markdown_cell(text, attachments=pictures)


def lesson(nb, failing=()):
    """An executed notebook for the browser, or None if too little of it (`ENOUGH`) can run there.

    A cell that needs a package which a browser does not have is shown with its output instead, and so is one that builds on it.
    `failing` are the sources of cells that were tried and failed.
    """
    import nbformat

    # names that a browser does not have, each with the modules for want of which
    lost = {module: {module} for module in NEVER}
    cells, total, ran, checks = [], 0, 0, 0
    for cell in reader_copy(nb).cells:
        if cell.cell_type != 'code':
            cells.append(nbformat.v4.new_markdown_cell(cell.source))
            continue
        source = cell.source
        total += 1
        tree = ast.parse(source)
        thin, gone = thinned(source, tree)
        bound, used = names(thin)
        deep = {m for n in ast.walk(tree) if isinstance(n, IMPORT) for m in missing(n)}
        known = lost | {name: {module} for name, module in gone.items()}
        wants = used & known.keys()
        if wants or deep or (gone and not thin.strip()) or thin in failing:
            needs = deep.union(gone.values(), *(known[name] for name in wants))
            lost |= dict.fromkeys(bound | gone.keys(), needs)
            if source.startswith('# Check\n'):
                checks += 1  # says nothing to a reader of what was not run
            else:
                cells.append(shown(cell, needs))
            continue
        lost = {name: known[name] for name in known if name not in bound or name in NEVER or name in gone}
        ran += 1
        cells.append(nbformat.v4.new_code_cell(thin, metadata=cell.metadata))
    if ran < ENOUGH * total:
        return None
    note = 'This copy runs in your browser, on Pyodide; nothing is sent anywhere. Run all cells from the menu *Run*, or one at a time with Shift+Enter.'
    if ran < total - checks:
        note += f' {ran} of its {total - checks} cells can run here; the others are shown with what they printed.'
    cells.insert(1, nbformat.v4.new_markdown_cell(note))
    made = nbformat.v4.new_notebook(
        cells=cells,
        metadata={
            'kernelspec': {'name': 'python', 'display_name': 'Python (Pyodide)', 'language': 'python'},
            'language_info': {'name': 'python'},
        },
    )
    for i, cell in enumerate(made.cells):
        cell['id'] = f'cell-{i}'
    return made


# -- the folder --------------------------------------------------------------------------------------------------------


def run(command, what, **kw):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, stdin=subprocess.DEVNULL, **kw)
    if done.returncode:
        raise RuntimeError(f'{what}: {(done.stderr.strip() or done.stdout.strip())[-800:]}')
    return done


def pin(name):
    """The version that constraints.txt has for a package."""
    found = re.search(
        rf'^{re.escape(name)}==([^;\s]+)', (ROOT / 'constraints.txt').read_text(encoding='utf-8'), re.M | re.I
    )
    return found and found[1]


def canonical(name):
    return re.sub(r'[-_.]+', '-', name).lower()


def closure(names, packages):
    """Packages with all that they depend on, as Pyodide's lock file has it."""
    found, queue = {}, list(names)
    while queue:
        name = canonical(queue.pop())
        if name in found:
            continue
        found[name] = packages.get(name) or {
            'name': name,
            'depends': [],
            'imports': [],
            'install_dir': 'site',
            'package_type': 'package',
            'unvendored_tests': False,
        }
        queue += found[name]['depends']
    return found


def wheels(found, info, folder):
    """Fetch a wheel for each package with pip: for Pyodide's own platform if there is one, else a pure one."""
    version = info['python'].rsplit('.', 1)[0]
    base = [
        sys.executable,
        '-m',
        'pip',
        'download',
        '-q',
        '--disable-pip-version-check',
        '--no-deps',
        '--only-binary=:all:',
        '--dest',
        folder,
        '--python-version',
        version,
        '--implementation',
        'cp',
        '--abi',
        f'cp{version.replace(".", "")}',
        '--abi',
        'abi3',
        '--abi',
        'none',
        '--platform',
        f'pyemscripten_{info["abi_version"]}_wasm32',
        '--platform',
        'any',
    ]
    wanted = []
    for name, p in found.items():
        exact = (name in OURS and pin(name)) or p.get('version') or pin(name)
        if not exact:
            raise RuntimeError(f'no version of {name} is named anywhere')
        wanted.append(f'{name}=={exact}')
    run([*base, *wanted], 'wheels for Pyodide')


def our_wheel(folder):
    """This package as a wheel, built from a copy."""
    with tempfile.TemporaryDirectory() as copy:
        copy = Path(copy)
        shutil.copytree(
            ROOT / 'redaction_serde', copy / 'redaction_serde', ignore=shutil.ignore_patterns('__pycache__')
        )
        for name in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
            shutil.copy(ROOT / name, copy)
        run(
            [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', folder, copy],
            'our own wheel',
            env={**os.environ, 'SOURCE_DATE_EPOCH': '1700000000'},
        )


def pyodide(npm, target):
    """Pyodide from its npm package, with a lock file that names only what lies beside it."""
    target.mkdir(parents=True)
    for name in ('pyodide.mjs', 'pyodide.js', 'pyodide.asm.mjs', 'pyodide.asm.wasm', 'python_stdlib.zip'):
        if (npm / 'pyodide' / name).exists():
            shutil.copy(npm / 'pyodide' / name, target)
    lock = json.loads((npm / 'pyodide' / 'pyodide-lock.json').read_text(encoding='utf-8'))
    found = closure(KERNEL + OURS, lock['packages'])
    wheels(found, lock['info'], target)
    found['redaction-serde'] = {
        **closure(['x'], {})['x'],
        'name': 'redaction-serde',
        'depends': ['msgspec', 'protobuf'],
        'imports': ['redaction_serde'],
    }
    our_wheel(target)
    files = {canonical(p.name.split('-')[0]): p for p in target.glob('*.whl')}
    imports = {'fastcore': ['fastcore'], 'comm': ['comm'], 'protobuf': ['google', 'google.protobuf']}
    for name, p in found.items():
        path = files[name]
        p.update(
            file_name=path.name, version=path.name.split('-')[1], sha256=hashlib.sha256(path.read_bytes()).hexdigest()
        )
        if not p['imports']:
            p['imports'] = imports.get(name, [name.replace('-', '_')])
    (target / 'pyodide-lock.json').write_text(json.dumps({'info': lock['info'], 'packages': found}), encoding='utf-8')


def lesson_alone(nb, failing):
    """`lesson`, in one thread at a time.

    Threads in Python 3.11's parser count the depth of their trees together, and a switch between them ends in a SystemError
    (https://github.com/python/cpython/issues/106905).
    """
    with PARSING:
        return lesson(nb, failing)


class Trial:
    """A process that runs notebooks in Pyodide, one after the other."""

    def __init__(self, folder):
        self.said = tempfile.TemporaryFile('w+')
        command = ['node', ROOT / 'tools' / 'try_in_pyodide.mjs', folder]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True
        )

    def failures(self, path):
        """The sources of the cells that failed."""
        with contextlib.suppress(BrokenPipeError):
            print(path, file=self.process.stdin, flush=True)
        if answer := self.process.stdout.readline():
            return json.loads(answer)
        self.said.seek(0)
        raise RuntimeError(f'Pyodide in node: {self.said.read()[-500:]}')

    def close(self):
        self.process.communicate()
        self.said.close()


def tried(nb, trial, path):
    """Write the part of a notebook that runs in Pyodide from first to last, having tried it. False if that is too little."""
    import nbformat

    failing = set()
    while made := lesson_alone(nb, failing):
        nbformat.write(made, path)
        new = set(trial.failures(path)) - failing
        if not new:
            return True
        failing |= new
    path.unlink(missing_ok=True)
    return False


def all_tried(notebooks, folder, contents):
    """The names of those that run in Pyodide, written into `contents`; two at a time."""
    trials = queue.SimpleQueue()
    for trial in (made := [Trial(folder), Trial(folder)]):
        trials.put(trial)

    def fits(name):
        trial = trials.get()
        try:
            return tried(notebooks[name], trial, contents / name)
        finally:
            trials.put(trial)

    try:
        with ThreadPoolExecutor(len(made)) as pool:
            return [name for name, fit in zip(notebooks, pool.map(fits, notebooks)) if fit]
    finally:
        for trial in made:
            trial.close()


def answer_aborted(folder):
    """Have the kernel's client say of each cell that was cancelled by an error that it is aborted, as ipykernel does.

    Other messages stay in line. Raises RuntimeError where JupyterLite is not the one that this was written for.
    """
    found = [path for path in (folder / 'build').glob('*.js') if SILENT in path.read_text(encoding='utf-8')]
    text = found[0].read_text(encoding='utf-8') if len(found) == 1 else ''
    if text.count(SILENT) != 1 or text.count(REPLY) != 1:
        raise RuntimeError("JupyterLite's kernel client is another: does it answer the cells that an error cancels?")
    found[0].write_text(text.replace(SILENT, ANSWERED).replace(REPLY, ABORTED), encoding='utf-8')


def say_loading(folder):
    """Have the notebook page say that Python is loading, until its kernel has answered."""
    shutil.copy(ROOT / 'tools' / 'loading.js', folder)
    page = folder / 'notebooks' / 'index.html'
    text = page.read_text(encoding='utf-8')
    if text.count('</body>') != 1:
        raise RuntimeError("JupyterLite's notebook page has no end of its body")
    page.write_text(text.replace('</body>', '<script src="../loading.js"></script></body>'), encoding='utf-8')


def build(notebooks, npm, target, work):
    """Make the folder: the notebook app, Pyodide, the lessons. Returns the names of those that can run there, of executed `notebooks` by their names."""
    shutil.rmtree(work, ignore_errors=True)
    contents = work / 'contents'
    contents.mkdir(parents=True)
    pyodide(npm, work / 'static' / 'pyodide')
    for name in notebooks:
        (contents / name).parent.mkdir(parents=True, exist_ok=True)
    names = all_tried(notebooks, work / 'static' / 'pyodide', contents)
    settings = {
        'jupyter-lite-schema-version': 0,
        'jupyter-config-data': {
            'appName': 'redaction_serde',
            'litePluginSettings': {
                '@jupyterlite/pyodide-kernel-extension:kernel': {
                    'pyodideUrl': './static/pyodide/pyodide.mjs',
                    'disablePyPIFallback': True,
                    'loadPyodideOptions': {
                        'lockFileURL': './static/pyodide/pyodide-lock.json',
                        'packages': ['micropip', 'comm', 'ipython', 'jedi'],
                    },
                }
            },
        },
    }
    (work / 'jupyter-lite.json').write_text(json.dumps(settings), encoding='utf-8')
    # without being told what to ignore, it would ignore a folder named `build`
    run(
        [
            Path(sys.executable).parent / 'jupyter',
            'lite',
            'build',
            '--lite-dir',
            work,
            '--contents',
            contents,
            '--output-dir',
            target,
            '--ignore-contents',
            r'/\.ipynb_checkpoints',
            '--apps',
            'notebooks',
            '--no-sourcemaps',
            '--no-unused-shared-packages',
        ],
        'jupyter lite build',
        cwd=work,
        env={
            **os.environ,
            'JUPYTER_PREFER_ENV_PATH': '1',
            'JUPYTER_PATH': str(Path(sysconfig.get_path('data')) / 'share' / 'jupyter'),
        },
    )
    answer_aborted(target)
    say_loading(target)
    for unused in target.rglob('*.map'):
        unused.unlink()
    return names
