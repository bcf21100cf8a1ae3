"""Parquet: what other programs see, what they change, and files that are made to do harm.

The round trips are in the tests over all formats. Here nothing needs icevision but the collection of pages.
"""

import base64
import io
import json
import random
import struct
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from redaction_serde.document import Document, Header, Layout, TaskSpec, record_shape
from redaction_serde.errors import DecodeError, LimitError, Limits, SerdeError
from redaction_serde.fidelity import compare
from redaction_serde.kinds.labels import ClassMapData
from redaction_serde.records import dumps, load, loads, save
from redaction_serde.wire import parquet
from redaction_serde.wire.footer import Compact, footer_start, read_footer
from redaction_serde.wire.registry import decode, encode, wire_of

COMMON = TaskSpec('common', 0.3, ('RecordID', 'Filepath', 'Size'))
BOXED = TaskSpec('detection', 0.5, ('InstancesLabels', 'BBoxes', 'Areas', 'IsCrowds', 'Scores'))
HEADER = Header(
    layouts=[Layout((COMMON, BOXED)), Layout((COMMON,))],
    class_maps=[ClassMapData(['background', 'stamp', 'seal'])],
)


def row(i, bboxes=((0.5, 1.5, 20.0, 30.0),), areas=(570.0,), iscrowds=(0,), scores=None, layout=0):
    """The data of a record."""
    record = {'common': {'record_id': i, 'filepath': f'{i}.png', 'size': [40, 30]}}
    if layout == 0:
        labels = [1] * len(bboxes)
        record['detection'] = dict(label_ids=labels, bboxes=bboxes, areas=areas, iscrowds=iscrowds)
        record['detection']['scores'] = scores
    return record if not layout else {'layout': layout, **record}


def document(*rows):
    shapes = [record_shape(layout, k).wide_struct for k, layout in enumerate(HEADER.layouts)]
    return Document(HEADER, [msgspec.convert(r, shapes[r.get('layout', 0)]) for r in rows])


def written(*rows):
    return encode(document(*rows), 'parquet')


def plain(data, **options):
    """What a file says, in the bytes of another format: NaN, -0.0 and classes of numbers count."""
    return encode(decode(data, **options), 'msgpack')


DATA = written(*[row(i) for i in range(5)])


def table_of(data):
    return pq.ParquetFile(pa.BufferReader(data)).read()


def again(table, data=DATA):
    """A table as a file with the header of another one, and a checksum that is right."""
    head = json.loads(read_footer(data).said[b'redaction-serde'])
    head |= {'crc32': '0' * 8, 'records': len(table)}
    return parquet.sealed(parquet._write(table, json.dumps(head, separators=(',', ':')).encode()))


def changed(**columns):
    """DATA with other values in some columns."""
    table = table_of(DATA)
    for name, change in columns.items():
        values = change(table[name].to_pylist())
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    return again(table)


# ---------------------------------------------------------------- what others see


def test_columns_say_what_records_say(pages, tmp_path):
    path = tmp_path / 'a.parquet'
    save(pages, path)
    rows = pq.read_table(path).to_pylist()
    assert [r['record_id'] for r in rows] == [str(record.record_id) for record in pages]
    for found, record in zip(rows, pages):
        detection = record.detection
        assert found['label'] == detection.labels and found['label_id'] == detection.label_ids
        sides = zip(*[found[side] for side in ('xmin', 'ymin', 'xmax', 'ymax')])
        assert list(sides) == [tuple(box.xyxy) for box in detection.bboxes]
        assert found['area'] == detection.areas and found['iscrowd'] == detection.iscrowds
        assert (found['width'], found['height']) == (record.width, record.height)
        assert Path(found['filepath']) == record.filepath


