"""Every lesson keeps the frame that its readers rely on: goals, a closing, exercises whose solutions run, sources."""

import json

import pytest
from notebooks import NBS, notebooks, part_of

LESSONS = {name: path for name, path in notebooks().items() if part_of(name)}


def problems(cells):
    """What is missing in a lesson, or in the wrong place."""
    prose = [(i, ''.join(c['source'])) for i, c in enumerate(cells) if c['cell_type'] == 'markdown']
    if not prose or not prose[0][1].startswith('# ') or '\n> ' not in prose[0][1]:
        yield 'no title with a quoted line'
    places = []
    for part in ('You will be able to', 'In this notebook we', '## Exercise', '## Sources'):
        at = [i for i, text in prose if part in text]
        if at:
            places.append(at[-1])
        else:
            yield f'no {part!r}'
    if places != sorted(places):
        yield 'goals, closing, exercises and sources are not in this order'
    exercises = places[2] if len(places) == 4 else 0
    solved = [''.join(c['source']) for c in cells[exercises:]]
    if not any('#| code-fold' in s or ('<summary>Solution' in s and '```python' in s) for s in solved):
        yield 'no solution that runs'
    for i, cell in enumerate(cells):
        for output in cell.get('outputs', []):
            for kind in output.get('data', {}):
                if kind.startswith('image/') and not output.get('metadata', {}).get(kind, {}).get('alt'):
                    yield f'cell {i}: a picture without a text alternative'


@pytest.mark.parametrize('name', LESSONS)
def test_frame(name):
    assert not list(problems(json.loads(LESSONS[name].read_text('utf-8'))['cells']))


def test_a_missing_part_is_noticed():
    cells = json.loads((NBS / 'reference' / '01_compat.ipynb').read_text('utf-8'))['cells']
    sources = next(c for c in cells if '## Sources' in ''.join(c['source']))
    assert list(problems([c for c in cells if c is not sources])) == ["no '## Sources'"]
    for cell in cells:
        for output in cell.get('outputs', []):
            output['metadata'] = {}
    assert any('text alternative' in p for p in problems(cells))
