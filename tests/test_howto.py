"""The pages beside the notebooks: every line of code on them runs, every link leads somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from notebooks import NBS, ROOT

PAGES = ['howto.md', 'cards.md', 'glossary.md']

BEFORE = '''
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
'''


def blocks(text, language):
    return re.findall(rf'^```{language}\n(.*?)^```$', text, re.M | re.S)


def test_the_ways_of_howto_run(tmp_path):
    text = (NBS / 'howto.md').read_text(encoding='utf-8')
    script = [BEFORE]
    for block in blocks(text, 'python'):
        if name := re.match(r'# (\w+\.py)\n', block):
            (tmp_path / name[1]).write_text(block, encoding='utf-8')
        else:
            script.append(block)
    script += ['assert len(fixed) == 4 and len(next(iter(batches))) == 2']
    (tmp_path / 'script.py').write_text('\n'.join(script), encoding='utf-8')
    env = {
        **os.environ,
        'PYTHONPATH': str(ROOT),
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
    }
    done = subprocess.run([sys.executable, 'script.py'], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout
    assert 'nothing lost' in said  # what `compare` says
    assert re.search(r'^4$', said, re.M) and re.search(r'^2 2$', said, re.M)
    for block in blocks(text, 'bash'):
        done = subprocess.run(['bash', '-ec', block], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('name', PAGES)
def test_links_lead_somewhere(name):
    links = re.findall(r'\]\(([^)\s]+)\)', (NBS / name).read_text(encoding='utf-8'))
    local = [link.partition('#')[0] for link in links if not link.startswith('http')]
    assert local and not [link for link in local if not (NBS / link).exists()]


def test_the_glossary_is_in_order():
    words = re.findall(r'^([^\n:#>].*)\n: ', (NBS / 'glossary.md').read_text(encoding='utf-8'), re.M)
    assert len(words) > 15 and words == sorted(words, key=lambda word: word.strip('`').lower())
