"""Run notebooks in real Jupyter kernels, each with a store and a temporary folder of its own.

    python tools/run_notebooks.py [--store] [NAME ...]

Without names: all of nbs/. With --store the outputs are kept in the notebooks, which are then cleaned as `nbdev_clean` does.
The tests and the site share what `executed` returns, so that no notebook runs twice for the same sources.
"""
import argparse
import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT/'build'/'executed'  # notebooks with the outputs of their last run


def run_notebook(path, timeout=600):
    """Execute one notebook as a person would in JupyterLab and return it with its outputs. Raises CellExecutionError."""
    import nbformat
    from nbclient import NotebookClient
    from nbconvert.preprocessors.coalescestreams import CoalesceStreamsPreprocessor
    nb = nbformat.read(path, as_version=4)
    skipped = [c for c in nb.cells if c.cell_type == 'code' and (
        'nbdev_export()' in c.source or any(line.replace(' ', '') == '#|eval:false' for line in c.source.splitlines()))]
    sources = [c.source for c in skipped]
    with tempfile.TemporaryDirectory(prefix='notebook-') as folder:
        env = {**os.environ, 'TMPDIR': folder, 'ZENML_CONFIG_PATH': f'{folder}/zenml', 'OMP_NUM_THREADS': os.environ.get('OMP_NUM_THREADS', '1'),
               'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}', 'PYTHONWARNINGS': 'ignore'}
        for cell in skipped: cell.source = ''  # exporting is not the reader's business, and notebooks run side by side
        client = NotebookClient(nb, timeout=timeout, kernel_name='python3', extra_arguments=['--log-level=ERROR'], resources={'metadata': {'path': str(path.parent)}})
        client.execute(env=env)
    for cell, source in zip(skipped, sources): cell.source = source
    return CoalesceStreamsPreprocessor().preprocess(nb, {})[0]  # how a kernel cuts its output into messages is left to chance


def digest(*paths):
    """SHA-256 of the contents and names of files and of whole folders, as a short text."""
    sha = hashlib.sha256()
    for path in paths:
        for file in sorted(p for p in (path.rglob('*') if path.is_dir() else [path]) if p.is_file() and not {'__pycache__', '.ipynb_checkpoints'} & set(p.parts)):
            sha.update(f'{file.relative_to(ROOT)} {file.stat().st_size}\n'.encode() + file.read_bytes())
    return sha.hexdigest()[:20]


@contextlib.contextmanager
def alone(name):
    """One process at a time between here and the end of the block; the others wait."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with open(KEPT/f'.{name}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def kept(path):
    """Where the executed form of a notebook is kept: the name depends on all that its outputs depend on."""
    python = '.'.join(map(str, sys.version_info[:3]))
    key = digest(path, ROOT/'redaction_serde', ROOT/'constraints.txt', Path(__file__).resolve())
    return KEPT/f'{path.stem}-{python}-{key}.ipynb'


def executed(path, said=lambda text: None):
    """The notebook with its outputs, from a run of exactly these sources: an earlier one if there is, else one now."""
    import nbformat
    with alone(path.stem):
        target = kept(path)
        if not target.exists():
            start = time.perf_counter()
            nb = run_notebook(path)
            said(f'{path.stem}: {time.perf_counter() - start:.0f} s')
            for old in KEPT.glob(f'{path.stem}-*.ipynb'): old.unlink()
            nbformat.write(nb, target.with_suffix('.part'))
            target.with_suffix('.part').replace(target)
        return nbformat.read(target, as_version=4)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--store', action='store_true', help='keep the outputs in the notebooks')
    parser.add_argument('names', nargs='*', help='notebooks, by file name or stem')
    args = parser.parse_args()
    names = [Path(n).stem for n in args.names]
    paths = [p for p in sorted((ROOT/'nbs').glob('*.ipynb')) if not names or p.stem in names]
    failed = []
    for path in paths:
        print(f'{path.stem} … ', end='', flush=True)
        start = time.perf_counter()
        try: nb = run_notebook(path)
        except Exception as e:
            failed.append(path.stem)
            print(f'failed\n{e}')
            continue
        print(f'{time.perf_counter() - start:.0f} s')
        if args.store:
            import nbformat
            nbformat.write(nb, path)
            subprocess.run([str(Path(sys.executable).parent/'nbdev_clean'), '--fname', str(path)], check=True, cwd=ROOT)
    if failed: sys.exit(f'failed: {", ".join(failed)}')


if __name__ == '__main__': main()
