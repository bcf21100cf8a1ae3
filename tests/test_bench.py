"""The benchmark runs, says what it says it says, and does not flatter."""

import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import processes
import pytest
from run_notebooks import ROOT

sys.path.insert(0, str(ROOT / 'bench'))

import against  # noqa: E402
import clock  # noqa: E402
import data  # noqa: E402
import opened  # noqa: E402
import parquet  # noqa: E402
import report  # noqa: E402
import targets  # noqa: E402
import ways  # noqa: E402

import bench  # noqa: E402

OURS = {'json', 'jsonl', 'msgpack', 'protobuf', 'parquet'}
OTHERS = {'pickle', 'pickle, paused', 'article', 'coco, icevision'}
PEERS = {  # package -> the way that needs it
    'cloudpickle': 'cloudpickle',
    'dill': 'dill',
    'jsonpickle': 'jsonpickle',
    'pandas': 'parquet, pandas',
    'datasets': 'datasets',
    'pycocotools': 'coco, pycocotools',
}


def run(script: str, *args, folder: Path) -> subprocess.CompletedProcess:
    """Run one of the scripts as a user would, but with icevision imported."""
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'HF_HOME': str(folder / 'hf')}
    return processes.run('-c', processes.SCRIPT, ROOT / 'bench' / script, *args, cwd=folder, env=env, timeout=600)


@pytest.fixture(scope='module')
def small_run(tmp_path_factory):
    """A run of everything, with little data: what it printed, and what it wrote."""
    folder = tmp_path_factory.mktemp('bench')
    small = '--sizes 40 60 --rounds 1 --large 0 --odd 301 --loop 60 --stream 500'.split()
    done = run('bench.py', *small, '--out', folder / 'out', folder=folder)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    return (
        done.stdout,
        json.loads((folder / 'out' / 'bench.json').read_text('utf-8')),
        folder / 'out',
    )


def test_a_small_run_has_every_way_or_says_why_not(small_run):
    printed, found, out = small_run
    expected = OURS | OTHERS | {way for package, way in PEERS.items() if package not in found['left_out']}
    assert set(found['results']) == {'40 x 10', '60 x 10'}
    assert expected <= set(found['results']['40 x 10'])
    for package in found['left_out']:
        assert f'left out, because {package} cannot be imported' in printed
    assert [p.name for p in out.iterdir()] == ['bench.json']


def test_both_collectors_and_the_spread_of_each_figure(small_run):
    _, found, _ = small_run
    for rows in found['results'].values():
        for row in rows.values():
            assert row['bytes'] > 0
            for collector in ('as found', 'off'):
                for action in ('dumps', 'loads'):
                    cell = row[collector][action]
                    assert cell['us'] > 0 and cell['rounds'] == 1
                    assert cell['least'] <= cell['ratio'] <= cell['most']
        assert rows['pickle']['off']['loads']['ratio'] == 1


def test_what_comes_back_is_said(small_run):
    printed, found, _ = small_run
    rows = found['results']['40 x 10']
    exact = OURS | {'pickle', 'pickle, paused', 'cloudpickle', 'dill', 'jsonpickle'}
    assert all(not row['lost'] and row['gives'] == 'records' for name, row in rows.items() if name in exact)
    assert 'boxes changed in 40 of 40 records' in rows['article']['lost']
    assert 'article lost: boxes changed in 40 of 40 records' in printed
    assert not any('boxes' in text and ' of 400 ' in text for row in rows.values() for text in row['lost'])
    for name, row in rows.items():
        if row['gives'] != 'records':
            assert row['not_kept'] and f'{name} does not keep: {row["not_kept"]}' in printed


def test_missed_targets_are_listed(small_run):
    printed, found, _ = small_run
    assert found['missed'] == [t for t in found['targets'] if not t['reached']]
    assert len(found['targets']) > 30
    for target in found['targets']:
        word = 'reached' if target['reached'] else 'MISSED'
        assert re.search(rf'^{word} .*{re.escape(target["target"])}$', printed, re.M)


def test_the_results_say_where_they_are_from(small_run):
    _, found, _ = small_run
    assert found['machine']['cores'] and found['python'] and found['packages']['icevision']
    assert re.fullmatch(r'\d{4}-\d\d-\d\d', found['date']) and found['commit']


# Ways that lose something.


def drop_box(stored):
    """Load, and lose one box of the third record."""
    found = ways.pickle.loads(stored)
    del found[2].detection.bboxes[0]
    return found


