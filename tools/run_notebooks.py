"""Run notebooks in real Jupyter kernels without a network, each with a store and a temporary folder of its own.

    python tools/run_notebooks.py [--store] [NAME ...]

Without names: all of nbs/. A name is a notebook (`01_bytes`, `learn/01_bytes.ipynb`) or a folder (`learn`).
With --store the outputs are kept in the notebooks, which are then cleaned as `nbdev_clean` does.
The tests and the site share what `executed` returns, so that no notebook runs twice for the same sources.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from notebooks import NBS, ROOT, notebooks
from warm import warm_python

KEPT = ROOT / 'build' / 'executed'  # notebooks with the outputs of their last run
GUARD = ROOT / 'tests' / 'offline'  # forbids the network to a Python process that has it on its path


# of other people, and what `import icevision` imports first; icevision itself and everything of ours are imported by each
# notebook, since some of them look at how that goes
PRELOADED = [
    'torch',
    'torch._dynamo.utils',
    'torchvision.models',
    'sklearn.decomposition',
    'scipy.stats',
    'pandas',
    'cv2',
    'ipykernel.ipkernel',
    'warm_matplotlib',
    'warm_zenml',
]


class NetworkError(Exception):
    """A notebook has reached for another machine."""


def offline(log, **more):
    """An environment for a Python process that may reach this machine only; what else it tries is refused, and noted in the file `log`."""
    places = [str(GUARD), str(ROOT), os.environ.get('PYTHONPATH')]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, places)), 'OFFLINE_LOG': str(log), **more}


def solutions(cell):
    """The Python of a folded solution, block by block. It stands in the text, where neither JupyterLab nor GitHub shows it unasked."""
    if cell.cell_type != 'markdown' or not cell.source.startswith('<details><summary>Solution'):
        return []
    return re.findall(r'^```python\n(.*?)^```$', cell.source, re.M | re.S)


def with_solutions(cells):
    """The cells, and after each solution its blocks as cells that are named `solution`."""
    import nbformat

    for cell in cells:
        yield cell
        for source in solutions(cell):
            yield nbformat.v4.new_code_cell(source, metadata={'name': 'solution'})


def is_skipped(cell):
    """Is it left out when notebooks run side by side? Exporting is not the reader's business, and `#| eval: false` says so itself."""
    if cell.cell_type != 'code':
        return False
    directives = [line.replace(' ', '') for line in cell.source.splitlines()]
    return 'nbdev_export()' in cell.source or '#|eval:false' in directives


def manager(client, folder):
    """What starts the kernel of a notebook: with what is slow imported, if there can be.

    The kernel listens to sockets in the folder. Of free ports, which are chosen before it starts, another process could take one
    in between; then it dies.
    """
    found = client.create_kernel_manager()
    found.kernel_spec.argv = [*warm_python(*PRELOADED), '-m', 'ipykernel_launcher', '-f', '{connection_file}']
    found.transport = 'ipc'
    found.ip = f'{folder}/kernel'  # with this transport, what the names of the sockets begin with
    found.connection_file = f'{found.ip}.json'
    return found


