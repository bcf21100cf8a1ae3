"""Parquet files that say little and mean much: each is refused by numbers that are read before the pages are."""

import hashlib
import io
import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from redaction_serde import datasets
from redaction_serde.cli import main
from redaction_serde.document import Document, Header, Layout, TaskSpec
from redaction_serde.errors import DecodeError, LimitError
from redaction_serde.wire import footer, parquet
from redaction_serde.wire.registry import decode, encode

LAYOUT = Layout((TaskSpec('detection', 0.5, ('InstancesLabels', 'IsCrowds')),))
HEADER, EMPTY = parquet.read_table(encode(Document(Header(layouts=[LAYOUT]), []), 'parquet'))


def number(n):
    """As Thrift's compact protocol has it, seven bits a byte."""
    parts = []
    while n > 127:
        parts.append(n & 127 | 128)
        n >>= 7
    return bytes([*parts, n])


def one_record(**columns):
    """A table with a row, of which some columns hold one value many times."""
    row = dict(dict.fromkeys(EMPTY.schema.names), layout=0, types=0)
    table = pa.Table.from_pylist([row], schema=EMPTY.schema)
    for name, (value, n) in columns.items():
        field = EMPTY.schema.field(name)
        items = pa.array([value], field.type.value_type).take(pa.array(np.zeros(n, 'int32')))
        lists = pa.ListArray.from_arrays(pa.array([0, n], 'int32'), items, type=field.type)
        table = table.set_column(EMPTY.schema.names.index(name), field, lists)
    return table


def file_of(table, groups):
    """A file with the same rows in many groups, in which equal values take no room."""
    plain = encode(Document(HEADER, []), 'parquet')
    head = json.loads(footer.read_footer(plain).said[b'redaction-serde'])
    head |= dict(crc32='0' * 8, records=groups * len(table))
    file = io.BytesIO()
    options = dict(compression='zstd', store_schema=False, write_statistics=False, data_page_size=1 << 40)
    references = ['iscrowd.list.element', 'label_id.list.element', 'label.list.element', 'layout', 'types']
    with pq.ParquetWriter(file, table.schema, use_dictionary=references, write_batch_size=1 << 30, **options) as writer:
        for _ in range(groups):
            writer.write_table(table)
        writer.add_key_value_metadata({b'redaction-serde': json.dumps(head, separators=(',', ':')).encode()})
    return parquet.sealed(file.getvalue())


def refused(read, error, words):
    """Refuses a reader something, at little cost? Arrow counts its own memory, Python the rest."""
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    tracemalloc.start()
    with pytest.raises(error, match=words):
        read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pool.bytes_allocated() - before < 10 << 20
    return peak


@pytest.mark.parametrize('groups', [1, 2])
def test_what_the_budget_pays_for_is_read(groups):
    data = file_of(one_record(label_id=(0, 400_000), iscrowd=(0, 400_000)), groups)
    assert len(decode(data).records) == groups


def test_the_groups_of_a_file_share_one_budget():
    """Each of them is harmless; a thousand of them were 10 GB out of 2 MB."""
    data = file_of(one_record(label_id=(0, 400_000), iscrowd=(0, 400_000)), 30)
    assert len(data) < 100_000
    assert refused(lambda: decode(data), LimitError, '12000000 objects out of') < 10 << 20


def test_a_footer_has_so_many_values_and_no_more(monkeypatch):
    """Lists of empty lists of lists: a byte each, and 70 bytes in memory."""
    monkeypatch.setattr(footer, '_MOST_VALUES', footer._MOST_VALUES // 100)
    empty = b'\xf9' + number(1000) + b'\x09' * 1000
    text = b'\x19\xf9' + number(30) + empty * 30 + b'\0'
    data = b'PAR1' + text + len(text).to_bytes(4, 'little') + b'PAR1'
    assert refused(lambda: decode(data), DecodeError, 'more values than a footer needs') < 2 << 20


@pytest.mark.parametrize('codec, unpacked', [(0, 11), (6, 10 * (1 << 15) + 1)])
def test_a_page_does_not_say_that_it_is_more_than_it_can_be(codec, unpacked):
    """Its size would be counted, and pay for the objects of other pages."""

    def page(size):
        sizes = b'\x15' + number(2 * size) + b'\x15' + number(2 * 10)
        return b'\x15\0' + sizes + b'\x2c\x15\x02\x15\0\0\0' + bytes(10)

    for size, good in ((unpacked - 1, True), (unpacked, False)):
        data = page(size)
        reader = footer.Compact(data, 0, len(data))
        most = footer._CODECS[codec]
        if good:
            assert footer._values_in(reader, frozenset({0}), most) == (1, size)
        else:
            with pytest.raises(ValueError, match='a page of 10 bytes, which cannot become'):
                footer._values_in(reader, frozenset({0}), most)


def test_a_table_does_not_repeat_a_long_label():
    """A name of 20,000 letters, referred to 20,000 times, was 400 MB out of 5 kB."""
    data = file_of(one_record(label=('x' * 20_000, 20_000)), 1)
    assert len(data) < 10_000
    refused(lambda: parquet.read_table(data), LimitError, 'objects out of')
    assert parquet.read_table(file_of(one_record(label=('x' * 200, 20_000)), 1))[1].num_rows == 1


def test_a_query_looks_at_shards_before_duckdb_does(tmp_path, capsys):
    """The manifest is the attacker's own, so that every hash is right."""
    pytest.importorskip('duckdb')
    content = file_of(one_record(label_id=(0, 400_000), iscrowd=(0, 400_000)), 30)
    shard = datasets.Shard(hashlib.sha256(content).hexdigest(), 30, 0, len(content))
    path = tmp_path / datasets.name_of_shard(shard, 'parquet')
    path.parent.mkdir()
    path.write_bytes(content)
    (tmp_path / datasets.MANIFEST).write_bytes(datasets.manifest_text('parquet', [shard]))
    assert main(['dataset', 'query', str(tmp_path), 'SELECT count(*) FROM records']) == 2
    said = capsys.readouterr().err
    assert 'objects out of' in said and path.name in said