def drop_record(stored):
    """Load, and lose the last record."""
    found = ways.pickle.loads(stored)
    return found[:-1]


def shift_box(stored):
    """Load, and move a box by what no eye sees."""
    found = ways.pickle.loads(stored)
    found[1].detection.bboxes[0].xmin += 1e-9
    return found


def relabel(stored):
    """Load, and give one object another class."""
    found = ways.pickle.loads(stored)
    found[1].detection.label_ids[0] += 1
    return found


LOSING = {
    drop_box: '49 of 50 boxes',
    drop_record: '4 of 5 records',
    shift_box: 'boxes changed in 1 of 5 records',
    relabel: 'label ids changed in 1 of 5 records',
}


@pytest.fixture(scope='module')
def losing():
    """What is found of ways that lose something, and of pickle beside them."""
    pickle_way, *_ = ways.picklers({})
    lossy = [ways.Way(load.__name__, ways.pickle_5, load) for load in LOSING]
    return report.summary(clock.measure([pickle_way, *lossy], lambda: data.collection(data.made(5, 10)), 1, 1), 5)


@pytest.mark.parametrize('load', LOSING)
def test_a_way_that_loses_something_is_reported(load, losing):
    assert losing['pickle']['lost'] == []
    assert LOSING[load] in losing[load.__name__]['lost']
    assert f'    {load.__name__} lost: {LOSING[load]}' in list(report.table(losing))


def test_a_table_that_loses_boxes_is_reported():
    way = ways.Way('table', ways.pickle_5, lambda data: [1, 2, 3], 'a table', lambda rows: (5, len(rows)))
    given = data.collection(data.made(5, 10))
    assert ways.lost(way, given, way.load(None), data.counts) == ['3 of 50 boxes']


def test_a_loss_of_our_own_is_no_result():
    rows = {'json': dict(lost=['4 of 5 records']), 'msgpack': dict(lost=[])}
    assert list(bench.own_losses({'5 x 10': rows}, ('json', 'msgpack'))) == ['json, 5 x 10: 4 of 5 records']


# The data and the clock.


def test_boxes_are_in_order_and_images_exist():
    with data.image_folder(3) as folder:
        records = list(data.made(3, 10, folder=folder))
        assert all(record.filepath.exists() for record in records)
        assert len({record.filepath.stat().st_ino for record in records}) == 1  # one file, three names
        for record in records:
            check_boxes(record.detection)
            record.autofix()
            assert len(record.detection.bboxes) == 10  # nothing to repair
    assert not folder.exists()


def check_boxes(task):
    """Corners in order and inside the image, areas right."""
    for box, area in zip(task.bboxes, task.areas):
        assert 0 <= box.xmin < box.xmax <= data.WIDTH
        assert 0 <= box.ymin < box.ymax <= data.HEIGHT
        assert area == (box.xmax - box.xmin) * (box.ymax - box.ymin)


@pytest.mark.parametrize('kind', data.ODD_KINDS)
def test_one_record_in_300_is_odd(kind):
    from redaction_serde import compare

    regular, found = list(data.made(600, 2)), list(data.odd(data.made(600, 2), kind))
    different = [i for i, (a, b) in enumerate(zip(regular, found)) if not compare(a, b)]
    assert different == [150, 450]


def test_two_class_maps_take_turns():
    maps = [r.detection.class_map for r in data.made(4, 2, maps=2)]
    assert maps[0] is maps[2] and maps[1] is maps[3] and maps[0] != maps[1]


def test_what_is_deferred_is_on_the_bill(monkeypatch):
    """Young objects that a way leaves are looked at before the clock stops."""
    events, seen = [], {}

    def tick():
        events.append('clock')
        return 0.0

    def watch(phase, info):
        if phase == 'start':
            events.append(f'generation {info["generation"]}')

    def make(_):
        events.append('on' if gc.isenabled() else 'off')
        return [[] for _ in range(500)]  # too few to start a collection by themselves

    monkeypatch.setattr(clock.time, 'process_time', tick)
    gc.callbacks.append(watch)
    try:
        for collector in (report.FOUND, report.OFF):
            gc.collect()
            events.clear()
            clock.timed(make, None, collector)
            seen[collector] = events[:]
    finally:
        gc.callbacks.remove(watch)
    assert seen[report.FOUND] == ['clock', 'on', 'generation 0', 'clock']
    assert seen[report.OFF] == ['clock', 'off', 'clock']
    assert gc.isenabled()


