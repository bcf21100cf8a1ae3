"""ZenML for the processes of `warm.py`: imported and set aside, and with a database that is ready.

ZenML chooses its store when it is imported. So the server takes it out of `sys.modules` again, and a process that was forked
finds it there when it imports it, and not before. What ZenML puts into a new and empty database is the same each time:
the first process keeps a copy of it, and the others begin with that.
"""

import importlib
import importlib.metadata
import io
import logging
import os
import sqlite3
import sys
import tempfile
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path

from notebooks import ROOT
from set_aside import SetAside

READY = ROOT / 'build' / f'zenml-{importlib.metadata.version("zenml")}.db'

# what a store and a first run import
MODULES = [
    'zenml.client',
    'zenml.zen_stores.sql_zen_store',
    'zenml.stack.flavor_registry',
    'zenml.pipelines.pipeline_definition',
    'zenml.orchestrators.step_launcher',
    'zenml.orchestrators.step_runner',
    'zenml.steps.decorated_step',
    'zenml.log_stores.artifact.artifact_log_store',
]


def begins_with_a_copy(initialize):
    """`SqlZenStore._initialize`, for which a database that is not there yet is copied from the first one that was made."""

    def initialize_from_copy(store):
        database = Path(store.config.database)
        is_new = store.config.driver == 'sqlite' and not database.exists()
        is_ready = READY.exists()
        if is_new and is_ready:
            copied(READY, database)
        initialize(store)
        if is_new and not is_ready:
            copied(database, READY)

    return initialize_from_copy


def listens():
    """Have ZenML's log hear what is printed in this process, as it does when it is imported."""
    from zenml import logger

    logger._stdout_wrapped = logger._stderr_wrapped = False
    logger.init_logging()


def copied(source, target):
    """Copy a database of SQLite, so that whoever looks sees all of it or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=target.parent)
    os.close(handle)
    with closing(sqlite3.connect(source)) as whole, closing(sqlite3.connect(part)) as copy:
        whole.backup(copy)
    os.replace(part, target)


def import_all():
    """Import ZenML and leave nothing of that behind in this process, but for its modules."""
    before, had, level = dict(os.environ), set(sys.modules), logging.root.level
    nowhere = io.StringIO()  # not the streams of the server, which ZenML would change
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(nowhere), redirect_stderr(nowhere):
        from redaction_serde.compat import prepare_zenml

        prepare_zenml(folder)  # quiet, and offline
        for name in MODULES:
            importlib.import_module(name)
    os.environ.clear()
    os.environ.update(before)
    logging.root.handlers.clear()  # of ZenML, which print what any package logs
    logging.root.setLevel(level)
    logging.captureWarnings(False)
    for name in sys.modules.keys() - had:
        if name.startswith('redaction_serde'):  # whoever wants ours imports it from where it stands
            del sys.modules[name]


import_all()

from zenml.config.global_config import GlobalConfiguration  # noqa: E402
from zenml.zen_stores.sql_zen_store import SqlZenStore  # noqa: E402

assert GlobalConfiguration.get_instance() is None, 'ZenML has chosen a store'
SqlZenStore._initialize = begins_with_a_copy(SqlZenStore._initialize)
SetAside('zenml', again=listens)
