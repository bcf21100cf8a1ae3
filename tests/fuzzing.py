"""Documents at random, built from the declarations, in every format, with a checksum that fits; and what every verb says of them.

A document is plain data here: a header, and a list of records as JSON spells them. What is declared (components,
their fields and kinds, tags of values, the fields of the header) is asked for, so that a new component, kind or
format is attacked without a change in this file.
"""

import copy
import json
import pickle
import zlib
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import UNSET

from redaction_serde import values
from redaction_serde.checks import broken_references, check
from redaction_serde.components import COMPONENTS
from redaction_serde.document import BATCH, FORMAT, LATE, SHARED, Layout, TaskSpec, record_shape, task_key
from redaction_serde.errors import Limits, SerdeError
from redaction_serde.fidelity import compare
from redaction_serde.kinds.keypoints import KeypointsData
from redaction_serde.kinds.kind import REQUIRED
from redaction_serde.records import dumps, from_document, iter_records, load, load_record, loads
from redaction_serde.wire.format import VERSION_TEXT
from redaction_serde.wire.parquet import _Head, _schema, _write, sealed
from redaction_serde.wire.protobuf import _to_column, _to_message
from redaction_serde.wire.registry import WIRES, decode

from icevision.data import RecordCollection

LIMITS = Limits(bytes=1 << 24)
DEPTHS = (3, 31, 32, 33, 64, 65, 100, 400, 500, 990, 1000)
WORDS = [
    'a',
    'page',
    '',
    'é✓',
    '\u202e',
    'US$',
    '$unset',
    '$tuple',
    '\0',
    'a/b.png',
    '../x',
    '/etc/passwd',
    'C:\\x',
    '"\\\n',
]
NAMES = ['note', 'split', '__class__', 'components', 'record_id', 'bboxes', 'is_new', 'task', '$unset', 'x y', '']
TASKS = ['detection', 'classification', 'segmentation', 'mine', 'layout', 'is_new', 'a"b', 'task:x', 'attrs']
NUMBERS = [0, 1, -1, 2, 7, 255, 0.0, -0.0, 0.1, 1.5, 1e308, 5e-324, 2**53, 2**63 - 1, -(2**63), 2**63, 2**64 - 1]
WRONG_NUMBERS = [2**64, -(2**63) - 1, 10**400, float('nan'), float('inf')]
TOO_DEEP = 60  # of lists in each other, which some encoders cannot write


class Unwritable(Exception):
    """A format, or this file, cannot write such a document."""


# ---------------------------------------------------------------- what a document may hold


