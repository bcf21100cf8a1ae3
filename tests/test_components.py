"""The cases of the lessons, which hold every component and oddity that icevision records are known for, in every format; and files of version 1 that must stay readable."""

import json
import sys
from pathlib import Path

import pytest

from redaction_serde.lessons.cases import CASES, StickMetadata, ids_of_every_kind, keypoints, the_same_record_twice
from redaction_serde.fidelity import compare
from redaction_serde.checks import broken_references
from redaction_serde.errors import SerdeError
from redaction_serde.records import dumps, loads
from redaction_serde.wire.registry import FORMATS, WIRES, decode

from icevision.core import KeypointsMetadata
from icevision.parsers import COCOKeypointsMetadata

GOLDEN = Path(__file__).parent / 'golden'
WRITTEN = sorted({path.stem for path in GOLDEN.iterdir()})  # cases that were written when version 1 was fixed
NOT_DATA = [name for name, make in CASES.items() if make.group == 'not data']
NOT_JSON = ['not_a_number', 'infinity']


@pytest.mark.parametrize('format', FORMATS)
@pytest.mark.parametrize('name', [name for name in CASES if name not in NOT_DATA])
def test_comes_back_whole(name, format):
    if name in NOT_JSON and format.startswith('json'):
        return test_is_refused(name, format)
    before = CASES[name]()
    encoded = dumps(before, format)
    after = loads(encoded)
    report = compare(before, after)
    assert report, report
    assert dumps(after, format) == encoded
    assert not broken_references(decode(encoded))


@pytest.mark.parametrize('format', FORMATS)
@pytest.mark.parametrize('name', NOT_DATA)
def test_is_refused(name, format):
    with pytest.raises(SerdeError) as e:
        dumps(CASES[name](), format)
    assert e.value.path.startswith('$.records[0]')


def test_metadata_of_keypoints():
    before = keypoints()
    mine = loads(dumps(before), keypoints=[StickMetadata])[0].detection.keypoints
    assert mine[0].metadata is StickMetadata and mine[1].metadata is COCOKeypointsMetadata
    made = loads(dumps(before))[0].detection.keypoints[0].metadata
    assert (
        made is not StickMetadata
        and issubclass(made, KeypointsMetadata)
        and made.labels == ('head', 'foot')
        and made.connections[0].color == (1, 2, 3)
    )


def test_order_and_keys_survive():
    twice = loads(dumps(the_same_record_twice()))
    assert len(twice) == 2 and len(list(twice)) == 4 and twice[0] is twice[2]
    assert [r.record_id for r in loads(dumps(ids_of_every_kind()))] == [r.record_id for r in ids_of_every_kind()]


@pytest.mark.parametrize('format', WIRES)
@pytest.mark.parametrize('name', WRITTEN)
def test_version_1_stays_what_it_is(name, format):
    """Files written when version 1 was fixed: they load to the same records, and those are written to the same bytes."""
    golden = (GOLDEN / f'{name}.{format}').read_bytes()
    assert compare(CASES[name](), loads(golden))
    written = dumps(CASES[name](), format)
    if format == 'parquet':  # its bytes depend on pyarrow, which puts its version into them, and on its zstd
        golden, written = content(golden), content(written)
    assert written == golden


def content(data):
    """All that a Parquet file says: its columns, and what stands under our key, but for the checksum."""
    import pyarrow
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pyarrow.BufferReader(data))
    head = json.loads(file.metadata.metadata[b'redaction-serde'])
    assert head.pop('crc32') != '0' * 8
    groups = file.num_row_groups  # of an empty file pyarrow 18 can read the schema, and not the rows
    return file.read() if groups else file.schema_arrow.empty_table(), head


def test_golden_files_are_all_there():
    assert len(WRITTEN) >= 19 and {path.name for path in GOLDEN.iterdir()} == {
        f'{name}.{format}' for name in WRITTEN for format in WIRES
    }


if (
    __name__ == '__main__'
):  # python tests/test_components.py CASE ... writes files of these cases: only for a new case, or a new version
    for name in sys.argv[1:]:
        for format in WIRES:
            if not (GOLDEN / f'{name}.{format}').exists():
                (GOLDEN / f'{name}.{format}').write_bytes(dumps(CASES[name](), format))
