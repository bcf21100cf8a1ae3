"""How long our formats take, beside picklers, the article's way and what users would pick.

    python bench/bench.py [--sizes 2000 20000 100000] [--rounds 4] [--stream 500000] [--out FOLDER]

CPU time of this process, as ratios to pickle 5 within one round, in which the ways take turns;
shown are the median over the rounds, the least and the most. 'Collector as found' is Python's
default with the source collection alive, and with the young collection that a way leaves behind on
the clock. Every load is compared with what was given; what it lost is said. Writes bench.json.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import report
import ways

ROOT = Path(__file__).resolve().parents[1]
MAIN_SIZE = 20_000  # the targets are for this one, if it is measured
LARGE = 20_000  # above it, fewer rounds and only LARGE_WAYS
FEW_ROUNDS = 2
MAIN_FORMATS = ('json', 'msgpack')
LARGE_WAYS = (*MAIN_FORMATS, ways.BASE, ways.PAUSED)
ODD_NAMES = {
    'number': 'one record in 300 with a NumPy number',
    'label': 'one record in 300 with a label of its own',
    'attribute': 'one record in 300 with an attribute of its own',
    'layout': 'one record in 300 with a component fewer',
}
TWO_MAPS = 'two class maps in turn'


def say(text: str = ''):
    """Progress, for somebody who watches."""
    if sys.stderr.isatty():
        print(f'\r{text:78}', end='' if text else '\r', file=sys.stderr, flush=True)


def size_name(n: int, boxes: int) -> str:
    """The key of a size in the results."""
    return f'{n} x {boxes}'


def chosen(known: list, n: int, smallest: int, everything: bool) -> list:
    """The ways that are measured with so many records."""
    if everything:
        return known
    if n > LARGE:
        return [way for way in known if way.name in LARGE_WAYS]
    return [way for way in known if n <= smallest or not way.slow]


def measure(n: int, boxes: int, rounds: int, smallest: int, missing: dict, everything: bool) -> dict:
    """The summary of one size."""
    import clock
    import data

    with ways.scratch() as folder, data.image_folder(n) as images:

        def build():
            return data.collection(data.made(n, boxes, folder=images))

        def tell(text: str):
            say(f'{n:,} × {boxes:,} boxes, {text}')

        known = chosen(ways.all_ways(folder, images, missing), n, smallest, everything)
        if n > LARGE:
            rounds = min(rounds, FEW_ROUNDS)
        samples = clock.measure(known, build, rounds, FEW_ROUNDS, tell)
    say()
    return report.summary(samples, n)


def own_losses(found: dict, formats: tuple) -> Iterator[str]:
    """What our own formats lost: nothing, or the benchmark is not worth reading."""
    for size, rows in found.items():
        for name in formats:
            for text in rows.get(name, {}).get('lost', ()):
                yield f'{name}, {size}: {text}'


def odd_collections(n: int) -> dict:
    """Kind -> a collection; one is regular, the others are the same but for some records."""
    import data

    found = {'regular': data.collection(data.made(n, 10))}
    for kind, name in ODD_NAMES.items():
        found[name] = data.collection(data.odd(data.made(n, 10), kind))
    found[TWO_MAPS] = data.collection(data.made(n, 10, maps=2))
    return found


def odd_costs(n: int, rounds: int) -> list[dict]:
    """What collections with odd records cost, with the spread."""
    import clock

    found = clock.odd_costs(odd_collections(n), MAIN_FORMATS, rounds, say)
    say()
    return [
        dict(kind=kind, action=action, format=format, **report.spread(ratios))
        for (kind, action, format), ratios in found.items()
    ]


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        '--sizes',
        type=int,
        nargs='+',
        default=[2_000, MAIN_SIZE, 100_000],
        help='records of 10 boxes',
    )
    add('--rounds', type=int, default=4)
    add('--large', type=int, default=100_000, help='boxes of the one large record; 0 leaves it out')
    add(
        '--odd',
        type=int,
        default=6_000,
        help='records of the collections with odd ones; 0 leaves it out',
    )
    add('--loop', type=int, default=3_000, help='records that are loaded in a loop; 0 leaves it out')
    add('--stream', type=int, default=0, metavar='N', help='records to stream through a file')
    add('--all', action='store_true', help='every way at every size: this takes long')
    add('--out', type=Path, default=Path('out/bench'))
    return parser.parse_args()


def main() -> int:
    args = arguments()
    missing = ways.load_peers()  # before all that imports icevision, which the collector should see
    args.out.mkdir(parents=True, exist_ok=True)
    for package, why in missing.items():
        print(f'left out, because {package} cannot be imported ({why})')
    growth, targets = growths(args)
    results, sizes = {}, sorted(args.sizes)
    for n, boxes in [(n, 10) for n in sizes] + ([(1, args.large)] if args.large else []):
        found = measure(n, boxes, args.rounds, sizes[0], missing, args.all)
        results[size_name(n, boxes)] = found
        print(f'\n{n:,} records of {boxes:,} boxes: CPU µs and bytes a record, and how many times')
        print(
            'less than pickle 5 needs, with the least and the most',
            *report.table(found),
            sep='\n',
            flush=True,
        )
    main_size = MAIN_SIZE if MAIN_SIZE in sizes else sizes[-1]
    targets += report.time_targets(results[size_name(main_size, 10)], f'{main_size:,} × 10')
    if len(sizes) > 1:
        few, many = results[size_name(sizes[0], 10)], results[size_name(sizes[-1], 10)]
        targets += report.growth_targets(few, many, f'{sizes[-1]:,} records over {sizes[0]:,}')
    odd = odd_costs(args.odd, args.rounds) if args.odd else []
    targets += report.odd_targets(odd)
    memory = memories(sizes[0])
    targets += report.memory_targets(memory)
    print('\nTargets: found, wanted', *map(report.verdict, targets), sep='\n')
    text = report.kept(
        ROOT,
        results,
        targets,
        left_out=missing,
        odd=odd,
        memory=memory,
        growth=growth,
    )
    (args.out / 'bench.json').write_text(text, 'utf-8')
    print(f'\n{args.out}/bench.json written')
    losses = list(own_losses(results, ways.our_formats()))
    print(*(f'LOST by our own format {loss}' for loss in losses), sep='\n', end='')
    return int(bool(losses))


def growths(args: argparse.Namespace) -> tuple[dict, list]:
    """How a process grows that loads in a loop or streams, and the targets of that."""
    import clock

    growth, targets = {}, []
    if args.loop:
        for format in MAIN_FORMATS:
            say(f'{format}: 30 loads of {args.loop:,} records, each dropped')
            found = growth[format] = clock.in_process(clock.loop_growth, format, args.loop, 10, 30)
            targets.append(report.loop_target(format, found))
    if args.stream:
        say(f'stream of {args.stream:,} records')
        with ways.scratch() as folder:
            grown = clock.in_process(clock.stream_growth, args.stream, 10, folder)
        targets.append(report.stream_target(args.stream, grown))
    say()
    return growth, targets


def memories(n: int) -> dict:
    """What loads of our main formats need."""
    import clock

    found = {}
    for way in ways.ours():
        if way.name in MAIN_FORMATS:
            say(f'memory: {way.name}')
            found[way.name] = clock.memory(way, n, 10)
    say()
    return found


if __name__ == '__main__':
    sys.exit(main())
