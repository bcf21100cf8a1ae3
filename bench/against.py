"""Is this version slower than an earlier one? Both run in one go, turn by turn, over the same data.

    python bench/against.py PATH [--quick] [--rounds 9] [--only odd] [--out FILE]

PATH is a checkout of the earlier version, for example made by `git worktree add PATH v0.1.0`. Each
version runs in a process of its own, which imports that checkout; only one of them works at a time.
A figure is the new time over the old of one round, CPU time, collector off; shown are the median
over the rounds and the smallest and largest. Exit status 1 says that something missed its target.
"""

import argparse
import gc
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
FORMATS = ('json', 'jsonl', 'msgpack', 'protobuf')  # those that both versions know
SLOWEST = 1.1  # new over old
ODDEST = 1.4  # a collection that is not regular over one that is
LEAST_SECONDS = 0.02  # what is quicker is repeated, so that the clock can tell


@dataclass
class Case:
    """A collection to measure with. What `counterpart` names is the same without the oddity."""

    name: str
    records: int
    boxes: int = 10
    odd: str = ''
    maps: int = 1
    predictions: bool = False
    counterpart: str = ''
    formats: tuple = FORMATS
    streams: bool = False


def cases(quick: bool) -> list[Case]:
    """All that is measured; `quick` takes fewer sizes, formats and kinds of odd records."""
    main = ('json', 'msgpack') if quick else FORMATS
    odd = 1_800 if quick else 6_000
    found = [
        Case('1 record', 1),
        Case('2,000 records', 2_000, streams=True),
        Case('20,000 records', 20_000, formats=main),
        Case('1 record of many boxes', 1, 20_000 if quick else 100_000, formats=main),
        Case('predictions', 300 if quick else 1_000, predictions=True, formats=main),
        Case('regular', odd, formats=main),
    ]
    for kind in ('number', 'layout') if quick else ('number', 'label', 'attribute', 'layout'):
        name = f'odd {kind}, 1 in 300'
        found.append(Case(name, odd, odd=kind, counterpart='regular', formats=main))
    name = 'two class maps in turn'
    found.append(Case(name, odd, maps=2, counterpart='regular', formats=main))
    return found


# The child: one version, which does what it is told on its standard input.


def child():
    """Answer orders, a JSON line each, until there are no more."""
    answers, sys.stdout = sys.stdout, sys.stderr  # nobody else may write among the answers
    import redaction_serde

    print(json.dumps(redaction_serde.__file__), file=answers, flush=True)
    worker = Worker()
    for line in sys.stdin:
        order = json.loads(line)
        answer = getattr(worker, order.pop('do'))(**order)
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    """Holds collections, and times what this version does with them."""

    def __init__(self):
        import data  # beside this file; imports the package first

        import redaction_serde

        self.data, self.package, self.collections, self.bytes = data, redaction_serde, {}, {}
        self.folder = tempfile.TemporaryDirectory()  # removed with this object

    def make(self, name, records, boxes, odd, maps, predictions):
        """Build a collection, and have the collector look away from it."""
        if predictions:
            self.collections[name] = self.data.predictions(records, boxes)
        else:
            found = self.data.made(records, boxes, maps=maps)
            if odd:
                found = self.data.odd(found, odd)
            self.collections[name] = self.data.collection(found)
        gc.collect()
        gc.freeze()

    def drop(self, names):
        """Forget collections."""
        for name in names:
            del self.collections[name]
        self.bytes.clear()
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    def prepare(self, name, what, format):
        """Do it once, untimed; returns what came of it, for comparison between the versions."""
        if what == 'dumps':
            self.bytes[name, format] = self.package.dumps(self.collections[name], format)
            return hashlib.sha256(self.bytes[name, format]).hexdigest()
        if what == 'loads':
            again = self.package.loads(self.bytes[name, format])
            found, given = map(self.data.counts, (again, self.collections[name]))
            assert found == given, f'{name}, {format}: {found} records and boxes of {given}'
            return found
        return self.action(name, what, format)() and None

    def action(self, name, what, format) -> Callable:
        """What is timed."""
        package, given = self.package, self.collections[name]
        path = Path(self.folder.name, 'records.jsonl')
        if what == 'dumps':
            return lambda: package.dumps(given, format)
        if what == 'loads':
            return lambda: package.loads(self.bytes[name, format])
        if what == 'write_records':
            return lambda: package.write_records(path, given._records._list)
        if what == 'iter_records':
            return lambda: sum(1 for _ in package.iter_records(path))
        if what == 'load_record':
            return lambda: package.load_record(path, 0)
        if what == 'check':
            return lambda: package.check(path)
        raise ValueError(what)

    def time(self, name, what, format, repeat, collector):
        """CPU seconds of one go."""
        action = self.action(name, what, format)
        gc.collect()
        if not collector:
            gc.disable()
        start = time.process_time()
        for _ in range(repeat):
            result = action()
        if collector:
            gc.collect(0)  # the young objects that it leaves behind are its own bill
        seconds = time.process_time() - start
        gc.enable()
        del result
        return seconds / repeat


