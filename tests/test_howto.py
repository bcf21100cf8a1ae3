"""The pages beside the notebooks: every line of code on them runs, every link leads somewhere."""

import inspect
import re
import sys

import howto
import pytest
import readme
from notebooks import NBS, ROOT

PAGES = ['howto.md', 'cards.md', 'versions.md', 'glossary.md']


def test_the_ways_of_howto_print_what_is_shown(tmp_path):
    text = howto.PAGE.read_text(encoding='utf-8')
    made = howto.with_outputs(text, howto.outputs(text, tmp_path))
    assert made.splitlines() == text.splitlines(), 'run tools/howto.py and look at what has changed'
    assert 'nothing lost' in text and text.count('```output') >= 7


def test_an_output_is_shown_below_its_block():
    text = "# How to\n\n```python\nprint(1)\n```\n\n```output\nold\n```\n\nWords.\n\n```bash\ntrue\n```\n"
    new = text.replace('old', '1')
    assert howto.with_outputs(text, ['1', '']) == howto.with_outputs(new, ['1', '']) == new


def test_the_sample_of_the_readme_runs_as_it_stands(tmp_path):
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    sample = text.partition('## Try it')[2].partition('\n## ')[0]
    (tmp_path / 'sample.py').write_text(
        '\n'.join(re.findall(r'^```python\n(.*?)^```$', sample, re.M | re.S)), encoding='utf-8'
    )
    shown = re.search(r'^    (\S.*)$', re.sub(r'^```.*?^```$', '', sample, flags=re.M | re.S), re.M)[1]
    assert howto.run([sys.executable, 'sample.py'], tmp_path).strip() == shown
    assert shown.endswith('nothing lost')


def test_the_pictures_of_the_front_page_say_what_was_measured(tmp_path):
    from redaction_serde import compare

    found = readme.came_back(tmp_path)
    boxes = {name: pages[0].detection.bboxes for name, pages in found.items()}
    backs = [readme.back_of(box, boxes['careless']) for box in boxes['written']]
    assert {name: len(some) for name, some in boxes.items()} == {'written': 9, 'careless': 8, 'ours': 9}
    moved = sorted(px for back, px in backs if back)
    assert len(moved) == 8 and moved[-2] < 1e-9 and round(moved[-1]) == 6
    assert compare(found['written'], found['ours'])


@pytest.mark.parametrize('name', PAGES)
def test_links_lead_somewhere(name):
    links = re.findall(r'\]\(([^)\s]+)\)', (NBS / name).read_text(encoding='utf-8'))
    local = [link.partition('#')[0] for link in links if not link.startswith('http')]
    assert local and not [link for link in local if not (NBS / link).exists()]


def test_the_glossary_is_in_order():
    words = re.findall(r'^([^\n:#>].*)\n: ', (NBS / 'glossary.md').read_text(encoding='utf-8'), re.M)
    assert len(words) > 15 and words == sorted(words, key=lambda word: word.strip('`').lower())


def test_every_advisory_of_a_lesson_stands_in_the_table():
    known = re.findall(r'CVE-[\d-]+|GHSA(?:-\w{4}){3}', (NBS / 'versions.md').read_text(encoding='utf-8'))
    named = {
        name
        for part in ('learn', 'compare', 'reference')
        for path in (NBS / part).glob('*.ipynb')
        for name in re.findall(r'CVE-[\d-]+|GHSA(?:-\w{4}){3}', path.read_text(encoding='utf-8'))
    }
    assert len(named) > 10 and named <= set(known)


@pytest.mark.parametrize('name', PAGES)
def test_no_cell_of_a_table_is_empty(name):
    rows = re.findall(r'^\|.*\|$', (NBS / name).read_text(encoding='utf-8'), re.M)
    assert not [row for row in rows if re.search(r'\|\s*\|', row)]


def test_the_defaults_in_the_table_are_those_of_the_libraries():
    import numpy as np
    import torch.export
    from skops import io

    arguments = {f: inspect.signature(f).parameters for f in (np.load, np.save, torch.export.load)}
    assert [arguments[f]['allow_pickle'].default for f in (np.load, np.save)] == [False, True]
    assert 'weights_only' not in arguments[torch.export.load]
    with pytest.raises(TypeError, match='trusted'):
        io.loads(io.dumps(1), trusted=True)
