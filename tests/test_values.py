"""Values as data and back, without icevision: these tests start in a second."""

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from redaction_serde import values
from redaction_serde.errors import (
    DecodeError,
    EncodeError,
    Limits,
    Problem,
    Problems,
    SerdeError,
    over_limit,
    printable,
)
from redaction_serde.values import INT_RANGE, LOOKING, MAX_DEPTH, Packing, from_value, read_path, to_value, with_bytes

text = st.text(max_size=8)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(INT_RANGE.start, INT_RANGE.stop - 1)
    | st.floats(allow_nan=False)
    | text
    | st.binary(max_size=8)
    | text.filter(lambda t: '\0' not in t).map(Path),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(text | st.integers().filter(lambda i: i in INT_RANGE) | st.tuples(text), inner, max_size=3)
        | st.frozensets(st.integers(-9, 9) | text, max_size=3)
        | st.sets(st.booleans() | text, max_size=3)
    ),
    max_leaves=12,
)


def same(a, b):
    """Equal, and of the same classes all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items()))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (set, frozenset)):
        return {(type(x), x) for x in a} == {(type(x), x) for x in b}
    if isinstance(a, float):
        return a.hex() == b.hex()
    return a == b


@given(plain)
def test_plain_values_come_back(value):
    data = to_value(value)
    assert same(from_value(data), value)
    assert to_value(from_value(data)) == data


@given(plain)
def test_looking_agrees_with_making(value):
    data = to_value(value)
    assert same(from_value(data, '$', LOOKING), value)


hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    '$tuple',
                    '$set',
                    '$dict',
                    '$bytes',
                    '$path',
                    '$ndarray',
                    '$image',
                    '$tensor',
                    '$bbox',
                    '$size',
                    '$no',
                    'a',
                    'dtype',
                    'shape',
                    'values',
                    'data',
                    'mode',
                    'size',
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(hostile)
def test_hostile_data_raise_our_error_or_none(data):
    outcomes = []
    for reading in (None, LOOKING):
        try:
            from_value(data, '$', reading)
        except SerdeError as e:
            assert e.path.startswith('$')
            outcomes.append('refused')
        else:
            outcomes.append('read')
    if '$bbox' not in str(data) and '$size' not in str(data):  # which need icevision to be made
        assert len(set(outcomes)) == 1, outcomes


@pytest.mark.parametrize(
    'wrap', [lambda v: [v], lambda v: {'a': v}, lambda v: (v,), lambda v: {1: v}, lambda v: {'$a': v}]
)
def test_depth_is_counted_alike_on_both_ways(wrap):
    value = 'core'
    for _ in range(MAX_DEPTH):
        value = wrap(value)
    data = to_value(value)
    assert from_value(data) == value
    with pytest.raises(EncodeError, match='nested deeper'):
        to_value(wrap(value))
    for deeper in ([data], {'a': data}, {'$tuple': [data]}):
        with pytest.raises(DecodeError, match='nested deeper'):
            from_value(deeper)


def test_very_deep_data_are_refused_quickly():
    data = []
    for _ in range(100_000):
        data = [data]
    with pytest.raises(DecodeError, match='nested deeper'):
        from_value(data)
    while data:  # or freeing it would take as deep a stack
        data = data.pop()


P = 2**61 - 1  # Python's whole numbers hash to their remainder by this


@pytest.mark.parametrize(
    'data',
    [
        {'$set': [{'$tuple': [k * P, 0]} for k in range(-3, 4)]},
        {'$set': [1, 1.0]},
        {'$set': [1, 1]},
        {'$dict': [[1, 'a'], [True, 'b']]},
        {'$dict': [[[], 'a']]},
        {'$dict': [[1]]},
        {'$set': [[1]]},
    ],
)
def test_sets_and_dicts_hold_what_they_say(data):
    """Items that are equal would silently become one."""
    try:
        found = from_value(data)
    except DecodeError:
        return
    assert len(found) == len(next(iter(data.values())))


def test_many_items_of_one_hash_are_refused_before_they_are_hashed_into_a_set(monkeypatch):
    same_hash = [2.0 ** (61 * k) for k in range(-16, 16)]  # 2**61 is 1 to Python's hash of numbers
    assert len(set(map(hash, same_hash))) == 1
    assert from_value({'$set': same_hash}) == set(same_hash)
    monkeypatch.setattr(values, 'MAX_EQUAL_HASHES', 20)
    for data in ({'$set': same_hash}, {'$frozenset': same_hash}, {'$dict': [[x, 1] for x in same_hash]}):
        with pytest.raises(DecodeError, match='same hash'):
            from_value(data)


@pytest.mark.parametrize('text', ['/etc/passwd', '../x', 'a/../../x', 'C:/x', '..\\x', 'a\0b'])
def test_paths_do_not_leave_the_root(text, tmp_path):
    with pytest.raises(ValueError):
        read_path(text, tmp_path)


def test_paths_in_values_pass_through_the_root(tmp_path):
    from redaction_serde.values import Reading

    packing = Packing(tmp_path)
    data = to_value({'scan': tmp_path / 'a' / 'b.png'}, '$', packing)
    assert data == {'scan': {'$path': 'a/b.png'}} and not packing.problems
    assert from_value(data, '$', Reading(Path('/srv')))['scan'] == Path('/srv/a/b.png')
    to_value(Path('/elsewhere/x.png'), '$', packing)
    assert 'not inside root' in packing.problems[0].message
    with pytest.raises(DecodeError, match='would leave root'):
        from_value({'scan': {'$path': '/etc/passwd'}}, '$', Reading(Path('/srv')))


def test_bytes_that_json_spelt_become_bytes():
    assert with_bytes({'a': [{'$bytes': 'aGk='}, {'$ndarray': {'data': 'aGk=', 'dtype': '|u1'}}]}) == {
        'a': [{'$bytes': b'hi'}, {'$ndarray': {'data': b'hi', 'dtype': '|u1'}}]
    }


# ---------------------------------------------------------------- errors


@given(st.text())
def test_text_that_people_see_is_one_printable_line(text):
    assert printable(text).isprintable()


def test_one_mistake_is_one_line_and_five_are_five():
    problems = [Problem(f'$.records[{i}].x', 'expected a number') for i in range(1000)]
    problems += [Problem(f'$.{name}', 'another') for name in 'abcd']
    lines = str(SerdeError(problems)).splitlines()
    assert len(lines) == 6 and '1000 times' in lines[1]


def test_problems_end():
    problems = Problems(most=3)
    for i in range(10):
        problems.note(f'$[{i}]', 'x')
    assert (len(problems), problems.left_out) == (3, 7)
    assert 'raise Limits(records=' in str(over_limit(Limits(), 'records'))
