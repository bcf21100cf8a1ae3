"""What the recipes of nbs/howto.md print: run as their reader runs them, and shown below each.

python tools/howto.py   writes the outputs into the page; the tests compare them with what comes today
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from notebooks import NBS, ROOT

PAGE = NBS / 'howto.md'
BLOCK = re.compile(r'(^```(python|bash)\n(.*?)^```\n)(?:\n```output\n.*?^```\n)?', re.M | re.S)
BETWEEN = '\f'  # printed between two blocks; none of them prints it

BEFORE = """
from pathlib import Path
from redaction_serde.compat import prepare_zenml
prepare_zenml('store', source=Path.cwd())
from redaction_serde.lessons.pages import make_documents
make_documents('.', n_pages=4, seed=3)
import redaction_serde as rs
rs.prepare_icevision()
from icevision.data import RandomSplitter
from icevision.parsers import COCOBBoxParser
splitter = RandomSplitter([0.5, 0.5], seed=1)
COCOBBoxParser('annotations.json', 'images').parse(splitter, show_pbar=False, cache_filepath='records.pkl')
"""


def run(command, folder):
    """What a command prints in a folder. Exits with the last of what it complains of if it fails."""
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'PATH': path}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{" ".join(command)}: {done.stderr[-2000:]}')
    return done.stdout


def outputs(text, folder):
    """What each block of a page prints, in their order: those in Python in one process, then those of the shell."""
    blocks = [(language, code) for _, language, code in BLOCK.findall(text)]
    script = [BEFORE]
    for language, code in blocks:
        script.append(f'print({BETWEEN!r}, flush=True)')
        if name := re.match(r'# (\w+\.py)\n', code):  # a file of its own
            (folder / name[1]).write_text(code, encoding='utf-8')
        elif language == 'python':
            script.append(code)
    (folder / 'script.py').write_text('\n'.join(script), encoding='utf-8')
    _, *said = run([sys.executable, 'script.py'], folder).split(BETWEEN)
    for i, (language, code) in enumerate(blocks):
        if language == 'bash':
            said[i] = run(['bash', '-ec', code], folder)
    return [re.sub(r'\d+\.\d+ s\b', '… s', one.strip('\n')) for one in said]  # times are of a machine


def with_outputs(text, said):
    """The page with what its blocks print, below each that prints something."""
    shown = iter(said)

    def one(match):
        output = next(shown)
        return f'{match[1]}\n```output\n{output}\n```\n' if output else match[1]

    return BLOCK.sub(one, text)


def main():
    text = PAGE.read_text(encoding='utf-8')
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(with_outputs(text, outputs(text, Path(folder))), encoding='utf-8')


if __name__ == '__main__':
    main()
