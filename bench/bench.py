"""How long our formats take, beside the article's way and four picklers, as ratios within one run.

    python bench/bench.py [--sizes 2000 20000 100000] [--rounds 3] [--stream 1000000] [--out out/bench]

CPU time of this process, best of the rounds; the ways take turns within a round, so that a slow moment of the machine meets all of
them. 'Collector as found' is Python's default with the source collection alive: a load is then timed with the young collection
that it leaves behind, so that pausing the collector does not send its bill to whoever runs next. Writes bench.json and bench.svg.
"""
import argparse
import copy
import gc
import json
import pickle
import platform
import random
import resource
import sys
import time
import tracemalloc
from importlib.metadata import version
from pathlib import Path

from redaction_serde.fidelity import article_dumps, article_loads, compare
from redaction_serde.records import dumps, iter_records, loads, write_records

from icevision.core import (
    AreasRecordComponent, BaseRecord, BBox, BBoxesRecordComponent, ClassMap, FilepathRecordComponent, InstancesLabelsRecordComponent,
    IsCrowdsRecordComponent)
from icevision.data import RecordCollection
from icevision.utils import ImgSize

FORMATS = ('json', 'jsonl', 'msgpack', 'protobuf')
SLOW = ('dill', 'jsonpickle')  # timed at the smallest size only, unless --all
TARGETS = {  # at 20,000 records of 10 boxes: (collector, what, way, against) -> at least this many times better
    ('as found', 'dumps', 'json', 'pickle'): 2, ('as found', 'dumps', 'json', 'article'): 1,
    ('as found', 'loads', 'json', 'pickle'): 6, ('as found', 'loads', 'json', 'article'): 20,
    ('as found', 'dumps', 'msgpack', 'pickle'): 2,
    ('as found', 'loads', 'msgpack', 'pickle'): 12, ('as found', 'loads', 'msgpack', 'article'): 40,
    ('off', 'loads', 'json', 'pickle'): 1.3, ('off', 'loads', 'msgpack', 'pickle'): 2,
    ('as found', 'bytes', 'json', 'pickle'): 1/1.1, ('as found', 'bytes', 'msgpack', 'pickle'): 1/.45,
}
COLOURS = {'json': '#0072B2', 'jsonl': '#56B4E9', 'msgpack': '#009E73', 'protobuf': '#F0E442', 'pickle': '#D55E00', 'cloudpickle': '#E69F00',
           'dill': '#CC79A7', 'jsonpickle': '#999999', 'article': '#000000'}


def say(text):
    """Progress, for somebody who watches."""
    if sys.stderr.isatty(): print(f'\r{text:70}', end='' if text else '\r', file=sys.stderr, flush=True)


def made(n, boxes, seed=0):
    """`n` records with that many boxes, one at a time, as a COCO parser leaves them: copies of a template, filled."""
    rng, class_map = random.Random(seed), ClassMap([f'class {i}' for i in range(20)])
    template = BaseRecord((FilepathRecordComponent(), InstancesLabelsRecordComponent(), BBoxesRecordComponent(), AreasRecordComponent(), IsCrowdsRecordComponent()))
    for i in range(n):
        record = copy.deepcopy(template)
        record.set_record_id(i)
        record.set_filepath(f'/data/images/{i:08d}.jpg')
        record.set_img_size(ImgSize(640, 480))
        record.is_new = False
        record.detection.set_class_map(class_map)
        record.detection.add_labels_by_id([rng.randrange(1, 20) for _ in range(boxes)])
        record.detection.add_bboxes([BBox(*(rng.random()*640 for _ in range(4))) for _ in range(boxes)])
        record.detection.add_areas([rng.random()*1e4 for _ in range(boxes)])
        record.detection.add_iscrowds([0]*boxes)
        yield record


