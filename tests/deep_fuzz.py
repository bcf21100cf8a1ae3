"""Documents at random, and damaged copies of them, one after another; as a program, very many in several processes.

    python tests/deep_fuzz.py --documents 1000000 --processes 2 --log fuzz.log

A document is known by a seed and its number. What is wrong goes into the log at once, with both; so does a line of
counts for every two hundred. `--first N --documents 1` looks at one of them again.
"""

import argparse
import contextlib
import gc
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

if __name__ == '__main__':
    import conftest  # noqa: F401

import fuzzing as f
from redaction_serde.checks import broken_references
from redaction_serde.errors import SerdeError
from redaction_serde.records import from_document, loads
from redaction_serde.wire.registry import WIRES, decode, zip_bytes
from test_hostile import mutate

COPIES = 3  # damaged copies of each file
COUNTED = ('documents', 'files', 'accepted', 'copies', 'accepted copies', 'crashes', 'disagreements', 'silent changes')
SHARED_MEMORY = Path('/dev/shm')  # where a file costs nothing


# ---------------------------------------------------------------- one document


def judged(rng, folder, thorough):
    """Judge a document in every format. Returns its header, its records, its files and the verdict on all of them."""
    maker = f.Maker(rng, rng.choice([0, 0, 0.02]))
    header, records = maker.document()
    if rng.random() < 0.4:
        header, records = f.tampered(header, records, maker)
    files = f.encodings(header, records)
    says = {}
    for name, data in files.items():
        suffix = WIRES[name.split()[0]].suffix[1:]
        if rng.random() < 0.1:
            data, suffix = zip_bytes(data), suffix + '.gz'
        says[name] = f.judge(data, suffix, folder, thorough)
    if len(set(says.values())) > 1:
        raise f.Disagreement({name: str(f.verdict(loads, data)[1])[:200] for name, data in files.items()})
    same = next(iter(says.values()), None)
    if same is not None:
        document = decode(next(iter(files.values())), f.LIMITS)
        views, error = f.verdict(list, document)  # boxes as labels cannot be shown without icevision
        assert error is not None or len(views) == len(document)
        with contextlib.suppress(SerdeError):
            document.boxes()
    return header, records, files, same


def is_silent(header, records, same, rng):
    """Is a document in which one number or text of a record is another one taken for the same?"""
    changed = f.changed_leaf(records, rng)
    if changed is None:
        return False
    data = f.encodings(header, changed[0]).get('json')
    other, error = f.verdict(loads, data, limits=f.LIMITS) if data else (None, 'none')
    return error is None and f.canonical(other) == same


def is_unvouched_for(data):
    """Is there a part that no checksum covers: all of version 0, a list, which `[]` is already; the keys and pairs in the last of JSON Lines?"""
    last = data.rstrip(b'\n').rsplit(b'\n', 1)[-1]
    return data.lstrip()[:1] == b'[' or last.startswith(b'{"end":') and (b'"index"' in last or b'"pairs"' in last)


def judge_copy(data, verify, same):
    """Do verbs agree on a damaged copy? Returns whether they accept it; with a checksum, only for what it was."""
    options = dict(limits=f.LIMITS, verify=verify)
    whole, error = f.verdict(loads, data, **options)
    document, other = f.verdict(decode, data, **options)
    if document is not None:
        found, other = f.verdict(broken_references, document)
        other = found[0] if found else other or f.verdict(from_document, document)[1]
    if (error is None) != (other is None):
        raise f.Disagreement(f'damaged: loads says {str(error)[:200]}, decode {str(other)[:200]}: {data!r}')
    if error is None and verify and not is_unvouched_for(data) and f.canonical(whole) != same:
        raise f.Disagreement(f'damaged, and neither refused nor the same: {data!r}')
    return error is None