def test_the_collector_is_on_after_an_error():
    with pytest.raises(ZeroDivisionError):
        clock.timed(lambda x: 1 / x, 0, report.OFF)
    assert gc.isenabled()


def test_ours_come_before_a_pickler_has_touched_the_collection():
    known = [ways.Way(name, None, None, ours=name < 'd') for name in 'abcdef']
    orders = [''.join(way.name for way in clock.turns(known, turn)) for turn in range(3)]
    assert orders == ['abcdef', 'bcaefd', 'cabfde']


# This version against another.


def row(case: str, new: list, old: list, collector: bool = False) -> against.Row:
    return against.Row(case, 'dumps', 'json', collector, new, old)


def test_slower_than_before_is_missed():
    cases = [against.Case('a', 10), against.Case('b', 10)]
    rows = [row('a', [1.2, 1.15, 3], [1, 1, 1]), row('b', [1.05, 9, 1], [1, 1, 1])]
    first, second = against.compare_versions(rows, cases)
    assert against.missed(first) and (first['ratio'], first['least'], first['most']) == (
        1.2,
        1.15,
        3,
    )
    assert not against.missed(second)
    assert 'MISSED' in against.said(first) and 'MISSED' not in against.said(second)


def test_what_odd_records_cost_is_compared_round_by_round():
    cases = [against.Case('regular', 10), against.Case('odd', 10, counterpart='regular')]
    rows = [row('regular', [1, 2, 4], [1, 1, 1]), row('odd', [1.5, 3, 6], [2, 2, 2])]
    (found,) = against.compare_cases(rows, cases)
    assert found['ratio'] == found['least'] == found['most'] == 1.5 and found['before'] == 2
    assert against.missed(found)


def test_only_the_collector_off_has_a_gate():
    (found,) = against.compare_versions([row('a', [2], [1], collector=True)], [against.Case('a', 10)])
    assert not against.missed(found)


def test_against_itself(tmp_path):
    out = tmp_path / 'against.json'
    args = ROOT, '--quick', '--only', 'two class', '--rounds', 1, '--out', out
    done = run('against.py', *args, folder=tmp_path)
    assert done.returncode in (0, 1) and not done.stderr, done.stdout + done.stderr  # 1: a noisy moment
    found = json.loads(out.read_text())
    assert {v['case'] for v in found['versions']} == {'regular', 'two class maps in turn'}
    assert {v['what'] for v in found['oddities']} == {'dumps', 'loads'}
    assert all(v['same_bytes'] for v in found['versions'])


def test_a_checkout_that_is_not_imported_is_refused(tmp_path):
    done = run('against.py', tmp_path, '--quick', folder=tmp_path)
    assert done.returncode == 1 and f'expected the package of {tmp_path}, found' in done.stderr


def test_kept_results_are_fit_to_publish():
    path = ROOT / 'bench' / 'results' / 'bench.json'  # what the lesson about speed shows
    if not path.exists():
        pytest.skip('no results are kept')
    text = path.read_text('utf-8')
    assert len(text) < 200_000 and not re.search(r'/(?:home|root|Users|tmp|work)/|[A-Z]:\\\\', text)
    kept = json.loads(text)
    assert OURS | {'pickle', 'article'} <= set(kept['results']['20000 x 10'])
    assert kept['python'] and kept['packages'] and kept['machine']['cpu'] and kept['date']
    assert re.fullmatch(r'[0-9a-f]{7,}|v[\w.-]+', kept['commit'])  # of a checkout without changes
    assert kept['missed'] == [t for t in kept['targets'] if not t['reached']]


@pytest.mark.parametrize(
    'script, options, names',
    [
        ('opened.py', ['--workers', 0], [name for name in opened.TARGETS if not name.startswith('added by')]),
        ('parquet.py', [], parquet.TARGETS),
    ],
)
def test_one_thing_is_measured_against_its_targets(script, options, names, tmp_path):
    done = run(script, '--records', 60, '--rounds', 1, *options, folder=tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    for name in names:
        assert re.search(rf'^{re.escape(name)} .* at (least|most) ', done.stdout, re.M), name


def test_a_missed_target_is_said():
    wanted = {'more': ('least', 20), 'less': ('most', 0.5)}
    assert targets.line('more', 20.0, wanted).endswith('20   at least 20')
    assert targets.line('more', 19.9, wanted).endswith('MISSED')
    assert targets.line('less', 0.51, wanted).endswith('MISSED')
    assert targets.line('of no target', 1.0, wanted).endswith(' 1')