def ways():
    """Name -> (dump, load)."""
    import cloudpickle
    import dill
    import jsonpickle
    found = {f: (lambda c, f=f: dumps(c, f), loads) for f in FORMATS}
    found['pickle'] = lambda c: pickle.dumps(c, 5), pickle.loads
    found['article'] = article_dumps, article_loads
    found['cloudpickle'] = cloudpickle.dumps, pickle.loads
    found['dill'] = dill.dumps, dill.loads
    found['jsonpickle'] = jsonpickle.encode, lambda text: jsonpickle.decode(text, on_missing='error')
    return found


def timed(action, collector):
    """CPU seconds and the result."""
    gc.collect()
    if collector == 'off': gc.disable()
    start = time.process_time()
    result = action()
    if collector == 'as found': gc.collect(0)  # the young objects that it leaves behind
    seconds = time.process_time() - start
    gc.enable()
    return seconds, result


def measure(n, boxes, rounds, names):
    """Best times and sizes of each way, for equal collections: picklers give every object a dict for good, so ours get one that they have not seen."""
    best, known, collection, before = {}, ways(), None, None
    for turn in range(rounds):
        for name in names:
            if collection is None or (name in FORMATS) != before: collection = None  # not two at once
            if collection is None: collection = RecordCollection(None).new(list(made(n, boxes)))
            before = name in FORMATS
            say(f'{n:,} × {boxes:,} boxes, round {turn + 1} of {rounds}: {name}')
            dump, load = known[name]
            for collector in ('as found', 'off'):
                row = best.setdefault(name, {}).setdefault(collector, {})
                seconds, data = timed(lambda: dump(collection), collector)
                row['dumps'] = min(row.get('dumps', 1e9), seconds/n*1e6)
                seconds, again = timed(lambda: load(data), collector)
                row['loads'] = min(row.get('loads', 1e9), seconds/n*1e6)
                row['bytes'] = (len(data.encode()) if isinstance(data, str) else len(data))/n
                if turn == 0 and name in FORMATS and n*boxes <= 20_000: assert compare(collection, again)
                del again, data
    say('')
    return best


def memory(n, boxes, format):
    """Peak of a load over the collection that it returns, and that over the one that was saved (tracemalloc)."""
    loads(dumps(RecordCollection(None).new(list(made(20, boxes))), format))  # what is made once, such as the struct classes
    tracemalloc.start()
    collection = RecordCollection(None).new(list(made(n, boxes)))
    gc.collect()
    saved, _ = tracemalloc.get_traced_memory()
    data = dumps(collection, format)
    del collection
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    again = loads(data)
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del again
    return dict(peak=(peak - before)/(now - before), loaded=(now - before)/saved)