# The parent: two children, and what it makes of their answers.


class Version:
    """A child process that works with one checkout."""

    def __init__(self, checkout: Path):
        env = {**os.environ, 'PYTHONPATH': str(checkout), 'PYTHONDONTWRITEBYTECODE': '1'}
        env.setdefault('OMP_NUM_THREADS', '1')
        env['PYTHONHASHSEED'] = '0'  # sets of components in one order for both
        command = [sys.executable, '-W', 'ignore', __file__, '--child']
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process = subprocess.Popen(command, env=env, cwd=checkout, **pipes)
        self.checkout = checkout

    def ready(self):
        """Wait until it has started, and see that it imported what it should."""
        file = Path(self.answer())
        if not file.is_relative_to(self.checkout.resolve()):
            self.process.kill()
            raise SystemExit(f'expected the package of {self.checkout}, found {file}')

    def tell(self, do: str, **order):
        """Give an order."""
        print(json.dumps(dict(do=do, **order)), file=self.process.stdin, flush=True)

    def answer(self):
        """Wait for the answer."""
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f'the process with {self.checkout} stopped: see above')
        return json.loads(line)

    def ask(self, do: str, **order):
        """Give an order and wait for its answer."""
        self.tell(do, **order)
        return self.answer()

    def stop(self):
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


@dataclass
class Row:
    """One operation on one case: seconds of each round, of both versions."""

    case: str
    what: str
    format: str
    collector: bool
    new: list = field(default_factory=list)
    old: list = field(default_factory=list)
    same_bytes: bool = True

    @property
    def key(self) -> tuple:
        return self.what, self.format, self.collector

    def ratios(self) -> list:
        """New over old, round by round."""
        return [new / old for new, old in zip(self.new, self.old, strict=True)]


def operations(case: Case) -> Iterator[tuple[str, str]]:
    """(what, format) for all that is timed with a case."""
    for format in case.formats:
        yield 'dumps', format
        yield 'loads', format
    if case.streams:
        for what in ('write_records', 'iter_records', 'load_record', 'check'):
            yield what, 'jsonl'


def both(new: Version, old: Version, do: str, **order) -> tuple:
    """Give an order that is not timed to both, and wait for both."""
    new.tell(do, **order)
    old.tell(do, **order)
    return new.answer(), old.answer()


def make(new: Version, old: Version, case: Case):
    """Have both build the collection of a case."""
    both(
        new,
        old,
        'make',
        name=case.name,
        records=case.records,
        boxes=case.boxes,
        odd=case.odd,
        maps=case.maps,
        predictions=case.predictions,
    )


def measure(new: Version, old: Version, group: list[Case], rounds: int, collectors) -> list[Row]:
    """The rows of cases that are measured together, all of them in each round."""
    rows, repeats = [], {}
    for case in group:
        make(new, old, case)
    for case in group:
        for what, format in operations(case):
            order = dict(name=case.name, what=what, format=format)
            first, second = both(new, old, 'prepare', **order)
            once = new.ask('time', **order, repeat=1, collector=False)
            repeat = max(1, round(LEAST_SECONDS / max(once, 1e-6)))
            for collector in collectors:
                row = Row(case.name, what, format, collector, same_bytes=first == second)
                rows.append(row)
                repeats[id(row)] = repeat
    for turn in range(rounds):
        for row in rows:
            order = dict(name=row.case, what=row.what, format=row.format)
            order |= dict(repeat=repeats[id(row)], collector=row.collector)
            pair = [(new, row.new), (old, row.old)]
            for version, seconds in pair if turn % 2 else reversed(pair):
                seconds.append(version.ask('time', **order))
    both(new, old, 'drop', names=[case.name for case in group])
    return rows


