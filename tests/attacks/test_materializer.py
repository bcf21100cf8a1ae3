"""Artifacts whose files were exchanged, manifests that lie, stores that lie, and collections that no picture can be drawn of.

Most of these materializers know no recorded hash: with one, none of this comes as far as the manifest.
"""

import json
import os
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import processes
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zenml.client import Client

from pace import cpu_seconds
from redaction_serde.errors import DecodeError, LimitError, Limits, SerdeError
from redaction_serde.materializers import (
    PredictionsMaterializer,
    RecordCollectionMaterializer,
    StoredMaterializer,
    sha256_of,
    shard_name,
    summarise,
)
from redaction_serde.materializers.summaries import _try_sheet
from redaction_serde.records import dumps

from icevision.core import (
    BaseRecord,
    BBox,
    BBoxesRecordComponent,
    ClassMap,
    FilepathRecordComponent,
    InstancesLabelsRecordComponent,
)
from icevision.data import Prediction, RecordCollection

ROOT = Path(__file__).resolve().parent.parent.parent
EVIL = '<script>alert(1)</script>"\'><img src=x onerror=alert(1)>\u202e\x1b[31m\r\n'


def page(i, x=1.0, name='a'):
    record = BaseRecord((FilepathRecordComponent(), InstancesLabelsRecordComponent(), BBoxesRecordComponent()))
    record.set_record_id(i)
    record.set_filepath(f'/p/{i}.png')
    record.set_img_size((100, 100))
    record.detection.set_class_map(ClassMap([name]))
    record.detection.add_labels([name])
    record.detection.add_bboxes([BBox(x, 2.0, 30.0, 40.0)])
    return record


def collection(n=10):
    return RecordCollection(None).new([page(i) for i in range(n)])


class Fours(RecordCollectionMaterializer):
    """Shards of four, four and two records."""

    SKIP_REGISTRATION, FORMAT, SHARD = True, 'jsonl', 4


class FoursOfPredictions(PredictionsMaterializer):
    SKIP_REGISTRATION, FORMAT, SHARD = True, 'jsonl', 4


def new_folder():
    folder = Path(Client().active_stack.artifact_store.path) / f'attack-{time.monotonic_ns()}'
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def folder():
    """A folder with ten records in three shards."""
    folder = new_folder()
    Fours(str(folder)).save(collection())
    return folder


def ids(materializer):
    return [record.record_id for record in materializer.load(RecordCollection)]


def item(materializer, i):
    return materializer.load_item(RecordCollection, i).record_id


def manifest_of(folder):
    return json.loads((folder / 'manifest.json').read_bytes())


def with_manifest(folder, manifest):
    """A materializer that has been told nothing, over a manifest that was exchanged."""
    (folder / 'manifest.json').write_text(json.dumps(manifest))
    return Fours(str(folder))


def knowing(folder, cls=Fours):
    """A materializer as ZenML makes it, told the hash of the manifest as it is now."""
    materializer = cls(str(folder))
    materializer.expected_content_hash = sha256_of((folder / 'manifest.json').read_bytes())
    return materializer


# ---------------------------------------------------------------- manifests


@pytest.mark.parametrize(
    'items',
    [
        [1, 4, 2],
        [4, 1, 2],
        [4, 4, 1],
        [4, 4, 4],
        [2, 2, 2],
        [5, 5, 0],
        [5, 5, 5],
        [-4, -4, -2],
        [0, 0, 0],
        [10, 0, 0],
        [2**62] * 3,
    ],
)
def test_items_that_lie(folder, items):
    manifest = manifest_of(folder)
    for shard, n in zip(manifest['shards'], items):
        shard['items'] = n
    materializer = with_manifest(folder, manifest)
    with pytest.raises(DecodeError, match='items|records'):
        ids(materializer)
    for i in range(10):
        try:
            found = item(materializer, i)
        except (DecodeError, IndexError):
            continue
        assert found == i  # a lie about another shard may go unnoticed, but never gives another record


@settings(max_examples=60)
@given(st.lists(st.integers(-3, 12), min_size=3, max_size=3), st.integers(0, 12))
def test_no_lie_about_items_gives_another_record(items, i):
    folder, manifest = _ten()
    for shard, n in zip(manifest['shards'], items):
        shard['items'] = n
    try:
        found = item(with_manifest(folder, manifest), i)
    except (DecodeError, IndexError):
        return
    assert found == i


_TEN = []


def _ten():
    """A folder with ten records, which all examples of a property use in turn, and its true manifest."""
    if not _TEN:
        folder = new_folder()
        Fours(str(folder)).save(collection())
        _TEN.extend((folder, (folder / 'manifest.json').read_text()))
    return _TEN[0], json.loads(_TEN[1])


