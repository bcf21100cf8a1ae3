"""Every lesson keeps the frame that its readers rely on: goals, a closing, exercises whose solutions run, sources."""

import json
import re

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
    for i, text in prose:
        answers = len(places) == 4 and exercises < i < places[3] and not text.startswith(('#', '**'))
        if answers and not text.rstrip().startswith('<details>'):
            yield f'cell {i}: what belongs to a solution stands outside its fold'
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


LEARN = {name: path for name, path in LESSONS.items() if part_of(name) == 'learn'}


def texts(cells, kind):
    return [''.join(c['source']) for c in cells if c['cell_type'] == kind]


def visible(cells):
    """The lines of code that a reader sees: no imports, no checks, no solutions."""
    shown = [c for c in cells if c['cell_type'] == 'code' and not c['metadata'].get('jupyter', {}).get('source_hidden')]
    lines = [line for text in texts(shown, 'code') if '#| hide' not in text for line in text.split('\n')]
    return [line for line in lines if line.strip()]


def fat(cells):
    """What makes a lesson longer, or harder to read, than it should be."""
    if (n := len(visible(cells))) > 150:
        yield f'{n} visible lines of code'
    prose = '\n'.join(texts(cells, 'markdown'))
    code = [*texts(cells, 'code'), *re.findall(r'^```python\n(.*?)^```$', prose, re.M | re.S)]
    yield from (f'over 100 characters: {line}' for text in code for line in text.split('\n') if len(line) > 100)
    if (n := prose.count('**Predict, then run.**')) < 5:
        yield f'{n} predictions'
    if (n := prose.count('<summary>Answer</summary>')) != 5:
        yield f'a quiz of {n}'
    minutes = re.search(r'about (\d+) minutes', prose, re.I)
    if not minutes or not 10 <= int(minutes[1]) <= 20:
        yield f'not 10 to 20 minutes: {minutes and minutes[1]}'
    for word in ('**Warm-up.**', '**Change one thing.**', '**Break it.**'):
        if word not in prose:
            yield f'no {word!r}'


@pytest.mark.parametrize('name', LEARN)
def test_a_learn_lesson_is_lean_and_asks(name):
    assert not list(fat(json.loads(LEARN[name].read_text('utf-8'))['cells']))


@pytest.mark.parametrize('name', LEARN)
def test_a_learn_lesson_has_no_directives(name):
    code = texts(json.loads(LEARN[name].read_text('utf-8'))['cells'], 'code')
    assert not [text for text in code if '#|' in text and not text.startswith('#| hide\n')]