def test_every_engine_counts_the_same(pages, tmp_path):
    duckdb, pl = pytest.importorskip('duckdb'), pytest.importorskip('polars')
    pd, datasets = pytest.importorskip('pandas'), pytest.importorskip('datasets')
    path = tmp_path / 'a.parquet'
    save(pages, path)
    wanted = Counter(label for record in pages for label in record.detection.labels)
    query = f"SELECT label, count(*) FROM (SELECT unnest(label) AS label FROM '{path}') GROUP BY label"
    assert dict(duckdb.sql(query).fetchall()) == wanted
    assert dict(pl.read_parquet(path)['label'].explode().value_counts().rows()) == wanted
    assert pd.read_parquet(path)['label'].explode().value_counts().to_dict() == wanted
    rows = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / 'cache'))
    assert Counter(label for labels in rows['label'] for label in labels) == wanted


# ---------------------------------------------------------------- exactly


NAN = struct.unpack('<d', bytes.fromhex('010000000000f87f'))[0]  # with a payload
ODD = {
    'whole numbers': [1, 2, 3, 4],
    'a large one': [1 << 53, (1 << 53) + 1, -(1 << 63), (1 << 64) - 1],
    'mixed': [1, 2.0, 3, 4.5],
    'the sign of zero': [0.0, -0.0, -0.0, 0.0],
    'not a number': [NAN, float('nan'), float('inf'), -float('inf')],
    'small ones': [5e-324, 1e-300, 0.1, 1 / 3],
}


@pytest.mark.parametrize('kind', ODD)
def test_numbers_come_back_as_they_are(kind):
    numbers = ODD[kind]
    regular = row(1)
    odd = row(2, [numbers], [numbers[0]], [0], [numbers[1]])
    for rows in ([odd], [regular, odd], [odd, regular, odd], [regular] * 1000 + [odd]):
        before = document(*rows)
        assert plain(encode(before, 'parquet')) == encode(before, 'msgpack')


@pytest.mark.parametrize('iscrowds', [[True, False], [0, 1], [0, True], [7, -1], [1 << 63, 0], []])
def test_crowds_come_back_as_they_are(iscrowds):
    before = document(row(1), row(2, [[1.0, 2.0, 3.0, 4.0]] * 2, [1.0, 2.0], iscrowds), row(3))
    assert plain(encode(before, 'parquet')) == encode(before, 'msgpack')


@pytest.mark.parametrize('id', [7, '7', '007', -7, '-0', 0, (1 << 64) - 1, -(1 << 63), True, 1.0, None, '', 'ä'])
def test_ids_come_back_as_they_are(id):
    before = document(row(1), row(id), row('x'))
    assert plain(encode(before, 'parquet')) == encode(before, 'msgpack')


def test_what_is_out_of_step_is_not_shown():
    box = [1.0, 2.0, 3.0, 4.0]
    data = written(row(1, [box] * 2, [1.0], [], [0.5, 0.25]))
    found = table_of(data).to_pylist()[0]
    assert found['area'] is None and found['iscrowd'] == [] and found['score'] == [0.5, 0.25]
    assert msgspec.msgpack.decode(found['rest'])['detection']['areas'] == [1.0]


def test_mixed_numbers_are_shown_and_kept():
    data = written(row(1, [[1, 2.5, 3, 4]], [12]))
    found = table_of(data).to_pylist()[0]
    assert (found['xmin'], found['ymin'], found['area'], found['types']) == ([1.0], [2.5], [12.0], 1 | 4)
    assert msgspec.msgpack.decode(found['rest'])['detection']['bboxes'] == [[1, 2.5, 3, 4]]


def test_bytes_do_not_depend_on_how_records_were_packed(monkeypatch):
    rows = [row(i, layout=int(i % 3 == 0)) for i in range(2500)]
    rows[1700] = row(1700, [[1, 2.5, 3, 4]])
    before = document(*rows)
    data = encode(before, 'parquet')
    assert encode(decode(encode(before, 'msgpack')), 'parquet') == data
    monkeypatch.setattr('redaction_serde.document.BATCH', 7)
    assert encode(before, 'parquet') == data
    assert plain(data) == encode(before, 'msgpack')