def compare_versions(rows: list[Row], cases: list[Case]) -> Iterator[dict]:
    """One verdict for each operation: is the new version slower than the old one?"""
    records = {case.name: case.records for case in cases}
    for row in rows:
        ratios = row.ratios()
        yield dict(
            case=row.case,
            what=row.what,
            format=row.format,
            collector='as found' if row.collector else 'off',
            new=median(row.new) / records[row.case] * 1e6,
            old=median(row.old) / records[row.case] * 1e6,
            ratio=median(ratios),
            least=min(ratios),
            most=max(ratios),
            same_bytes=row.same_bytes,
            target=None if row.collector else SLOWEST,
        )


def compare_cases(rows: list[Row], cases: list[Case]) -> Iterator[dict]:
    """One verdict for each odd case and operation: what it costs over a regular collection."""
    known = {(row.case, *row.key): row for row in rows}
    for case in cases:
        for row in rows:
            if row.case != case.name or not case.counterpart:
                continue
            regular = known[(case.counterpart, *row.key)]
            ratios = [a / b for a, b in zip(row.new, regular.new, strict=True)]
            before = [a / b for a, b in zip(row.old, regular.old, strict=True)]
            yield dict(
                case=case.name,
                what=row.what,
                format=row.format,
                collector='as found' if row.collector else 'off',
                ratio=median(ratios),
                least=min(ratios),
                most=max(ratios),
                before=median(before),
                target=None if row.collector else ODDEST,
            )


def missed(verdict: dict) -> bool:
    """Is the median over the target?"""
    return verdict['target'] is not None and verdict['ratio'] > verdict['target']


def said(verdict: dict) -> str:
    """A line that says where a verdict belongs, its ratio and its spread."""
    place = f'{verdict["case"]:24} {verdict["what"]:13} {verdict["format"]:9}'
    ratio = f'{verdict["ratio"]:5.2f}  ({verdict["least"]:.2f} to {verdict["most"]:.2f})'
    return f'{place} {verdict["collector"]:9} {ratio:22} {"MISSED" if missed(verdict) else "":7}'


def report(versions: list[dict], oddities: list[dict]) -> Iterator[str]:
    """The lines of the report."""
    yield f'New over old, gate {SLOWEST} with the collector off; then µs a record, new and old'
    for v in versions:
        note = '' if v['same_bytes'] else '  other bytes'
        yield f'{said(v)} {v["new"]:10.1f} {v["old"]:10.1f}{note}'
    yield ''
    yield f'Odd over regular, of the new version, gate {ODDEST}; then the same of the old version'
    for v in oddities:
        yield f'{said(v)} {v["before"]:10.2f}'
    late = sum(map(missed, versions + oddities))
    yield f'\n{late} of {len(versions) + len(oddities)} missed' if late else '\nNothing missed'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('old', type=Path, nargs='?', help='checkout of the earlier version')
    parser.add_argument('--new', type=Path, default=ROOT, help='checkout to judge, this one if not given')
    parser.add_argument('--quick', action='store_true', help='fewer cases and rounds, under a minute')
    parser.add_argument('--rounds', type=int, help='5, or 3 if quick')
    parser.add_argument('--found', action='store_true', help='with the collector as found, too')
    parser.add_argument('--only', default='', help='only the cases with this in their name')
    parser.add_argument('--out', type=Path, help='a JSON file to write')
    parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child()
        return 0
    if args.old is None:
        parser.error('expected the path of a checkout to compare with')
    rounds = args.rounds or (3 if args.quick else 5)
    wanted = [case for case in cases(args.quick) if args.only in case.name]
    counterparts = {case.counterpart for case in wanted} - {case.name for case in wanted}
    wanted = [case for case in cases(args.quick) if case.name in counterparts] + wanted
    new, old = Version(args.new.resolve()), Version(args.old.resolve())
    try:
        new.ready()
        old.ready()
        rows = []
        for group in groups(wanted):
            rows += measure(new, old, group, rounds, (False, True) if args.found else (False,))
    finally:
        new.stop()
        old.stop()
    versions = list(compare_versions(rows, wanted))
    oddities = list(compare_cases(rows, wanted))
    print(*report(versions, oddities), sep='\n')
    if args.out:
        args.out.write_text(json.dumps(dict(versions=versions, oddities=oddities), indent=1))
    return int(any(map(missed, versions + oddities)))


def groups(wanted: list[Case]) -> Iterator[list[Case]]:
    """What is measured together: cases with their counterpart, and each of the others."""
    compared = {case.counterpart for case in wanted if case.counterpart}
    together = [case for case in wanted if case.counterpart or case.name in compared]
    for case in wanted:
        if case not in together:
            yield [case]
    if together:
        yield together


if __name__ == '__main__':
    sys.exit(main())