def damaged(files, rng):
    """Copies of files with some bytes changed; a few of them are zipped, before or after."""
    everything = list(files.values())
    for data in everything:
        for _ in range(COPIES):
            copy = mutate(data, rng, rng.choice(everything))
            if rng.random() < 0.05:
                copy = zip_bytes(copy) if rng.random() < 0.5 else mutate(zip_bytes(data), rng, copy)
            yield copy


# ---------------------------------------------------------------- very many


class Run:
    """Counts and faults of documents that were looked at."""

    def __init__(self, seed, folder):
        self.seed, self.folder = seed, folder
        self.counts, self.faults, self.start = Counter(), [], time.monotonic()

    def look_at(self, number):
        """Judge a document and damaged copies of it; returns what was found to be wrong."""
        rng = random.Random(f'{self.seed} {number}')
        known = len(self.faults)
        self.counts['documents'] += 1
        files, same = self.whole(number, rng)
        for copy in damaged(files, rng):
            self.counts['copies'] += 1
            with self.noting(number):
                self.counts['accepted copies'] += judge_copy(copy, rng.random() < 0.5, same)
        return self.faults[known:]

    def whole(self, number, rng):
        """Judge a document; returns its files and the verdict."""
        files, same = {}, None
        with self.noting(number):
            header, records, files, same = judged(rng, self.folder, thorough=number % 4 == 0)
            self.counts['files'] += len(files)
            self.counts['accepted'] += same is not None
            if same is not None and is_silent(header, records, same, rng):
                self.counts['silent changes'] += 1
                self.faults.append((number, 'a change of a record is not seen'))
        return files, same

    @contextlib.contextmanager
    def noting(self, number):
        """What is wrong becomes a fault."""
        try:
            yield
        except f.Disagreement as e:
            self.counts['disagreements'] += 1
            self.faults.append((number, str(e)[:1000]))
        except Exception as e:
            self.counts['crashes'] += 1
            self.faults.append((number, f'{type(e).__name__}: {e}'[:1000]))

    def told(self):
        """The counts, in a line."""
        counts = ', '.join(f'{self.counts[name]} {name}' for name in COUNTED)
        return f'seed {self.seed}: {counts} in {time.monotonic() - self.start:.0f} s'


@contextlib.contextmanager
def fast_folder():
    """A folder for files that are read at once."""
    place = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place, prefix='fuzz-') as folder:
        yield Path(folder)


def look_at_many(seed, first, documents, log):
    """Judge until there were that many documents and copies; returns whether all was well."""
    with fast_folder() as folder, open(log, 'a', buffering=1) as lines:
        run, number = Run(seed, folder), first
        while run.counts['documents'] + run.counts['copies'] < documents:
            for at, what in run.look_at(number):
                print(f'seed {seed}, number {at}: {what}', file=lines)
            number += 1
            if run.counts['documents'] % 200 == 0:
                print(run.told(), file=lines)
        print(f'{run.told()}: done', file=lines)
    return not run.faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--documents', type=int, default=10_000, help='and damaged copies, in all processes together')
    parser.add_argument('--processes', type=int, default=1)
    parser.add_argument('--seed', default=str(int(time.time())))
    parser.add_argument('--first', type=int, default=0, help='number of the first document')
    parser.add_argument('--log', default='fuzz.log')
    args = parser.parse_args()
    if args.processes == 1:
        warnings.simplefilter('ignore')
        gc.collect()
        gc.freeze()  # the heap of torch and icevision is not walked again and again
        return int(not look_at_many(args.seed, args.first, args.documents, args.log))
    share = ['--documents', str(args.documents // args.processes), '--log', args.log]
    started = [
        subprocess.Popen([sys.executable, __file__, '--seed', f'{args.seed}.{i}', *share])
        for i in range(args.processes)
    ]
    return max(abs(process.wait()) for process in started)


if __name__ == '__main__':
    status = main()
    sys.stdout.flush()
    os._exit(status)  # what all those libraries would tidy up is of no use
