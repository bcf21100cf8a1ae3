"""The benchmark runs, and says what it says it says."""
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from run_notebooks import ROOT


def test_a_small_benchmark(tmp_path):
    done = subprocess.run([sys.executable, '-W', 'ignore', str(ROOT/'bench'/'bench.py'), '--sizes', '50', '--rounds', '1', '--large', '0', '--stream', '500', '--out', str(tmp_path)],
                          cwd=tmp_path, env={**os.environ, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    found = json.loads((tmp_path/'bench.json').read_text())
    assert set(found['results']) == {'50 x 10'}
    assert all(row[what] > 0 for best in found['results'].values() for by in best.values() for row in by.values() for what in ('dumps', 'loads', 'bytes'))
    assert set(found['results']['50 x 10']) == {'json', 'jsonl', 'msgpack', 'protobuf', 'pickle', 'article', 'cloudpickle', 'dill', 'jsonpickle'}
    assert all(t['target'] in done.stdout for t in found['targets'])
    assert ElementTree.parse(tmp_path/'bench.svg').getroot().tag.endswith('svg')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['bench.json', 'bench.svg']


def test_kept_results_are_fit_to_publish():
    path = ROOT/'bench'/'results'/'bench.json'  # what the lesson on speed and size shows
    if not path.exists(): pytest.skip('no results are kept')
    text = path.read_text('utf-8')
    assert len(text) < 100_000 and not re.search(r'/(?:home|root|Users|tmp|work)/|[A-Z]:\\\\', text)
    kept = json.loads(text)
    assert {'json', 'msgpack', 'protobuf', 'pickle', 'article'} <= set(kept['results']['20000 x 10']) and kept['python'] and kept['packages']