def test_pages_do_not_depend_on_it_either(monkeypatch):
    """A column of more than one page."""
    before = document(*[row(1, [[0.5, 1.5, 20.0, float(i)] for i in range(400)], [1.0] * 400, [0] * 400)] * 1000)
    data = encode(before, 'parquet')
    assert data.count(b'\x15\x00\x15') > 2 * len(parquet._LISTS)  # how the header of a page of data begins
    monkeypatch.setattr('redaction_serde.document.BATCH', 7)
    assert encode(before, 'parquet') == data


def test_an_empty_list_is_of_no_class():
    for numbers in ([[1, 2, 3, 4]], [[1.0, 2.0, 3.0, 4.0]]):
        assert table_of(written(row(1, numbers), row(2, [], [], [])))['types'].to_pylist()[1] == 1


def test_row_groups(monkeypatch):
    """They end after some records, or after much rest."""
    monkeypatch.setattr(parquet, '_GROUP', 100)
    rows = [row(i, layout=i % 2) for i in range(250)]
    rows[20] = {**rows[20], 'attrs': {'note': 'x' * 60 * 1024}}
    data = written(*rows)
    groups = pq.ParquetFile(pa.BufferReader(data)).metadata
    assert [groups.row_group(g).num_rows for g in range(groups.num_row_groups)] == [40, 100, 100, 10]
    assert plain(data) == encode(document(*rows), 'msgpack')


# ---------------------------------------------------------------- what others write


def engines():
    """Name -> what reads a file and writes it again, with or without a change."""
    import duckdb
    import pandas as pd
    import polars as pl

    def through_duckdb(path):
        other = f'{path}.new'
        duckdb.sql(f"COPY (SELECT * FROM '{path}') TO '{other}' (FORMAT parquet)")
        Path(other).replace(path)

    return {
        'pyarrow': lambda path: pq.write_table(pq.read_table(path), path),
        'pandas': lambda path: pd.read_parquet(path).to_parquet(path),
        'polars': lambda path: pl.read_parquet(path).write_parquet(path),
        'duckdb': through_duckdb,
    }


@pytest.mark.parametrize('engine', ['pyarrow', 'pandas', 'polars', 'duckdb'])
def test_a_file_that_was_written_again_is_refused(engine, tmp_path):
    pytest.importorskip('duckdb'), pytest.importorskip('polars')
    path = tmp_path / 'a.parquet'
    path.write_bytes(DATA)
    engines()[engine](path)
    assert path.read_bytes() != DATA
    with pytest.raises(DecodeError, match='no header of ours|another program has written it again'):
        loads(path.read_bytes())


def test_our_header_does_not_make_it_ours():
    table = table_of(DATA)
    said = {b'redaction-serde': read_footer(DATA).said[b'redaction-serde']}
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(said), file)
    with pytest.raises(DecodeError, match='does not match its checksum'):
        decode(file.getvalue())


# ---------------------------------------------------------------- damage


def test_every_bit_counts():
    data, rng = DATA, random.Random(0)
    for i in range(len(data)):
        flipped = bytearray(data)
        flipped[i] ^= 1 << rng.randrange(8)
        with pytest.raises(DecodeError):
            decode(bytes(flipped))


def test_a_cut_file_is_refused():
    for end in range(0, len(DATA), 3):
        with pytest.raises(DecodeError):
            decode(DATA[:end])
        with pytest.raises(DecodeError):
            decode(DATA[:end], verify=False)
    with pytest.raises(DecodeError):
        decode(DATA + b'x')


def test_another_number_of_records_is_refused():
    head = json.loads(read_footer(DATA).said[b'redaction-serde']) | {'crc32': '0' * 8, 'records': 4}
    data = parquet.sealed(parquet._write(table_of(DATA), json.dumps(head, separators=(',', ':')).encode()))
    with pytest.raises(DecodeError, match='expected 4 records, found 5'):
        decode(data)


def test_pages_have_checksums_for_others():
    assert 4 in Compact(DATA, 4, len(DATA)).struct()  # the field that holds it
    at = DATA.index(b'PAR1') + 60
    flipped = bytearray(DATA)
    flipped[at] ^= 1
    with pytest.raises((OSError, pa.ArrowException)):
        pq.ParquetFile(pa.BufferReader(bytes(flipped)), page_checksum_verification=True).read()


