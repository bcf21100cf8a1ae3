"""One fact, one place: adding a component, a format or an attribute touches one place, and everything else follows."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import nbformat
import pytest
from notebooks import notebooks
from test_round_trip import alike

from redaction_serde import components, document
from redaction_serde.checks import broken_references
from redaction_serde.components import (
    COLLECTION_NAMES,
    COMPONENT_NAMES,
    COMPONENTS,
    RECORD_NAMES,
    TASK_NAMES,
    Component,
    field_table,
)
from redaction_serde.document import task_shape
from redaction_serde.errors import DecodeError, EncodeError
from redaction_serde.fidelity import compare
from redaction_serde.kinds.plain import AnyValue, Mark, NumberList
from redaction_serde.records import classes, dumps, load, loads, save
from redaction_serde.wire.format import Wire
from redaction_serde.wire.registry import FORMATS, WIRES, decode, format_of, wire_of

from icevision.core import BaseRecord, FilepathRecordComponent, RecordComponent
from icevision.core.components import Composite
from icevision.data import RecordCollection


@pytest.fixture
def fresh():
    """What is declared, put back afterwards."""
    kept = dict(COMPONENTS), dict(classes._CLASS_OF), dict(classes._COMPONENT_OF), dict(WIRES)
    yield
    for table, old in zip((COMPONENTS, classes._CLASS_OF, classes._COMPONENT_OF, WIRES), kept):
        table.clear()
        table.update(old)
    task_shape.cache_clear()
    document._record_shape.cache_clear()


class StampRecordComponent(RecordComponent):
    """What a later icevision might bring: ink of each stamp, and whether it was seen by an expert."""

    def __init__(self):
        super().__init__()
        self.ink, self.seen = [], False


def declare(*kinds):
    """The one place: a line in the declarations."""
    stamp = Component('Stamp', f'{__name__}.StampRecordComponent', *kinds)
    COMPONENTS['Stamp'] = classes._COMPONENT_OF[StampRecordComponent] = stamp
    classes._CLASS_OF['Stamp'] = StampRecordComponent


def stamped(n):
    records = alike(n)
    for i, record in enumerate(records):
        component = StampRecordComponent()
        component.ink = [0.5 * i, 1] if i % 5 else (0.5, 1)  # and some that are odd
        record.add_component(component)
    return RecordCollection(None).new(records)


def test_a_component_is_added_in_one_place(fresh):
    declare(NumberList('ink', 'grams'), Mark('seen', 'by an expert'))
    collection = stamped(40)
    for format in FORMATS:
        data = dumps(collection, format)
        assert compare(collection, loads(data))
        assert not broken_references(decode(data))
    assert ('Stamp', 'ink', 'grams', 'required') in field_table()
    text = msgspec.json.decode(dumps(collection))
    text['records'][3]['common']['ink'] = ['a lot']
    del text['crc32']
    with pytest.raises(DecodeError, match=r'records\[3\].common.ink\[0\]'):
        loads(msgspec.json.encode(text), verify=False)


def test_an_attribute_is_added_in_one_place(fresh):
    """A component that has gained an attribute: one more kind in its declaration."""
    declare(NumberList('ink', 'grams'))
    collection = stamped(3)
    assert compare(collection, loads(dumps(collection)))  # `seen` is put aside, since nobody has declared it
    assert '"extras":{"Stamp":{"seen":false' in dumps(collection).decode()
    declare(NumberList('ink', 'grams'), AnyValue('seen', 'when'))
    task_shape.cache_clear()
    document._record_shape.cache_clear()
    assert '"seen":false' in dumps(collection).decode() and '"Stamp":{"seen"' not in dumps(collection).decode()
    assert compare(collection, loads(dumps(collection)))


class Repr(Wire):
    """A format in one class: a document as Python writes it."""

    name, suffix = 'repr', '.repr'

    def recognised(self, head):
        return 6 if head.startswith(b'#repr\n') else 0

    def encode(self, stream):
        rows = [msgspec.to_builtins(row, builtin_types=(bytes,)) for block in stream.blocks for row in block.rows]
        stream.finish()
        return b'#repr\n' + msgspec.json.encode([msgspec.to_builtins(stream.header), rows])

    def decode(self, data, limits, verify, recover):
        header, rows = msgspec.json.decode(data[6:])
        whole = {'format': 'redaction-serde', 'version': '1.0', **header, 'records': rows}
        return WIRES['json'].decode(msgspec.json.encode(whole), limits, False, recover)


def test_a_format_is_added_in_one_place(fresh, tmp_path):
    WIRES['repr'] = wire = Repr()  # the one line; in the source it stands in the list of the registry
    collection = RecordCollection(None).new(alike(5))
    for name in ('a.repr', 'a.repr.gz'):
        save(collection, tmp_path / name)
        assert compare(collection, load(tmp_path / name))
        assert format_of(tmp_path / name) == name[2:]
    assert wire_of(b'#repr\n') is wire


# ---------------------------------------------------------------- the table of icevision's names


def names(cls):
    return {name for name in dir(cls) if not name.startswith('__')}


def test_the_table_of_names_is_icevisions():
    assert RECORD_NAMES - {'components', 'task_composites'} == names(BaseRecord)
    assert TASK_NAMES - {'components', 'components_cls', '_parent'} == names(Composite)
    assert COMPONENT_NAMES - {'task', 'composite'} == names(RecordComponent)
    assert COLLECTION_NAMES == names(RecordCollection) | vars(RecordCollection(None)).keys()
    for component in components._DECLARED:
        cls = classes.component_class(component.name)
        assert component.methods == names(cls) - names(RecordComponent), component.name


def test_a_fresh_component_has_what_its_declaration_says():
    for component in components._DECLARED:
        cls = classes.component_class(component.name)
        fresh = vars(cls(task=None)).copy()
        del fresh['task']
        assert fresh.keys() == component.initial.keys(), component.name
        assert fresh == component.initial


def test_a_name_is_taken_once():
    from redaction_serde import values

    with pytest.raises(ValueError, match='taken'):
        values._register(values._TupleTag())


# ---------------------------------------------------------------- rooms


LIGHT = ('errors', 'values', 'kinds.kind', 'components', 'document', 'files', 'wire.registry', 'checks')
HEAVY = ('torch', 'icevision', 'zenml', 'matplotlib', 'PIL', 'cv2', 'numpy', 'pyarrow', 'google.protobuf')


@pytest.mark.parametrize('room', LIGHT)
def test_rooms_below_records_are_light(room):
    code = f'import sys, redaction_serde.{room}; print([m for m in {HEAVY} if m in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stdout + done.stderr


def test_an_id_without_a_hash_is_refused():
    record = BaseRecord((FilepathRecordComponent(),))
    record.set_record_id([1])
    collection = RecordCollection(None)
    collection._records._list = [record]
    with pytest.raises(EncodeError, match='hash') as e:
        dumps(collection)
    assert e.value.path == '$.records[0].common.record_id'


def test_what_a_kind_may_ask_is_written_down():
    asked = re.compile(r'\b(pack|build|look)\.([a-z_]+)')
    kinds = (Path(components.__file__).parent / 'kinds').glob('*.py')
    used = {pair for path in kinds for pair in asked.findall(path.read_text(encoding='utf-8'))}
    cells = nbformat.read(notebooks()['build/04_kind.ipynb'], 4).cells
    table = next(c.source for c in cells if '| of `pack`, on the way in |' in c.source)
    written = {pair for row in re.findall(r'^\| (`.+?) \|', table, re.M) for pair in asked.findall(row)}
    assert used == written


def test_of_two_formats_that_recognise_as_much_the_first_one_reads(monkeypatch, pages):
    data = dumps(pages, 'json')
    monkeypatch.setitem(WIRES, 'late', type('Late', (Wire,), dict(name='late', recognised=WIRES['json'].recognised))())
    assert wire_of(data) is WIRES['json']
