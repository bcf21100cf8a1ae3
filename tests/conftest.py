"""What the tests share. They are plain files: icevision installs a package named `tests`, so nothing here is imported by that name."""

import gc
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_store = tempfile.TemporaryDirectory(prefix='redaction-serde-tests-')

# before anything imports ZenML or matplotlib
os.environ.update(MPLBACKEND='agg', NO_ALBUMENTATIONS_UPDATE='1')
sys.path.insert(0, str(ROOT / 'tools'))

from redaction_serde.compat import prepare_zenml  # noqa: E402

prepare_zenml(Path(_store.name) / 'zenml', source=ROOT)

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

_common = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], database=None)
settings.register_profile('default', max_examples=120, derandomize=True, **_common)
settings.register_profile('deep', max_examples=5000, **_common)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'default'))


def pytest_collection_modifyitems(items):
    """The site first: it takes one worker for half of the time, and the others do all the rest beside it."""
    items.sort(key=lambda item: item.path.name != 'test_site.py')


def pytest_collection_finish():
    """What all tests have imported, a million objects, is not walked again at each collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope='session')
def real_data():
    """The folder of real annotations beside the repository."""
    folder = ROOT.parent / 'shared' / 'data'
    if not folder.is_dir():
        pytest.skip('no real data in ../shared/data: these cases are not tested here')
    return folder


@pytest.fixture(scope='session')
def pages_file(tmp_path_factory):
    """A COCO file of four synthetic pages; its images are beside it."""
    from redaction_serde.lessons.pages import make_documents

    return make_documents(tmp_path_factory.mktemp('pages'), n_pages=4, seed=1)


@pytest.fixture
def pages(pages_file):
    """A fresh collection of four synthetic pages, parsed by icevision."""
    from redaction_serde.records import parse_coco

    return parse_coco(str(pages_file), str(pages_file.parent / 'images'))