@pytest.mark.parametrize('said', [-(10**9), -1, 0, 10])
def test_sizes_that_lie(folder, said):
    manifest = manifest_of(folder)
    for shard in manifest['shards']:
        shard['bytes'] = said
    materializer = with_manifest(folder, manifest)
    for read in (lambda: ids(materializer), lambda: item(materializer, 1)):
        with pytest.raises(DecodeError, match='bytes'):
            read()


def test_sizes_that_are_too_large_by_one(folder):
    manifest = manifest_of(folder)
    manifest['shards'][1]['bytes'] += 1
    with pytest.raises(DecodeError, match='the manifest says .* bytes, and the shard has'):
        ids(with_manifest(folder, manifest))


def test_a_limit_is_kept_whatever_a_manifest_says(folder):
    class Small(Fours):
        SKIP_REGISTRATION, LIMITS = True, Limits(bytes=2000)

    with pytest.raises(LimitError, match='over the limit of 2000'):
        ids(Small(str(folder)))
    manifest = manifest_of(folder)
    for said in (-(10**9), 0, 1):
        for shard in manifest['shards']:
            shard['bytes'] = said
        with_manifest(folder, manifest)
        with pytest.raises(DecodeError):
            ids(Small(str(folder)))


@pytest.mark.parametrize(
    'change',
    [
        lambda shards: shards.reverse(),
        lambda shards: shards.pop(),
        lambda shards: shards.pop(0),
        lambda shards: shards.pop(1),
        lambda shards: shards.append(shards[0]),
        lambda shards: shards.insert(1, shards[0]),
        lambda shards: shards.clear(),
    ],
    ids=[
        'reversed',
        'without the last',
        'without the first',
        'without the middle',
        'the first again',
        'the first twice',
        'none',
    ],
)
def test_shards_in_another_order_or_number(folder, change):
    manifest = manifest_of(folder)
    change(manifest['shards'])
    materializer = with_manifest(folder, manifest)
    with pytest.raises(DecodeError):
        ids(materializer)
    for i in range(10):
        try:
            found = item(materializer, i)
        except (DecodeError, IndexError):
            continue
        assert found == i


def test_two_shards_swapped(folder):
    a, b = folder / shard_name(0), folder / shard_name(1)
    x, y = a.read_bytes(), b.read_bytes()
    a.write_bytes(y), b.write_bytes(x)
    for materializer in (Fours(str(folder)), knowing(folder)):
        with pytest.raises(DecodeError, match='has changed since it was saved'):
            ids(materializer)
        with pytest.raises(DecodeError, match='has changed since it was saved'):
            item(materializer, 0)


def test_an_extra_shard(folder):
    known = knowing(folder)
    (folder / shard_name(3)).write_bytes((folder / shard_name(0)).read_bytes())
    assert ids(known) == list(range(10)) and item(known, 9) == 9
    with pytest.raises(DecodeError, match='says that there are 3 shards, and there is records-00003'):
        ids(Fours(str(folder)))
    with pytest.raises(DecodeError, match='says that there are 3 shards'):
        item(Fours(str(folder)), 0)


def test_a_smaller_collection_in_the_same_folder(folder):
    Fours(str(folder)).save(collection(3))
    assert sorted(p.name for p in folder.iterdir()) == ['manifest.json', 'records-00000.jsonl']
    assert ids(Fours(str(folder))) == [0, 1, 2]


def shards_of(folder, *datas):
    """The manifest and shards that somebody made of other documents, each entry as it should be for its file."""
    shards = []
    for k, data in enumerate(datas):
        (folder / shard_name(k)).write_bytes(data)
        shards.append(dict(items=1, bytes=len(data), sha256=sha256_of(data)))
    for path in folder.glob('records-*.jsonl'):
        if path.name >= shard_name(len(datas)):
            path.unlink()
    return with_manifest(folder, {**manifest_of(folder), 'shards': shards})


def test_shards_that_do_not_belong_together(folder):
    one, other = (dumps(RecordCollection(None).new([page(i, name=name)]), 'jsonl') for i, name in enumerate('ab'))
    with pytest.raises(DecodeError, match='does not belong to the shards before it'):
        ids(shards_of(folder, one, other))


def test_a_shard_of_another_kind(folder):
    one, other = dumps(RecordCollection(None).new([page(0)]), 'jsonl'), dumps([Prediction(page(1))], 'jsonl')
    with pytest.raises(DecodeError, match='its kind are others'):
        ids(shards_of(folder, one, other))


def test_a_shard_with_an_index_of_its_own(folder):
    record = page(0)
    twice = RecordCollection(None).new([record])
    twice._records._list.append(record)
    with pytest.raises(DecodeError, match='an index of its own'):
        ids(shards_of(folder, dumps(twice, 'jsonl')))


