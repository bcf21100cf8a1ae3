"""JupyterLite: lessons that run in the reader's browser, with Pyodide and every wheel served from the site itself.

`lesson` says which part of a notebook can run there; `build` makes the folder. Nothing is fetched when a page is read.
"""
import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNEL = ['micropip', 'packaging', 'ipython', 'jedi', 'comm', 'traitlets']   # what the kernel asks for
OURS = ['msgspec', 'fastcore', 'protobuf', 'typing-extensions']              # what the lessons ask for, of what there is for Pyodide
IMPORTS = {'msgspec', 'fastcore', 'google', 'redaction_serde', 'IPython'}    # their names in an import statement
ROOMS = {'schema', 'formats', 'hexdump', 'pickles'}                          # modules of ours that need nothing else
NEVER = {'subprocess', 'signal', 'socket', 'multiprocessing', 'ctypes', 'resource'}  # can be imported there, but not used
ENOUGH = .5  # a lesson is offered if at least this part of its code can run


# -- which part of a notebook ------------------------------------------------------------------------------------------

def missing(node):
    """Modules that an import statement wants and that a browser does not have."""
    names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or '']
    return [n for n in names if not has(n)]


def has(module):
    top, _, rest = module.partition('.')
    if top == 'redaction_serde': return not rest or rest.split('.')[0] in ROOMS
    return top in sys.stdlib_module_names or top in IMPORTS


def bound(node):
    """Names that a piece of code gives a value."""
    names = set()
    for n in ast.walk(node):
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store): names.add(n.id)
        elif isinstance(n, (ast.FunctionDef, ast.ClassDef)): names.add(n.name)
        elif isinstance(n, (ast.Import, ast.ImportFrom)): names |= {(a.asname or a.name).split('.')[0] for a in n.names}
    return names


def used(node): return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def thinned(source, tree):
    """A cell of imports without those that a browser cannot have: source, and the names that are lost."""
    lost = set()
    for node in tree.body:
        if not isinstance(node, (ast.Import, ast.ImportFrom)) or not missing(node): continue
        gone = set(missing(node))
        if isinstance(node, ast.Import):
            lost |= {(a.asname or a.name).split('.')[0] for a in node.names if a.name in gone}
            node.names = [a for a in node.names if a.name not in gone]
        else:
            lost |= bound(node)
            node.names = []
    tree.body = [n for n in tree.body if getattr(n, 'names', True)]
    return (ast.unparse(tree) if lost else source), lost


def lesson(nb):
    """(notebook for the browser, titles of what was left out), or (None, …) if too little is left.

    A section that needs a package which is not there is left out whole, and so is one that needs a name from such a section.
    """
    import nbformat
    sections, lost, kept, left_out, total, ran = [[]], set(NEVER), [], [], 0, 0
    for cell in nb.cells:
        if cell.cell_type == 'markdown' and cell.source.startswith('## '): sections.append([])
        sections[-1].append(cell)
    for number, section in enumerate(sections):
        cells, names, blocked, code = [], set(), False, 0
        for cell in section:
            if cell.cell_type != 'code':
                cells.append(nbformat.v4.new_markdown_cell(cell.source))
                continue
            source = '\n'.join(line for line in cell.source.split('\n') if not line.startswith('#|'))
            if 'nbdev_export()' in source or not source.strip(): continue
            try: tree = ast.parse(source)
            except SyntaxError: blocked = True; break
            code += 1
            source, gone = thinned(source, tree)
            lost |= gone
            names |= bound(tree)
            local = {n for x in ast.walk(tree) if isinstance(x, (ast.FunctionDef, ast.Lambda)) for n in [a.arg for a in x.args.args + x.args.kwonlyargs]}
            if used(tree) & (lost - (names - NEVER) - local) or any(missing(n) for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))): blocked = True
            if source.strip(): cells.append(nbformat.v4.new_code_cell(source))
        total += code
        if blocked and number:
            lost |= names
            left_out.append(section[0].source.split('\n')[0][3:])
            continue
        if blocked: return None, [s[0].source.split('\n')[0][3:] for s in sections[1:]]
        ran += code
        lost -= names - NEVER
        kept += cells
    if os.environ.get('LITE_DEBUG'): print(f'{ran} of {total}')
    if total and ran/total < ENOUGH: return None, left_out
    note = 'This copy runs in your browser, on Pyodide; nothing is sent anywhere. Run all cells from the menu *Run*, or one at a time with Shift+Enter.'
    if left_out: note += ' It leaves out what needs packages that a browser does not have: ' + ', '.join(f'*{t}*' for t in left_out) + '.'
    kept.insert(1, nbformat.v4.new_markdown_cell(note))
    made = nbformat.v4.new_notebook(cells=kept, metadata={'kernelspec': {'name': 'python', 'display_name': 'Python (Pyodide)', 'language': 'python'}, 'language_info': {'name': 'python'}})
    for i, cell in enumerate(made.cells): cell['id'] = f'cell-{i}'
    return made, left_out


# -- the folder --------------------------------------------------------------------------------------------------------

def run(command, what, **kw):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, stdin=subprocess.DEVNULL, **kw)
    if done.returncode: raise RuntimeError(f'{what}: {(done.stderr.strip() or done.stdout.strip())[-800:]}')
    return done