class Maker:
    """Makes documents. `odd` is the share of values that are unlikely, and mostly wrong."""

    def __init__(self, rng, odd=0.02):
        self.rng = rng
        self.odd = odd
        self.maps = self.points = self.classes = 0
        self.task = None

    def chance(self, share):
        return self.rng.random() < share

    def number(self):
        if self.chance(self.odd):
            return self.rng.choice(WRONG_NUMBERS)
        return (
            self.rng.choice(NUMBERS)
            if self.chance(0.3)
            else round(self.rng.uniform(-10, 900), self.rng.choice([0, 1, 9]))
        )

    def whole(self):
        return (
            self.rng.choice([n for n in NUMBERS if type(n) is int]) if self.chance(0.2) else self.rng.randrange(-3, 300)
        )

    def text(self):
        return self.rng.choice(WORDS)

    def some(self, make, most=4):
        return [make() for _ in range(self.rng.randrange(most))]

    def any(self, depth=0):
        """Any value that an attribute might have, as data."""
        kind = self.rng.randrange(9) if depth < 3 else self.rng.randrange(5)
        if kind == 8:
            return self.tagged(self.rng.choice(sorted(values._TAGS)), depth + 1)
        if kind == 7:
            return {self.rng.choice(NAMES + WORDS): self.any(depth + 1) for _ in range(self.rng.randrange(3))}
        if kind in (5, 6):
            return self.some(lambda: self.any(depth + 1))
        return [None, self.chance(0.5), self.whole(), self.number(), self.text()][kind]

    def deep(self):
        """A value that is nested deep."""
        value, depth = self.rng.choice([1, 'core', []]), self.rng.choice(DEPTHS)
        wrap = self.rng.choice(
            [lambda v: [v], lambda v: {'k': v}, lambda v: {'$tuple': [v]}, lambda v: {'$dict': [[1, v]]}]
        )
        for _ in range(depth):
            value = wrap(value)
        return value

    def tagged(self, name, depth=0):
        """A value of a tag; mostly one that the tag takes."""
        made = getattr(self, '_tag_' + name[1:], None)
        data = self.any(depth) if made is None or self.chance(self.odd) else made(depth)
        return {name: data}

    def _tag_tuple(self, depth):
        return self.some(lambda: self.any(depth))

    def _tag_set(self, depth):
        return self.rng.sample(
            [1, 2.5, 'a', None, True, {'$tuple': [1, 'b']}, {'$path': 'x'}, [1]], self.rng.randrange(3)
        )

    _tag_frozenset = _tag_set

    def _tag_dict(self, depth):
        return [[key, self.any(depth)] for key in self._tag_set(depth)]

    def _tag_bytes(self, depth):
        return self.rng.randbytes(self.rng.randrange(5))

    def _tag_path(self, depth):
        return self.text()

    def _tag_ndarray(self, depth):
        return self.array()

    _tag_tensor = _tag_ndarray

    def _tag_image(self, depth):
        mode, size = (
            self.rng.choice([('L', 8), ('RGB', 24), ('1', 1), ('P', 8)]),
            [self.rng.randrange(1, 4) for _ in 'wh'],
        )
        data = self.rng.randbytes((size[0] * mode[1] + 7) // 8 * size[1])
        picture = dict(mode=mode[0], size=size, data=data)
        return {**picture, 'palette': [0, 128, 255]} if mode[0] == 'P' else picture

    def _tag_size(self, depth):
        return [self.number(), self.number()]

    def _tag_bbox(self, depth):
        return [self.number() for _ in range(4)]

    def array(self):
        code, width = self.rng.choice([('<f', 8), ('<f', 4), ('<i', 8), ('|u', 1), ('|b', 1), ('<c', 16), ('>i', 2)])
        shape = [self.rng.randrange(3) for _ in range(self.rng.randrange(3))]
        size = 1
        for n in shape:
            size *= n
        if not size:
            code = code.replace('>', '<')  # NumPy's own pickle of an empty array drops its byte order
        if code[1] != 'c' and self.chance(0.6):
            make = {'f': lambda: self.rng.choice([0.0, -0.0, 0.5, 2.0]), 'b': lambda: self.chance(0.5)}
            items = [make.get(code[1], lambda: self.rng.randrange(100))() for _ in range(size)]
            return dict(dtype=f'{code}{width}', shape=shape, values=items)
        data = bytes(self.rng.randrange(2) for _ in range(size * width))
        return dict(dtype=f'{code}{width}', shape=shape, data=data)

    # ---- fields: by their declared types, but for those that refer to something

    def field(self, name, type_):
        if self.chance(self.odd):
            return self.rng.choice([self.any, self.deep])()
        made = getattr(self, '_field_' + name, None)
        return self.of(msgspec.inspect.type_info(type_)) if made is None else made()

    def _field_record_id(self):
        return self.rng.choice(
            [self.rng.randrange(10**9), f'page {self.rng.randrange(10**9)}', 'same', {'$tuple': [1, 'a']}]
        )

    def _field_filepath(self):
        return self.rng.choice([None, 'a.png', 'pages/b é.png', '/abs/c.png', self.text()])

    def _field_class_map(self):
        return self.rng.randrange(self.maps) if self.maps else None

    def _field_label_ids(self):
        return self.some(lambda: self.rng.randrange(self.classes) if self.maps else self.whole())

    def _field_metadata(self):
        return self.rng.randrange(self.points) if self.points else None

    def _field_image(self):
        data = self.rng.randbytes(3)
        return dict(sha256=sha256(data).hexdigest(), data=data)

    def points_of_object(self):
        return (
            self.array()
            if self.chance(0.2)
            else [self.rng.choice([0, 1, 2.5]) for _ in range(3 * self.rng.randrange(1, 4))]
        )

    def of(self, info):
        """A value of a declared type."""
        inspect = msgspec.inspect
        if isinstance(info, inspect.UnionType):
            return self.of(self.rng.choice(info.types))
        if isinstance(info, inspect.StructType):
            return self.struct(info)
        if isinstance(info, inspect.ListType):
            return self.some(lambda: self.of(info.item_type))
        if isinstance(info, inspect.TupleType):
            return [self.of(t) for t in info.item_types]
        if isinstance(info, inspect.DictType):
            return {self.rng.choice(NAMES): self.of(info.value_type) for _ in range(self.rng.randrange(3))}
        plain = {
            'NoneType': lambda: None, 'BoolType': lambda: self.chance(0.5), 'IntType': self.whole, 'FloatType': self.number,
            'StrType': self.text, 'BytesType': lambda: self.rng.randbytes(3), 'AnyType': self.any,
        }  # fmt: skip
        return plain[type(info).__name__]()

    def struct(self, info):
        if info.cls is values.ArrayData:
            return self.array()
        types = {f.encode_name: f.type for f in msgspec.structs.fields(info.cls)}
        made = {info.tag_field: info.tag} if info.tag_field else {}
        for field in info.fields:
            if field.encode_name != 'attrs' and (field.required or self.chance(0.4)):
                made[field.encode_name] = self.field(field.encode_name, types[field.encode_name])
        if info.cls is KeypointsData and not self.chance(self.odd):
            made['points'] = self.points_of_object()
        return made

    # ---- records and documents

    def record(self, layout, index):
        shape = record_shape(layout, index)
        made = {'layout': index} if index else {}
        for spec, task in zip(layout.tasks, shape.tasks):
            data = {}
            for field, key in task.fields:
                if field.default is REQUIRED or self.chance(0.5):
                    data[key] = self.field(field.name, field.type)
            if self.maps and 'label_ids' in data and self.chance(0.3):
                data['class_map'] = self._field_class_map()
            if not self.maps and 'label_ids' in data:
                data['class_map'] = None
            if not self.maps and 'ClassMap' in spec.components:
                data[[k for f, k in task.fields if f.name == 'class_map'][0]] = None
            if self.chance(0.1):
                data['extras'] = {
                    self.rng.choice([*spec.components, 'No']): self.aside(self.rng.choice(spec.components))
                }
            if self.chance(0.1):
                data['attrs'] = self.attributes()
            made[task_key(spec.name)] = data
        if self.chance(0.2):
            made['attrs'] = self.attributes()
        if self.chance(0.1):
            made['is_new'] = self.chance(0.5)
        return made

    def attributes(self):
        return {
            self.rng.choice(NAMES): self.deep() if self.chance(0.03) else self.any()
            for _ in range(self.rng.randrange(3))
        }

    def aside(self, name):
        """Attributes of a component that were put aside."""
        component = COMPONENTS[name]
        attribute = self.rng.choice([*component.kind_of, *NAMES])
        if self.chance(0.3):
            return {'$unset': [self.rng.choice([*component.kind_of, 'composite', 'task'])]}
        if attribute in component.kind_of and self.chance(0.7):
            words = component.kind_of[attribute].odd.get(attribute, ())
            examples = {
                'list': [1, 'a'], 'tuple': {'$tuple': [3, 4]}, 'none': None, 'number': 7.5, 'text': self.text(),
                'ndarray': {'$ndarray': self.array()}, 'tensor': {'$tensor': self.array()}, 'bytes': {'$bytes': b'a'},
            }  # fmt: skip
            return {attribute: examples.get(self.rng.choice(words or ['none']), None)}
        return {attribute: self.any()}

    def layouts(self):
        names = list(COMPONENTS)
        found = []
        for _ in range(self.rng.choice([1, 1, 1, 2, 3])):
            extra = self.rng.sample(names[1:], self.rng.randrange(4))
            tasks = [TaskSpec('common', 0.3, ('RecordID', *dict.fromkeys(extra)))]
            for name in self.rng.sample(TASKS, self.rng.randrange(3)):
                chosen = self.rng.sample(names[1:], self.rng.randrange(1, 5))
                tasks.append(TaskSpec(name, self.rng.choice([0.5, 1, 0.7]), tuple(chosen)))
            found.append(Layout(tuple(tasks)))
        return found

    def class_map(self):
        self.classes = 3
        made = dict(classes=['background', 'core', self.rng.choice(['tag', self.text(), None, 5, {'$tuple': ['a']}])])
        if self.chance(0.2):
            made['background'] = self.rng.choice([None, 'background', 'bg', 3])
        if self.chance(0.2):
            made['lock'] = self.chance(0.5)
        if self.chance(0.2):
            made['ids'] = [['core', 1], [self.text(), self.whole()]]
        return made

    def keypoints(self):
        made = dict(
            name=self.rng.choice(['Stick', 'K', self.text()]),
            connections=self.rng.choice([None, [[0, 1, [255, 0, 0]]]]),
        )
        if self.chance(0.7):
            made['labels'] = self.rng.choice([['head', 'foot'], {'$tuple': ['a', 'b']}, []])
        return made

    def document(self):
        """Header and records."""
        layouts = self.layouts()
        header = {'layouts': msgspec.to_builtins(layouts)}
        header['class_maps'] = self.some(self.class_map, 3)
        header['keypoints'] = self.some(self.keypoints, 3)
        self.maps, self.points = len(header['class_maps']), len(header['keypoints'])
        n = self.rng.choice([0, 1, 2, 3, 5])
        records = []
        for _ in range(n):
            k = self.rng.randrange(len(layouts))
            records.append(self.record(layouts[k], k))
        if self.chance(0.2) and n:
            header['kind'] = 'predictions'
            header['pairs'] = [[i, self.rng.choice([None, n - 1])] for i in range(n)]
        elif self.chance(0.3):
            k = self.rng.randrange(len(layouts))
            header['template'] = self.record(layouts[k], k)
        if self.chance(0.15) and 'pairs' not in header and n:
            header['index'] = {'keys': [[f'key {i}', i] for i in range(n)]}
            if self.chance(0.5):
                header['index']['order'] = [*range(n), self.rng.randrange(n)]
        return {name: value for name, value in header.items() if value or name == 'template'}, records


# ---------------------------------------------------------------- changes


def places(data, path=()):
    """Every place in some data, as far as twelve steps go."""
    yield path
    if len(path) == 12:
        return
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def put(data, path, value):
    """The same data with another value at a place; the way there is copied."""
    if not path:
        return value
    data = copy.copy(data)
    data[path[0]] = put(data[path[0]], path[1:], value)
    return data


def at(data, path):
    for key in path:
        data = data[key]
    return data


def tampered(header, records, maker):
    """A document in which one value was replaced, removed, added or doubled."""
    rng = maker.rng
    whole = {'header': header, 'records': records}
    path = rng.choice([p for p in places(whole) if len(p) > 1] or [('header',)])
    old = at(whole, path)
    how = rng.randrange(5)
    if how == 0 and len(path) > 1 and isinstance(at(whole, path[:-1]), dict):
        kept = {k: v for k, v in at(whole, path[:-1]).items() if k != path[-1]}
        whole = put(whole, path[:-1], kept)
    elif how == 1 and isinstance(old, list):
        whole = put(whole, path, [*old, *(old[-1:] or [maker.any()])])
    elif how == 2 and isinstance(old, dict):
        whole = put(whole, path, {**old, rng.choice(NAMES): maker.any()})
    elif how == 3:
        whole = put(whole, path, maker.deep())
    else:
        whole = put(whole, path, maker.any())
    return whole['header'], whole['records']


def changed_leaf(records, rng):
    """Records in which one number or text of a field is another one, and its place; None if there is nothing to change."""
    leaves = [
        p
        for p in places(records)
        if type(at(records, p)) in (int, float, str) and not {'image', 'layout', 'data'} & set(p)
    ]
    leaves = [
        p
        for p in leaves
        if p[-1] not in ('type', 'class_map', 'metadata', 'dtype') and 'shape' not in p and 'size' not in p[-2:-1]
    ]
    if not leaves:
        return None
    path = rng.choice(leaves)
    old = at(records, path)
    new = (
        old + 'x'
        if type(old) is str
        else (1 if old != 1 else 2)
        if type(old) is int
        else (0.25 if old != 0.25 else 0.5)
    )
    return put(records, path, new), path


# ---------------------------------------------------------------- documents as bytes


def as_json(data):
    try:
        if _is_torn(data):
            raise Unwritable('bytes that are no tag would become text')
        return json.dumps(
            data, separators=(',', ':'), default=lambda b: b64encode(b).decode(), allow_nan=False
        ).encode()
    except (ValueError, RecursionError) as e:  # NaN, or too deep for this encoder
        return _deep_json(data) if isinstance(e, RecursionError) else _unwritable(e)


def _is_torn(data):
    """Has a tag got another key? Then it is plain data, and bytes in it, which JSON writes as text, are refused elsewhere."""
    return any(
        key in values._TAGS and any(isinstance(part, bytes) for part in _inside(value))
        for part in _inside(data)
        if isinstance(part, dict) and len(part) > 1
        for key, value in part.items()
    )


def _inside(data):
    """The data and everything in it, however deep: deeper than Python calls itself."""
    waiting = [data]
    while waiting:
        part = waiting.pop()
        yield part
        if isinstance(part, (dict, list, tuple)):
            waiting += part.values() if isinstance(part, dict) else part


def _unwritable(error):
    raise Unwritable(str(error)) from error


def _deep_json(data):
    raise Unwritable('too deep')


def json_document(header, records, loose=False):
    lines = [b'"%s":%s,\n' % (name.encode(), as_json(value)) for name, value in header.items()]
    rows = [as_json(record) for record in records]
    if loose:  # not as it was written, but whole
        rows = [b' ' + row for row in rows]
    body = b''.join(lines) + b'"records":[\n' + b',\n'.join(rows) + (b'\n' if rows else b'') + b']}\n'
    if loose:
        body = body.rstrip(b'\n') + b'\n\n'
    return (
        b'{"format":"%s","version":"%s","crc32":"%08x",\n' % (FORMAT.encode(), VERSION_TEXT.encode(), zlib.crc32(body))
        + body
    )


def lines_document(header, records, defines=False):
    if any(not isinstance(header.get(name, []), list) for name in SHARED):
        defines = False
    first = {
        'format': FORMAT,
        'version': VERSION_TEXT,
        'lines': True,
        **{k: v for k, v in header.items() if k not in LATE},
    }
    more = {}
    if defines:
        more = {name: header[name] for name in SHARED if header.get(name)}
        first = {k: v for k, v in first.items() if k not in more}
    rows = [as_json(first)] + [as_json({'define': {name: [value]}}) for name in more for value in more[name]]
    rows += [as_json(record) for record in records]
    text = b''.join(row + b'\n' for row in rows)
    end = {
        'records': len(records),
        **{k: v for k, v in header.items() if k in LATE},
        'crc32': f'{zlib.crc32(text):08x}',
    }
    return text + as_json({'end': end}) + b'\n'


def _grouped(header, records):
    """Records of one layout that follow each other: (layouts, layout, rows). Raises `Unwritable` for what has none."""
    try:
        layouts = msgspec.convert(header.get('layouts', []), list[Layout])
    except msgspec.ValidationError as e:
        raise Unwritable(str(e)) from None
    found = []
    for record in records:
        k = record.get('layout', 0) if isinstance(record, dict) else None
        if type(k) is not int or not 0 <= k < len(layouts) or ('layout' in record and k == 0):
            raise Unwritable('no such layout')
        if not found or found[-1][0] != k or len(found[-1][1]) == BATCH:
            found.append((k, []))
        found[-1][1].append(record)
    return [(layouts, k, rows) for k, rows in found]


def _blocks(header, records):
    """Records as columns of plain values: (layout, count, columns). Raises `Unwritable` for what has no place in them."""
    for layouts, k, rows in _grouped(header, records):
        try:
            shape = record_shape(layouts[k], k)
        except SerdeError as e:
            raise Unwritable(str(e)) from None
        yield k, len(rows), _columns(shape, layouts[k], rows)


def _columns(shape, layout, rows):
    names = [task_key(task.name) for task in layout.tasks]
    known = {*names, 'layout', 'is_new', 'attrs'}
    for row in rows:
        if not known >= row.keys() or any(not isinstance(row.get(name), dict) for name in names):
            raise Unwritable('a record of another shape')
        for i, name in enumerate(names):
            if not {s.key for s in shape.columns if s.task == i} >= row[name].keys():
                raise Unwritable('an unknown field')
    columns = []
    for spec in shape.columns:
        values_ = [(row if spec.task is None else row[names[spec.task]]).get(spec.key, UNSET) for row in rows]
        there = [i for i, value in enumerate(values_) if value is not UNSET]
        if len(there) == len(rows):
            columns.append(['*', values_])
        elif not there:
            columns.append(None)
        elif spec.default is REQUIRED:
            raise Unwritable('a field is missing in some records')
        else:
            columns.append(['?', there, [values_[i] for i in there]])
    return columns


def msgpack_document(header, records):
    blocks = [list(block) for block in _blocks(header, records)]
    try:
        body = msgspec.msgpack.encode([FORMAT, VERSION_TEXT, header, blocks, 0])[:-1]
    except (OverflowError, RecursionError) as e:
        raise Unwritable(str(e)) from None
    return body + b'\xce' + zlib.crc32(body).to_bytes(4, 'big')


def protobuf_document(header, records):
    from redaction_serde import document_pb2

    whole = document_pb2.Document(format=FORMAT, version=VERSION_TEXT, records=len(records))
    try:
        _to_message(header, whole.header)
        for k, count, columns in _blocks(header, records):
            message = whole.blocks.add(layout=k, count=count)
            for column in columns:
                _to_column(column, message.columns.add())
    except (ValueError, TypeError, OverflowError, RecursionError) as e:
        raise Unwritable(str(e)) from None
    body = whole.SerializeToString(deterministic=True)
    return body + b'\x7d' + zlib.crc32(body).to_bytes(4, 'little')


def parquet_document(header, records):
    """All of a record stands in its rest, which wins, so that anything can be said but that a task is not there: it is what its columns say."""
    rows = [row for _, _, rows in _grouped(header, records) for row in rows]
    if any(_lacks_a_task(header, row) for row in rows):
        raise Unwritable('a task without columns is an empty one')
    try:
        rests = [msgspec.msgpack.encode({k: v for k, v in row.items() if k != 'layout'}) for row in rows]
        said = dict(layout=[row.get('layout', 0) for row in rows], types=[0] * len(rows), rest=rests)
        return parquet_table(header, said)
    except (OverflowError, RecursionError) as e:
        raise Unwritable(str(e)) from None


def _lacks_a_task(header, row):
    """Is there a task in the layout of a record that the record does not have?"""
    try:
        tasks = header['layouts'][row.get('layout', 0)]['tasks']
        return any(task_key(task['name']) not in row for task in tasks)
    except (LookupError, TypeError):
        return False  # the layout is what is wrong


def parquet_table(header, said, schema=None):
    """A Parquet file with its checksum; columns of which nothing is said are null."""
    import pyarrow as pa

    schema, n = schema or _schema(), len(next(iter(said.values())))
    head = _Head(FORMAT, VERSION_TEXT, '0' * 8, n, msgspec.msgpack.encode(header))
    columns = [pa.array(said.get(field.name, [None] * n), field.type) for field in schema]
    return sealed(_write(pa.table(columns, schema=schema), msgspec.json.encode(head)))


WRITERS = {
    'json': json_document,
    'json loose': lambda header, records: json_document(header, records, loose=True),
    'jsonl': lines_document,
    'jsonl defines': lambda header, records: lines_document(header, records, defines=True),
    'msgpack': msgpack_document,
    'protobuf': protobuf_document,
    'parquet': parquet_document,
}
assert {name.split()[0] for name in WRITERS} == set(WIRES), 'a format without a writer here'


def encodings(header, records):
    """Writer -> bytes, for those that can write it."""
    found = {}
    for name, write in WRITERS.items():
        try:
            found[name] = write(header, records)
        except Unwritable:
            pass
    return found


# ---------------------------------------------------------------- verdicts


class Disagreement(AssertionError):
    """Two verbs, or two formats, do not say the same of one document."""


def verdict(read, *args, **kwargs):
    """What a verb answers, or the error that it raises; any other error passes."""
    try:
        return read(*args, **kwargs), None
    except SerdeError as e:
        assert str(e) and e.path
        return None, e


def canonical(collection):
    """Bytes that say everything of a collection, the same for the same one."""
    return dumps(collection, 'msgpack')


def of_records(records):
    """Records alone, as bytes."""
    made = RecordCollection(None)
    made._records._list, made._records.data = list(records), {}
    return canonical(made)


def judge(data, suffix, folder, thorough=False):
    """What every verb says of a document: its canonical bytes, or None for refused. Raises `Disagreement`."""
    path = Path(folder) / f'd.{suffix}'
    path.write_bytes(data)
    whole, error = verdict(loads, data, limits=LIMITS)
    says = {
        'loads': error,
        'load': verdict(load, path, limits=LIMITS)[1],
        'check': verdict(check, path, limits=LIMITS)[1],
    }
    document, says['decode'] = verdict(decode, data, limits=LIMITS)
    if document is not None:
        found, says['decode'] = verdict(broken_references, document)
        says['decode'] = found[0] if found else says['decode']
        says['from_document'] = verdict(from_document, document)[1]
    predictions = document is not None and document.header.kind == 'predictions'
    records = None
    if not predictions:
        records, says['iter_records'] = verdict(lambda: list(iter_records(path, limits=LIMITS)))
    if len({e is None for e in says.values()}) > 1:
        raise Disagreement(f'{suffix}: { ({name: str(e)[:200] for name, e in says.items()}) }')
    for i in {0, 1} if document is None else {0, len(document.records) - 1} - {-1}:
        try:
            one, one_error = verdict(load_record, path, i, limits=LIMITS)
        except IndexError:
            continue
        if error is None and (one_error is not None or (records and of_records([one]) != of_records([records[i]]))):
            raise Disagreement(f'{suffix}: load_record {i}: {one_error}')
    if error is not None:
        return None
    same = canonical(whole)
    if thorough:
        accepted_can_be_used(whole, same)
    return same


def accepted_can_be_used(whole, same):
    """What loads can be dumped in each format that can hold it, compared, copied and pickled, and is the same."""
    for name in WIRES:
        data, error = verdict(dumps, whole, name)
        if error is not None:  # JSON has no NaN, Protocol Buffers end at 40 levels; each says so
            if not any(word in str(error) for word in ('JSON has no', 'nested deeper than')):
                raise Disagreement(f'loads, but not into {name}: {error}')
            continue
        if canonical(loads(data)) != same:
            raise Disagreement(f'another collection after a round trip through {name}')
    if b'>i' in same:  # NumPy 2.4's own pickle changes the byte order of arrays
        return
    for copied in (pickle.loads(pickle.dumps(whole)), copy.deepcopy(whole)):
        # a float for a name is written again as a label where it is no longer the very object of the class map
        if canonical(copied) != same and not compare(whole, copied):
            raise Disagreement('another collection after pickling or copying')