# ---------------------------------------------------------------- made to do harm, with the right checksum


def packed(value):
    return msgspec.msgpack.encode(value)


WRONG = {
    'a layout that is none': dict(layout=lambda v: [2] * len(v)),
    'a negative layout': dict(layout=lambda v: [-1] * len(v)),
    'another layout': dict(layout=lambda v: [1] * len(v), rest=lambda v: [packed({'detection': {'areas': []}})] * 5),
    'no label ids': dict(label_id=lambda v: [None] * len(v)),
    'no boxes': dict.fromkeys(('xmin', 'ymin', 'xmax', 'ymax'), lambda v: [None] * len(v)),
    'sides out of step': dict(xmax=lambda v: [[1.0, 2.0]] * len(v)),
    'one side missing': dict(ymin=lambda v: [None, *v[1:]]),
    'no id': dict(record_id=lambda v: [None] * len(v)),
    'an id that is no number': dict(record_id=lambda v: ['1_000'] * len(v)),
    'an id in other digits': dict(record_id=lambda v: ['٣'] * len(v)),
    'an id of many digits': dict(record_id=lambda v: ['1' * 5000] * len(v)),
    'fractions said to be whole': dict(types=lambda v: [3] * len(v)),
    'NaN said to be whole': dict(types=lambda v: [5] * len(v), area=lambda v: [[float('nan')]] * len(v)),
    'a crowd of seven said to be true': dict(types=lambda v: [9] * len(v), iscrowd=lambda v: [[7]] * len(v)),
    'a rest that is no map': dict(rest=lambda v: [packed([1])] * len(v)),
    'a rest that is nothing': dict(rest=lambda v: [b''] * len(v)),
    'a rest with a tail': dict(rest=lambda v: [packed({}) + b'x'] * len(v)),
    'a rest of another task': dict(rest=lambda v: [packed({'other': {'a': 1}})] * len(v)),
    'a rest of no field': dict(rest=lambda v: [packed({'detection': {'colour': 1}})] * len(v)),
    'a task that is no map': dict(rest=lambda v: [packed({'detection': 1})] * len(v)),
    'a value of another class': dict(rest=lambda v: [packed({'detection': {'areas': 'large'}})] * len(v)),
    'a key twice': dict(rest=lambda v: [b'\x82\xa6is_new\xc2\xa6is_new\xc3'] * len(v)),
    'deeper than deep': dict(rest=lambda v: [b'\x81\xa5attrs\x81\xa1a' + b'\x91' * 100_000 + b'\xc0'] * len(v)),
}


@pytest.mark.parametrize('case', WRONG)
def test_wrong_columns_are_refused(case):
    data = changed(**WRONG[case])
    for verify in (True, False):
        with pytest.raises(DecodeError) as e:
            decode(data, verify=verify)
        assert str(e.value) and e.value.path


def test_unchanged_columns_are_not():
    assert plain(changed(record_id=lambda v: v)) == plain(DATA)


def retyped(name, type_):
    table = table_of(DATA)
    index = table.schema.get_field_index(name)
    return table.set_column(index, pa.field(name, type_), pa.nulls(len(table), type_))


SHAPES = {
    'a column less': lambda: table_of(DATA).drop_columns(['score']),
    'a column more': lambda: table_of(DATA).append_column('more', pa.array([1] * 5)),
    'a column twice': lambda: table_of(DATA).append_column('rest', pa.nulls(5, pa.binary())),
    'another order': lambda: table_of(DATA).select(sorted(table_of(DATA).column_names)),
    'another name': lambda: table_of(DATA).rename_columns({'score': 'scores'}),
    'text as rest': lambda: retyped('rest', pa.string()),
    'small numbers': lambda: retyped('width', pa.int32()),
    'unsigned ones': lambda: retyped('width', pa.uint64()),
    'times': lambda: retyped('width', pa.timestamp('us')),
    'float32': lambda: retyped('xmin', pa.list_(pa.float32())),
    'nulls in a list': lambda: retyped('xmin', pa.list_(pa.float64())),
    'lists in lists': lambda: retyped('xmin', pa.list_(pa.list_(pa.float64()))),
    'a struct': lambda: retyped('xmin', pa.struct([('list', pa.float64())])),
    'a map': lambda: retyped('label', pa.map_(pa.string(), pa.string())),
    'a layout that may be null': lambda: retyped('layout', pa.int32()),
}