def pin(name):
    """The version that constraints.txt has for a package."""
    found = re.search(rf'^{re.escape(name)}==([^;\s]+)', (ROOT/'constraints.txt').read_text(encoding='utf-8'), re.M | re.I)
    return found and found[1]


def closure(names, packages):
    """Packages with all that they depend on, as Pyodide's lock file has it."""
    found, queue = {}, list(names)
    while queue:
        name = queue.pop()
        if name in found: continue
        found[name] = packages.get(name) or {'name': name, 'depends': [], 'imports': [], 'install_dir': 'site', 'package_type': 'package', 'unvendored_tests': False}
        queue += found[name]['depends']
    return found


def wheels(found, info, folder):
    """Fetch a wheel for each package with pip: for Pyodide's own platform if there is one, else a pure one."""
    version = info['python'].rsplit('.', 1)[0]
    base = [sys.executable, '-m', 'pip', 'download', '-q', '--disable-pip-version-check', '--no-deps', '--only-binary=:all:', '--dest', folder,
            '--python-version', version, '--implementation', 'cp', '--abi', f'cp{version.replace(".", "")}', '--abi', 'abi3', '--abi', 'none',
            '--platform', f'pyemscripten_{info["abi_version"]}_wasm32', '--platform', 'any']
    wanted = []
    for name, p in found.items():
        exact = (name in OURS and pin(name)) or p.get('version') or pin(name)
        if not exact: raise RuntimeError(f'no version of {name} is named anywhere')
        wanted.append(f'{name}=={exact}')
    run([*base, *wanted], 'wheels for Pyodide')


def our_wheel(folder):
    """This package as a wheel, built from a copy."""
    with tempfile.TemporaryDirectory() as copy:
        copy = Path(copy)
        shutil.copytree(ROOT/'redaction_serde', copy/'redaction_serde', ignore=shutil.ignore_patterns('__pycache__'))
        for name in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE'): shutil.copy(ROOT/name, copy)
        run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', folder, copy], 'our own wheel', env={**os.environ, 'SOURCE_DATE_EPOCH': '1700000000'})


def pyodide(npm, target):
    """Pyodide from its npm package, with a lock file that names only what lies beside it."""
    target.mkdir(parents=True)
    for name in ('pyodide.mjs', 'pyodide.js', 'pyodide.asm.mjs', 'pyodide.asm.wasm', 'python_stdlib.zip'):
        if (npm/'pyodide'/name).exists(): shutil.copy(npm/'pyodide'/name, target)
    lock = json.loads((npm/'pyodide'/'pyodide-lock.json').read_text(encoding='utf-8'))
    found = closure(KERNEL + OURS, lock['packages'])
    wheels(found, lock['info'], target)
    found['redaction-serde'] = {**closure(['x'], {})['x'], 'name': 'redaction-serde', 'depends': ['msgspec'], 'imports': ['redaction_serde']}
    our_wheel(target)
    files = {re.sub(r'[-_.]+', '-', p.name.split('-')[0]).lower(): p for p in target.glob('*.whl')}
    imports = {'fastcore': ['fastcore'], 'comm': ['comm'], 'protobuf': ['google', 'google.protobuf']}
    for name, p in found.items():
        path = files[re.sub(r'[-_.]+', '-', name).lower()]
        p.update(file_name=path.name, version=path.name.split('-')[1], sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        if not p['imports']: p['imports'] = imports.get(name, [name.replace('-', '_')])
    (target/'pyodide-lock.json').write_text(json.dumps({'info': lock['info'], 'packages': found}), encoding='utf-8')


def build(lessons, npm, target, work):
    """Make the folder: the notebook app, Pyodide, the lessons. `lessons` maps file names to notebooks."""
    import nbformat
    shutil.rmtree(work, ignore_errors=True)
    contents = work/'contents'
    contents.mkdir(parents=True)
    for name, nb in lessons.items(): nbformat.write(nb, contents/name)
    pyodide(npm, work/'static'/'pyodide')
    settings = {'jupyter-lite-schema-version': 0, 'jupyter-config-data': {'appName': 'redaction_serde', 'litePluginSettings': {'@jupyterlite/pyodide-kernel-extension:kernel': {
        'pyodideUrl': './static/pyodide/pyodide.mjs', 'disablePyPIFallback': True,
        'loadPyodideOptions': {'lockFileURL': './static/pyodide/pyodide-lock.json', 'packages': ['micropip', 'comm', 'ipython', 'jedi']}}}}}
    (work/'jupyter-lite.json').write_text(json.dumps(settings), encoding='utf-8')
    run([Path(sys.executable).parent/'jupyter', 'lite', 'build', '--lite-dir', work, '--contents', contents, '--output-dir', target,
         '--apps', 'notebooks', '--no-sourcemaps', '--no-unused-shared-packages'], 'jupyter lite build', cwd=work,
        env={**os.environ, 'JUPYTER_PREFER_ENV_PATH': '1', 'JUPYTER_PATH': str(Path(sysconfig.get_path('data'))/'share'/'jupyter')})
    for unused in target.rglob('*.map'): unused.unlink()
