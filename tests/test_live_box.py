"""`LiveBox`: what its script writes is what Python writes, on any numbers."""

import json
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redaction_serde.lessons import diagrams

NODE = shutil.which('node')
floats = st.floats(allow_nan=False, allow_infinity=False)
boxes = st.lists(floats | st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4)
EDGES = [
    [0.0, -0.0, 1.0, -1.5],
    [1e15, 1e16, 123456789012345680.0, 9007199254740993.0],
    [1e-4, 1e-5, 0.00012, -0.1],
    [5e-324, 1.7976931348623157e308, 3.4e38, 3.5e38],
    [100.0, 10.5, 1e22, 60.0],
]


def in_python(numbers):
    for form in diagrams.NUMBER_FORMATS:
        try:
            yield [[list(data), i] for data, i in diagrams.number_bytes(numbers, form)]
        except OverflowError:
            yield None


def in_javascript(many):
    forms = [[list(v) if isinstance(v, bytes) else v for v in form] for form in diagrams.NUMBER_FORMATS]
    given = f'const FIELDS = {json.dumps(diagrams.NumberFormat._fields)}, FORMS = {json.dumps(forms)};'
    rest = """
    const forms = FORMS.map(form => Object.fromEntries(form.map((value, i) => [FIELDS[i], value])));
    const tried = (numbers, form) => { try { return pieces(numbers, form) } catch { return null } };
    const many = JSON.parse(require('fs').readFileSync(0));
    console.log(JSON.stringify(many.map(numbers => forms.map(form => tried(numbers, form)))));
    """
    done = subprocess.run(
        [NODE, '-e', given + diagrams._ENCODE + rest], input=json.dumps(many), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not NODE, reason='no node on this machine: the script is not compared with Python here')
@given(st.lists(boxes, min_size=50, max_size=100))
@settings(max_examples=20, deadline=None)
def test_the_script_writes_what_python_writes(many):
    for numbers, written in zip([*EDGES, *many], in_javascript([*EDGES, *many]), strict=True):
        assert written == list(in_python(numbers)), numbers