@pytest.mark.parametrize('shape', SHAPES)
def test_other_columns_are_refused(shape):
    table = SHAPES[shape]()
    head = json.loads(read_footer(DATA).said[b'redaction-serde']) | {'crc32': '0' * 8}
    file = io.BytesIO()
    with pq.ParquetWriter(file, table.schema, store_schema=False, compression='zstd') as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({b'redaction-serde': json.dumps(head, separators=(',', ':')).encode()})
    with pytest.raises(DecodeError, match='other names or types'):
        decode(parquet.sealed(file.getvalue()))


def as_file(table, **options):
    """A table of the right columns, written in another way."""
    head = json.loads(read_footer(DATA).said[b'redaction-serde']) | {'crc32': '0' * 8, 'records': len(table)}
    file = io.BytesIO()
    with pq.ParquetWriter(file, table.schema, **{'compression': 'zstd', 'store_schema': False, **options}) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({b'redaction-serde': json.dumps(head, separators=(',', ':')).encode()})
    return parquet.sealed(file.getvalue())


def test_texts_by_reference_are_refused():
    """One text of a megabyte, of which a dictionary makes as many as it likes."""
    table = table_of(DATA)
    for options in (
        dict(use_dictionary=True),
        dict(use_dictionary=False, column_encoding={'rest': 'DELTA_BYTE_ARRAY'}),
    ):
        with pytest.raises(DecodeError, match='in encoding'):
            decode(as_file(table, **options))
    with pytest.raises(DecodeError, match='expected record_id'):
        decode(as_file(table, use_dictionary=False, compression='snappy'))


def test_a_schema_of_arrow_in_the_footer_changes_nothing():
    """It tells pyarrow to make other types of the columns."""
    table, other = table_of(DATA), pa.schema([pa.field('a', pa.int8())])
    head = json.loads(read_footer(DATA).said[b'redaction-serde']) | {'crc32': '0' * 8}
    for schema in (other, table.schema.set(0, pa.field('record_id', pa.dictionary('int8', pa.string())))):
        file = io.BytesIO()

        said = {
            b'redaction-serde': json.dumps(head, separators=(',', ':')).encode(),
            b'ARROW:schema': base64.b64encode(schema.serialize().to_pybytes()),
        }
        with pq.ParquetWriter(
            file, table.schema, store_schema=False, compression='zstd', use_dictionary=False
        ) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata(said)
        try:
            assert plain(parquet.sealed(file.getvalue())) == plain(DATA)
        except DecodeError as e:
            assert 'of other types' in str(e) or 'not whole Parquet' in str(e)


# ---------------------------------------------------------------- few bytes, much memory


def number(n):
    n, parts = n << 1, []
    while n > 127:
        parts.append(n & 127 | 128)
        n >>= 7
    return bytes([*parts, n])


def bomb(n=30_000_000):
    """A record of which the crowds are millions of zeros."""
    table = table_of(written(row(1)))
    zeros = pa.ListArray.from_arrays(
        pa.array([0, n], 'int32'), pa.array(np.zeros(n, 'int64')), type=table['iscrowd'].type
    )
    table = table.set_column(table.schema.get_field_index('iscrowd'), table.schema.field('iscrowd'), zeros)
    return as_file(
        table,
        use_dictionary=['iscrowd.list.element'],
        write_statistics=False,
        data_page_size=1 << 40,
        write_batch_size=1 << 30,
    )