def run_notebook(path, timeout=600, strict=True):
    """Execute one notebook as a person would in JupyterLab, but offline, and return it with its outputs.

    Strict, it also runs the folded solutions, and a check of a lesson that fails stops it; a reader is only told.

    Raises CellExecutionError, or NetworkError if it has tried to reach another machine, even where it hides that.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbconvert.preprocessors.coalescestreams import CoalesceStreamsPreprocessor

    nb = nbformat.read(path, as_version=4)
    if strict:
        nb.cells = list(with_solutions(nb.cells))
    skipped = {cell['id']: cell.source for cell in nb.cells if is_skipped(cell)}
    for cell in nb.cells:
        if cell['id'] in skipped:
            cell.source = ''
    with tempfile.TemporaryDirectory(prefix='notebook-') as folder:
        log = Path(folder) / 'network.log'
        env = offline(
            log,
            TMPDIR=folder,
            ZENML_CONFIG_PATH=f'{folder}/zenml',
            PYTHONWARNINGS='ignore',
            REDACTION_SERDE_STRICT='1' if strict else '',
            OMP_NUM_THREADS=os.environ.get('OMP_NUM_THREADS', '1'),
            PATH=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
        )
        env.pop('MPLBACKEND', None)  # the tests have one that draws nothing
        client = NotebookClient(
            nb,
            timeout=timeout,
            kernel_name='python3',
            extra_arguments=['--log-level=ERROR'],
            resources={'metadata': {'path': str(path.parent)}},
        )
        client.km = manager(client, folder)
        client.execute(env=env)
        if log.exists():
            raise NetworkError(f'{path.name} wants the network:\n{log.read_text()}')
    for cell in nb.cells:
        if cell['id'] in skipped:
            cell.source = skipped[cell['id']]
    nb.cells = [cell for cell in nb.cells if cell.metadata.get('name') != 'solution']
    return CoalesceStreamsPreprocessor().preprocess(nb, {})[
        0
    ]  # how a kernel cuts its output into messages is left to chance


def digest(*paths):
    """SHA-256 of the contents and names of files and of whole folders, as a short text."""
    sha = hashlib.sha256()
    for path in paths:
        for file in sorted(
            p
            for p in (path.rglob('*') if path.is_dir() else [path])
            if p.is_file() and not {'__pycache__', '.ipynb_checkpoints'} & set(p.parts)
        ):
            sha.update(f'{file.relative_to(ROOT)} {file.stat().st_size}\n'.encode() + file.read_bytes())
    return sha.hexdigest()[:20]


@contextlib.contextmanager
def alone(name):
    """One process at a time between here and the end of the block; the others wait."""
    path = KEPT / f'.{name}.lock'
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def kept(path):
    """Where the executed form of a notebook is kept: the name depends on all that its outputs depend on."""
    python = '.'.join(map(str, sys.version_info[:3]))
    key = digest(path, ROOT / 'redaction_serde', ROOT / 'constraints.txt', GUARD, Path(__file__).resolve())
    return KEPT / path.relative_to(NBS).with_suffix('') / f'{python}-{key}.ipynb'


def executed(path, said=lambda text: None):
    """The notebook with its outputs, from a run of exactly these sources: an earlier one if there is, else one now."""
    import nbformat

    name = path.relative_to(NBS).with_suffix('').as_posix()
    with alone(name.replace('/', '-')):
        target = kept(path)
        if not target.exists():
            start = time.perf_counter()
            nb = run_notebook(path)
            said(f'{name}: {time.perf_counter() - start:.0f} s')
            target.parent.mkdir(parents=True, exist_ok=True)
            for old in target.parent.iterdir():
                old.unlink()
            nbformat.write(nb, target.with_suffix('.part'))
            target.with_suffix('.part').replace(target)
        return nbformat.read(target, as_version=4)


def chosen(wanted):
    """The notebooks that the names on the command line mean; without any, all. Exits if a name means none."""
    found = notebooks()
    if not wanted:
        return found
    names = {}
    for text in wanted:
        plain = text.removeprefix('nbs/').removesuffix('.ipynb').rstrip('/')
        matching = {
            name: path
            for name, path in found.items()
            if plain in (name.removesuffix('.ipynb'), path.stem, path.parent.name)
        }
        if not matching:
            sys.exit(f'there is no notebook {text!r} in nbs/; there are: {", ".join(found)}')
        names |= matching
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--store', action='store_true', help='keep the outputs in the notebooks')
    parser.add_argument('names', nargs='*', help='notebooks, by path, file name or stem, or folders of nbs/')
    args = parser.parse_args()
    failed = []
    for name, path in chosen(args.names).items():
        print(f'{name} … ', end='', flush=True)
        start = time.perf_counter()
        try:
            nb = run_notebook(path)
        except Exception as e:
            failed.append(name)
            print(f'failed\n{e}')
            continue
        print(f'{time.perf_counter() - start:.0f} s')
        if args.store:
            import nbformat

            nbformat.write(nb, path)
            subprocess.run(
                [str(Path(sys.executable).parent / 'nbdev_clean'), '--fname', str(path)], check=True, cwd=ROOT
            )
    if failed:
        sys.exit(f'failed: {", ".join(failed)}')


if __name__ == '__main__':
    main()