def test_a_pair_over_the_edge_of_its_shard():
    folder = new_folder()
    FoursOfPredictions(str(folder)).save([Prediction(page(i)) for i in range(8)])
    data = (folder / shard_name(0)).read_bytes()
    *lines, end = data.splitlines(keepends=True)
    end = json.loads(end)
    end['end']['pairs'][0] = [0, 5]
    end['end']['crc32'] = f'{zlib.crc32(b"".join(lines)):08x}'
    data = b''.join(lines) + json.dumps(end).encode().replace(b'": ', b'":') + b'\n'
    (folder / shard_name(0)).write_bytes(data)
    manifest = manifest_of(folder)
    manifest['shards'][0].update(bytes=len(data), sha256=sha256_of(data))
    (folder / 'manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(DecodeError, match='not one of the 4 of its shard'):
        FoursOfPredictions(str(folder)).load(list)
    with pytest.raises((DecodeError, IndexError)):
        FoursOfPredictions(str(folder)).load_item(list, 0)


@settings(max_examples=150)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(
                st.sampled_from(['format', 'version', 'shards', 'index', 'items', 'bytes', 'sha256', 'order', 'keys']),
                x,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_manifest(data):
    folder = _shared_folder()
    if isinstance(data, dict):
        data = {'format': 'redaction-serde shards', 'version': '1.0', **data}
    for read in (lambda m: m.load(None), lambda m: m.load_item(None, 0)):
        with pytest.raises((SerdeError, IndexError)):
            read(with_manifest(folder, data))


_FOLDERS = []


def _shared_folder():
    """A folder that all examples of a property use in turn."""
    if not _FOLDERS:
        _FOLDERS.append(new_folder())
    return _FOLDERS[0]


# ---------------------------------------------------------------- other files in the folder


def test_a_foreign_file_beside_a_manifest(folder):
    foreign = dumps(RecordCollection(None).new([page(1, 9.0)]))
    known = knowing(folder, RecordCollectionMaterializer)
    (folder / 'records.json').write_bytes(foreign)
    assert ids(known) == ids(Fours(str(folder))) == list(range(10)) and item(known, 3) == 3
    (folder / 'records.json').unlink()
    (folder / 'records.json').symlink_to('/dev/zero')
    assert ids(known) == list(range(10))
    if hasattr(os, 'mkfifo'):
        (folder / 'records.json').unlink()
        os.mkfifo(folder / 'records.json')
        assert ids(known) == list(range(10))


def test_a_foreign_manifest_beside_a_file():
    folder = new_folder()
    materializer = RecordCollectionMaterializer(str(folder))
    materializer.save(collection(3))
    Fours(str(folder)).save(collection(5))
    known = Fours(str(folder))
    known.expected_content_hash = materializer.compute_content_hash(collection(3))
    assert ids(known) == ids(RecordCollectionMaterializer(str(folder))) == [0, 1, 2]


def test_the_hash_is_that_of_the_object(folder):
    a, b = collection(3), collection(4)
    materializer = RecordCollectionMaterializer(str(new_folder()))
    materializer.save(a)
    assert materializer.compute_content_hash(b) == sha256_of(dumps(b)) != materializer.compute_content_hash(a)


# ---------------------------------------------------------------- stores that lie

READ_ENDLESS = '''
import resource, sys, tempfile, warnings
warnings.simplefilter('ignore')
from redaction_serde.compat import prepare_zenml
prepare_zenml(tempfile.mkdtemp())
from types import SimpleNamespace
from redaction_serde.errors import SerdeError
from redaction_serde.materializers import RecordCollectionMaterializer
store = SimpleNamespace(size=lambda path: 0, open=lambda path, mode: open('/dev/zero', 'rb'), exists=lambda path: False)
class Small(RecordCollectionMaterializer):
    from redaction_serde.errors import Limits
    SKIP_REGISTRATION, LIMITS = True, Limits(bytes=100_000_000)
used = int(open('/proc/self/statm').read().split()[0])*4096
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29),)*2)
try: Small('/anywhere', store).load(None)
except SerdeError as e: print(type(e).__name__, e)
'''


@pytest.mark.skipif(not Path('/dev/zero').exists(), reason='there is no endless device here')
def test_a_device_that_never_ends():
    done = processes.run('-c', READ_ENDLESS, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.stdout.startswith('LimitError more than the limit of 100000000 bytes'), done.stderr
    folder = new_folder()
    (folder / 'records.json').symlink_to('/dev/zero')
    with pytest.raises(SerdeError):
        RecordCollectionMaterializer(str(folder)).load(RecordCollection)


class Growing:
    """A file that gives more than the store has said."""

    def __init__(self, data):
        self.left = data + b'x' * (1 << 21)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass

    def read(self, n):
        piece, self.left = self.left[:n], self.left[n:]
        return piece


def test_a_file_that_grows(folder):
    real = Client().active_stack.artifact_store

    def open_(path, mode):
        return Growing(Path(path).read_bytes()) if path.endswith('1.jsonl') else real.open(path, mode)

    store = SimpleNamespace(size=real.size, open=open_, exists=real.exists)
    with pytest.raises(DecodeError, match='bytes, found more'):
        Fours(str(folder), store).load(RecordCollection)


# ---------------------------------------------------------------- what is shown


def test_nothing_in_a_name_acts():
    folder = new_folder()
    hostile = RecordCollection(None).new([page(EVIL, -5.0, EVIL)])
    materializer = RecordCollectionMaterializer(str(folder))
    materializer.save(hostile)
    assert len(materializer.save_visualizations(hostile)) == 2
    report = (folder / 'report.html').read_text()
    assert '<script' not in report and '<img' not in report and '&lt;script' in report
    assert not any(c in report for c in '\x1b\u202e\r') and r'\u202e' in report
    found = materializer.extract_metadata(hostile)
    assert all(name.isprintable() for name in found['classes']) and sum(found['classes'].values()) == 1


@pytest.mark.parametrize('name', [r'$\frac{1$', '$', '$$', '$\x00$', '\ud800', 'x' * 100_000, '\n' * 50, '_^{}$'])
def test_any_name_can_be_shown(name):
    hostile = RecordCollection(None).new([page(1, 1.0, name), page(name, 1.0, name)])
    materializer = RecordCollectionMaterializer(str(new_folder()))

    def shown():
        assert len(materializer.save_visualizations(hostile)) == 2

    assert cpu_seconds(shown, 10) < 10
    assert materializer._summary(hostile).boxes == 2
    assert _try_sheet(list(hostile), summarise(hostile), 0)  # no page had to be left out


class Odd:
    """An object of somebody's own."""

    def __str__(self):
        raise RuntimeError('no')

    __repr__ = __hash__ = __eq__ = __len__ = __iter__ = __float__ = __getitem__ = __str__


ODD = [
    None,
    5,
    'wide',
    b'x',
    [],
    [[1]],
    [None],
    {},
    {1},
    Odd(),
    [Odd()],
    float('nan'),
    [float('inf')],
    10**400,
    [10**400],
    (10**400, 1),
    (0, 0),
    (-1, -1),
    ('a', 'b'),
    (float('nan'), 1),
]


@pytest.mark.parametrize(
    'attribute',
    ['bboxes', 'label_ids', 'labels', 'class_map', 'img_size', 'record_id', 'filepath', 'xmin', '_id2class'],
)
@pytest.mark.parametrize('value', ODD, ids=[str(i) for i in range(len(ODD))])
def test_no_collection_fails_to_be_shown(attribute, value):
    odd = collection(2)
    detection = odd._records._list[0].detection
    targets = [
        *odd._records._list[0].common.components,
        *detection.components,
        detection.bboxes[0],
        detection.class_map,
    ]
    for target in targets:
        if attribute in vars(target):
            vars(target)[attribute] = value
    materializer = RecordCollectionMaterializer(str(new_folder()))
    materializer._saved, materializer._measured = (odd, 'hash'), (1, 1)  # some of these cannot be saved
    found = materializer.extract_metadata(odd)
    assert found['records'] == 2 and found['boxes'] >= 1
    json.dumps(found)
    assert len(materializer.save_visualizations(odd)) == 2
    assert summarise(odd).records == 2


def test_a_number_for_a_path_closes_no_open_file(folder):
    """Python takes a number for a file that is open already, and closes it afterwards: here a pipe, a socket, a database."""
    odd = collection(2)
    with open(folder / 'of another', 'w+b') as of_another:
        before = os.fstat(of_another.fileno())
        for component in odd._records._list[0].common.components:
            if 'filepath' in vars(component):
                vars(component)['filepath'] = of_another.fileno()
        materializer = RecordCollectionMaterializer(str(new_folder()))
        assert len(materializer.save_visualizations(odd)) == 2
        assert os.path.samestat(os.fstat(of_another.fileno()), before)


def test_the_base_serves_all(folder):
    """Every materializer of ours stands on the one base: hash, bounded reading and errors are written once."""
    from redaction_serde import materializers

    found = {
        x
        for x in vars(materializers).values()
        if isinstance(x, type) and hasattr(x, 'ASSOCIATED_TYPES') and x is not StoredMaterializer
    }
    assert len(found) == 4
    for cls in found:
        assert issubclass(cls, StoredMaterializer)
        for name in ('_read', '_write', '_bounded', '_asked', 'compute_content_hash', '_hash_of'):
            assert getattr(cls, name) is getattr(StoredMaterializer, name)