def stream(n, folder):
    """MB by which the process grows while that many records are written and read back."""
    path = folder/'stream.jsonl'
    def resident(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/(1 << 20 if sys.platform == 'darwin' else 1 << 10)
    def tell(count):
        if count % 50_000 == 0: say(f'stream: {count:,} records')
    before = resident()
    write_records(path, made(n, 10), progress=tell)
    count = sum(1 for _ in iter_records(path))
    say('')
    path.unlink()
    assert count == n
    return resident() - before


def table(best):
    """Lines of one collection's figures, with ratios to pickle and to the article's way."""
    yield f'{"":12} {"GC":9}' + ''.join(f'{what:>8} {"×pickle":>8} {"×article":>8} ' for what in ('dumps', 'loads', 'bytes'))
    for name, by in best.items():
        for collector, row in by.items():
            line = f'{name:12} {collector:9}'
            for what in ('dumps', 'loads', 'bytes'):
                line += f'{row[what]:8.1f} ' + ''.join(f'{best[base][collector][what]/row[what]:8.2f} ' if base in best else ' '*9 for base in ('pickle', 'article'))
            yield line


def verdicts(best, extra):
    """(what is wanted, what was found, reached)"""
    for (collector, what, way, base), least in TARGETS.items():
        if way in best and base in best:
            found = best[base][collector][what]/best[way][collector][what]
            yield f'{way} {what}, collector {collector}: at least {least:.2f} × {base}', f'{found:.2f}', found >= least
    for text, found, most in extra: yield f'{text}: at most {most}', f'{found:.2f}', found <= most


def figure(best, path, title):
    """Time against time, one point a way: near the corner is good."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    matplotlib.rcParams['svg.hashsalt'] = 'bench'
    fig = Figure(figsize=(7, 4.5), layout='constrained')
    FigureCanvasSVG(fig)
    ax = fig.subplots()
    for name, by in best.items():
        row = by['as found']
        ax.scatter(row['loads'], row['dumps'], s=row['bytes']/8, color=COLOURS[name], alpha=.8, linewidths=0)
        ax.annotate(f'{name}\n{row["bytes"]:.0f} bytes', (row['loads'], row['dumps']), xytext=(9, 5), textcoords='offset points', fontsize=8)
    ax.set(xscale='log', yscale='log', xlabel='loads, µs a record', ylabel='dumps, µs a record', title=title)
    ax.margins(.18)
    fig.savefig(path, metadata={'Date': None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', type=int, nargs='+', default=[2000, 20000, 100000], help='records of 10 boxes each')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--large', type=int, default=100000, help='boxes of the one large record; 0 leaves it out')
    parser.add_argument('--stream', type=int, default=0, metavar='N', help='records to stream through a file')
    parser.add_argument('--all', action='store_true', help='time dill and jsonpickle at every size')
    parser.add_argument('--out', type=Path, default=Path('out/bench'))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results, extra = {}, []
    if args.stream:  # first, while the process is small
        extra.append((f'growth while {args.stream:,} records are streamed, MB', stream(args.stream, args.out), 100))
    for n, boxes in [(n, 10) for n in sorted(args.sizes)] + ([(1, args.large)] if args.large else []):
        names = [w for w in ways() if args.all or n <= min(args.sizes) or w not in SLOW]
        best = results[f'{n} x {boxes}'] = measure(n, boxes, args.rounds, names)
        print(f'\n{n:,} records of {boxes:,} boxes: CPU µs and bytes a record; how many times better than pickle 5 and the article\'s way', *table(best), sep='\n', flush=True)
    for format in ('json', 'msgpack'):
        found = memory(min(args.sizes), 10, format)
        extra += [(f'{format}: peak of a load over what it returns', found['peak'], 1.25), (f'{format}: what is loaded over what was saved', found['loaded'], 1)]
        small, large = (results[f'{n} x 10'][format]['as found'] for n in (min(args.sizes), max(args.sizes)))
        if len(args.sizes) > 1: extra += [(f'{format} {what} at {max(args.sizes):,} over {min(args.sizes):,}', large[what]/small[what], 1.6) for what in ('dumps', 'loads')]
    main_size = 20000 if 20000 in args.sizes else max(args.sizes)
    best = results[f'{main_size} x 10']
    found = list(verdicts(best, extra))
    print(f'\nTargets, at {main_size:,} records of 10 boxes', *(f'{"reached" if ok else "MISSED":8} {value:>8}  {text}' for text, value, ok in found), sep='\n')
    figure(best, args.out/'bench.svg', f'{main_size:,} records of 10 boxes: area is size')
    packages = {p: version(p) for p in ('icevision', 'msgspec', 'cloudpickle', 'dill', 'jsonpickle', 'srsly', 'numpy')}
    (args.out/'bench.json').write_text(json.dumps(dict(
        python=platform.python_version(), system=platform.system(), packages=packages, rounds=args.rounds, unit='CPU µs and bytes a record', results=results,
        targets=[dict(target=text, found=float(value), reached=ok) for text, value, ok in found]), indent=1))
    print(f'\n{args.out}/bench.json and bench.svg written')


if __name__ == '__main__': main()
