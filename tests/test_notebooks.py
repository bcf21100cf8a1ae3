"""Every notebook, as its readers meet it: in a real Jupyter kernel, and under nbdev_test."""
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import offline
from run_notebooks import ROOT, executed

NOTEBOOKS = sorted((ROOT/'nbs').glob('*.ipynb'))


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_in_jupyter(path):
    nb = executed(path)  # the site shows the same run
    assert not [o for c in nb.cells for o in c.get('outputs', []) if o.output_type == 'error']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_under_nbdev_without_a_network(path, tmp_path):
    env = offline(tmp_path/'log', TMPDIR=str(tmp_path), ZENML_CONFIG_PATH=str(tmp_path/'zenml'), PYTHONWARNINGS='ignore')
    done = subprocess.run([str(Path(sys.executable).parent/'nbdev_test'), '--path', str(path), '--n_workers', '0'],
                          cwd=ROOT, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert not (tmp_path/'log').exists(), (tmp_path/'log').read_text()
