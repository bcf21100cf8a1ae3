"""What the samples say: ratios with their spread, targets, a table, and JSON to keep."""

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from ways import BASE

FOUND, OFF = 'as found', 'off'
PACKAGES = (
    'icevision',
    'torch',
    'msgspec',
    'numpy',
    'cloudpickle',
    'dill',
    'jsonpickle',
    'srsly',
    'pandas',
    'pyarrow',
    'datasets',
    'pycocotools',
)
UNIT = 'CPU µs and bytes a record; a ratio says how many times less than pickle 5 in one round'
LEAST = {  # collector off: how many times less than pickle 5 a way must need
    ('json', 'dumps'): 2,
    ('msgpack', 'dumps'): 2,
    ('json', 'loads'): 1.5,
    ('msgpack', 'loads'): 2,
}
MOST_BYTES = {'json': 1.05, 'msgpack': 0.43}  # of pickle's
MOST_ODD = 1.4  # of what a regular collection costs
MOST_PEAK = 1.25  # of what a load returns
MOST_LOADED = 1  # of the memory of what was saved
MOST_GROWTH = 1.6  # of the time a record, from the fewest records to the most
MOST_STREAM_MB = 100
MOST_LOOP = 3  # collections in the second half of 30 loads; without any collecting it would be 15


@dataclass
class Target:
    """What is wanted, and what was found."""

    target: str
    wanted: str
    found: float
    reached: bool


def at_least(text: str, least: float, found: float) -> Target:
    """A target that more is better for."""
    return Target(text, f'at least {least:g}', round(found, 3), found >= least)


def at_most(text: str, most: float, found: float) -> Target:
    """A target that less is better for."""
    return Target(text, f'at most {most:g}', round(found, 3), found <= most)


def spread(ratios: list) -> dict[str, float]:
    """Median, least and most."""
    return dict(ratio=round(median(ratios), 3), least=round(min(ratios), 3), most=round(max(ratios), 3))


def summary(samples: dict, records: int) -> dict[str, dict]:
    """Of each way: what it gives and loses, bytes, and for each collector and action µs and ratios.

    A ratio is how many times less the way needs than pickle 5 did in the same round.
    """
    found, base = {}, samples[BASE]
    for name, one in samples.items():
        row = found[name] = dict(
            gives=one.way.gives,
            not_kept=one.way.not_kept,
            lost=one.lost,
            bytes=round(one.bytes / records, 1),
            bytes_ratio=round(one.bytes / base.bytes, 3),
        )
        for (collector, action), seconds in one.seconds.items():
            pairs = zip(seconds, base.seconds[collector, action])
            row.setdefault(collector, {})[action] = dict(
                us=round(median(seconds) / records * 1e6, 2),
                rounds=len(seconds),
                **spread([b / a for a, b in pairs]),
            )
    return found


def time_targets(found: dict, size: str) -> Iterator[Target]:
    """The targets of time and bytes, of one size."""
    for (way, action), least in LEAST.items():
        text = f'{way} {action}, times less than pickle 5, collector off, {size}'
        yield at_least(text, least, found[way][OFF][action]['ratio'])
    for way, most in MOST_BYTES.items():
        yield at_most(f'{way} bytes over those of pickle 5, {size}', most, found[way]['bytes_ratio'])


def growth_targets(few: dict, many: dict, sizes: str) -> Iterator[Target]:
    """Does a record take longer where there are more of them?"""
    for way in ('json', 'msgpack'):
        for action in ('dumps', 'loads'):
            found = many[way][FOUND][action]['us'] / few[way][FOUND][action]['us']
            yield at_most(f'{way} {action}, time a record, {sizes}', MOST_GROWTH, found)


def odd_targets(costs: list[dict]) -> Iterator[Target]:
    """What collections cost that are not regular."""
    for cost in costs:
        text = f'{cost["format"]} {cost["action"]}, {cost["kind"]}, over a regular collection'
        yield at_most(text, MOST_ODD, cost['ratio'])


def memory_targets(memory: dict) -> Iterator[Target]:
    """What our loads need and leave."""
    for way, found in memory.items():
        yield at_most(f'{way}: peak of a load over what it returns', MOST_PEAK, found['peak'])
        yield at_most(f'{way}: what is loaded over what was saved', MOST_LOADED, found['loaded'])


def loop_target(way: str, found: dict) -> Target:
    """Does a program level off that loads and drops again and again?"""
    text = f'{way}: growth in the second half of a loop of loads, in collections'
    return at_most(text, MOST_LOOP, found['second'] / max(found['one'], 1))


def stream_target(records: int, found: float) -> Target:
    """Does a stream of records need more memory the longer it is?"""
    return at_most(f'growth while {records:,} records are streamed, MB', MOST_STREAM_MB, found)


# What people read.


def cell(measured: dict) -> str:
    """µs, ratio and its spread."""
    bounds = f'({measured["least"]:.2f} to {measured["most"]:.2f})'
    return f'{measured["us"]:8.1f} {measured["ratio"]:6.2f} {bounds:16}'


def table(found: dict) -> Iterator[str]:
    """The figures of one size; what ways lose and do not keep stands below."""
    columns = [(action, collector) for action in ('dumps', 'loads') for collector in (FOUND, OFF)]
    heads = ''.join(f'{f"{action}, collector {collector}":32}' for action, collector in columns)
    yield f'{"":18}{"gives":10}{heads}   bytes      ×'
    for name, row in found.items():
        cells = ''.join(cell(row[collector][action]) for action, collector in columns)
        sizes = f'{row["bytes"]:8.0f} {1 / row["bytes_ratio"]:6.2f}'
        yield f'{name:18}{row["gives"]:10}{cells}{sizes}'
    for name, row in found.items():
        for text in row['lost']:
            yield f'    {name} lost: {text}'
        if row['not_kept']:
            yield f'    {name} does not keep: {row["not_kept"]}'


def verdict(target: Target) -> str:
    """A line for a target."""
    word = 'reached' if target.reached else 'MISSED'
    return f'{word:8} {target.found:9.2f}  {target.wanted:14} {target.target}'


# What is kept.


def machine() -> dict:
    """What it ran on."""
    return dict(
        cpu=cpu(),
        cores=os.cpu_count(),
        system=platform.system(),
        machine=platform.machine(),
    )


def cpu() -> str:
    """The model of the processor."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor()


def commit(root: Path) -> str:
    """The commit of a checkout; it says so if files were changed since."""
    command = ['git', '-C', str(root), 'describe', '--always', '--dirty=, changed since']
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'not a git checkout'


def packages() -> dict[str, str]:
    """Versions of what took part."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def kept(root: Path, results: dict, targets: list[Target], **more) -> str:
    """All of it as JSON."""
    verdicts = [asdict(target) for target in targets]
    whole = dict(
        date=datetime.date.today().isoformat(),
        commit=commit(root),
        machine=machine(),
        python=platform.python_version(),
        packages=packages(),
        unit=UNIT,
        results=results,
        **more,
        targets=verdicts,
        missed=[verdict for verdict in verdicts if not verdict['reached']],
    )
    return json.dumps(whole, indent=1, ensure_ascii=False)