def lying(data, n, m):
    """The same file with a footer that says m where it said n."""
    start = footer_start(data)
    footer = data[start:-8].replace(number(n), number(m))
    data = data[:start] + footer + len(footer).to_bytes(4, 'little') + b'PAR1'
    place = parquet._place_of_crc(data)
    return parquet.sealed(data[:place] + b'0' * 8 + data[place + 8 :])


def test_bombs_are_refused_before_they_are_read():
    n = 30_000_000
    data = bomb(n)
    assert len(data) < 10_000
    pool = pa.default_memory_pool()
    for file, words in ((data, 'objects out of'), (lying(data, n, 5), 'the footer says 5')):
        before = pool.bytes_allocated()
        tracemalloc.start()
        with pytest.raises(DecodeError, match=words):
            decode(file)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10 << 20 and pool.bytes_allocated() - before < 10 << 20


def test_limits():
    with pytest.raises(LimitError, match=r'raise Limits\(records='):
        decode(DATA, limits=Limits(records=4))
    with pytest.raises(LimitError, match=r'raise Limits\(bytes='):
        decode(DATA, limits=Limits(bytes=len(DATA) - 1))
    large = written({**row(1), 'attrs': {'note': 'x' * 10_000_000}})
    assert len(large) < 100_000
    with pytest.raises(LimitError, match=r'raise Limits\(bytes='):
        decode(large, limits=Limits(bytes=1_000_000))
    with pytest.raises(LimitError, match=r'raise Limits\(layouts='):
        decode(DATA, limits=Limits(layouts=1))


def test_what_could_not_be_read_is_not_written():
    """Ten million objects in a few bytes; the reader would refuse them, so the writer does."""
    layout = Layout((TaskSpec('a', 0, ('Size',)),))
    rows = msgspec.convert([{'a': {}}] * 1_200_000, list[record_shape(layout).wide_struct])
    with pytest.raises(SerdeError, match='a reader would refuse|which a reader would refuse'):
        encode(Document(Header(layouts=[layout]), rows), 'parquet')


def test_a_list_of_very_many_structs_stops():
    data = bytes([0x19, 0xFC, *b'\xff\xff\x03', *bytes(70_000)])
    with pytest.raises(ValueError, match='items are the most'):
        Compact(data, 0, len(data)).struct()
    nested = b'\x1c' * 1000
    with pytest.raises(ValueError, match='deeper than a footer needs'):
        Compact(nested, 0, len(nested)).struct()


def test_mutations_with_the_right_checksum():
    """What the checksum would have noticed, if nobody had mended it."""
    rng, seen = random.Random(1), Counter()
    for _ in range(1500):
        data = bytearray(DATA)
        for _ in range(rng.choice([1, 1, 2, 3])):
            data[rng.randrange(4, len(data))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        try:
            decode(bytes(data), limits=Limits(bytes=1 << 24), verify=False)
            seen['read'] += 1
        except SerdeError as e:
            assert str(e) and e.path
            seen['refused'] += 1
    assert seen['refused'] > 500


# ---------------------------------------------------------------- an optional package


def test_without_pyarrow_there_is_a_remedy(tmp_path):
    path = tmp_path / 'a.parquet'
    path.write_bytes(DATA)
    code = f'''
import sys
sys.modules['pyarrow'] = None
from redaction_serde.errors import SerdeError
from redaction_serde.wire.registry import decode, encode, wire_of
document = decode(encode(decode(open({str(tmp_path / 'a.json')!r}, 'rb').read()), 'msgpack'))
for act in (lambda: encode(document, 'parquet'), lambda: decode(open({str(path)!r}, 'rb').read())):
    try:
        act()
    except SerdeError as e:
        print(e.problems[0].message)
'''
    (tmp_path / 'a.json').write_bytes(encode(document(row(1)), 'json'))
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all("pip install 'redaction_serde[parquet]'" in line for line in lines), done.stderr


def test_it_is_recognised(pages, tmp_path):
    assert wire_of(DATA).name == 'parquet'
    data = dumps(pages, 'parquet')
    path = tmp_path / 'no suffix'
    path.write_bytes(data)
    assert compare(pages, load(path)) and compare(pages, loads(dumps(pages, 'parquet.gz')))
