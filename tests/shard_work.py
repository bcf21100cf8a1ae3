"""Functions of a shard for `test_shards.py`, in a module of their own, which processes import without icevision."""

import os
import signal
import sys
import time
from pathlib import Path

from redaction_serde.document import Document


def same(shard):
    return shard


def every_second(document):
    return Document(document.header, document.records[::2])


def every_second_row(table):
    return table.take(list(range(0, len(table), 2)))


def every_second_record(records):
    return list(records)[::2]


def noted(document, notes):
    """Leave a file for each call."""
    Path(notes, str(time.monotonic_ns())).touch()
    return document


def listed(document):
    return [record.common.record_id for record in document]


def imported(document):
    """What takes long to import, and is not needed for rows."""
    return {'icevision', 'torch', 'zenml'} & set(sys.modules)


def is_third(document):
    return listed(document)[0] == '4'


def raising(document):
    if is_third(document):
        raise RuntimeError('no such class: 99')
    return document


def lock(document):
    import threading

    return threading.Lock()


def dying(document):
    if is_third(document):
        os.kill(os.getpid(), signal.SIGKILL)
    return document


def dying_while_writing(document, mark):
    """The first time the process is killed when the new shard stands as a part."""

    def killed(_):
        os.kill(os.getpid(), signal.SIGKILL)

    if is_third(document) and not Path(mark).exists():
        Path(mark).touch()
        os.fsync = killed
    return document


def waiting(document, mark):
    """Wait until the test has seen that this has begun, and a little longer."""
    Path(mark).touch()
    time.sleep(2)
    return document
