"""Preparing icevision: each story in a process of its own, without a network, because an import happens only once."""

import json
import os
import subprocess
import sys
import textwrap
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from redaction_serde import compat

OFFLINE = '''
import json, os, pathlib, socket, sys
asked = []
def refuse(*args, **kwargs):
    asked.append(args)
    raise OSError('no network here')
socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = socket.getaddrinfo = socket.gethostbyname = refuse
'''

DRAW = '''
def drawn_in_full():
    import numpy as np
    from icevision.all import BBox, ClassMap, BaseRecord, KeyPoints, KeyPointsRecordComponent, BBoxesRecordComponent, FilepathRecordComponent
    from icevision.all import InstancesLabelsRecordComponent, draw_record, draw_sample
    from PIL import Image
    Image.new('RGB', (170, 110), 'white').save(page)
    record = BaseRecord((FilepathRecordComponent(), InstancesLabelsRecordComponent(), BBoxesRecordComponent(), KeyPointsRecordComponent()))
    record.set_filepath(page)
    record.detection.set_class_map(ClassMap(['redaction']))
    record.detection.add_labels(['redaction'])
    record.detection.add_bboxes([BBox.from_xyxy(30, 40, 130, 70)])
    record.detection.add_keypoints([KeyPoints.from_xyv([40, 50, 2, 60, 60, 1], None)])
    colours = {'redaction': '#d55e00'}
    white = np.full((110, 170, 3), 255, np.uint8)
    shown = [draw_record(record, color_map=colours, **{f'display_{x}': x == part for x in ('bbox', 'label', 'keypoints')}) for part in ('bbox', 'label', 'keypoints')]
    shown.append(draw_sample(record.load(), color_map=colours))
    return [bool((image != white).any()) for image in shown]
'''


def run(code, folder, home, **env):
    """What `code` prints last, as JSON, and its standard error; `page` is a file in `folder` to draw on."""
    script = OFFLINE + f'page = pathlib.Path({str(folder / "page.png")!r})\n' + DRAW + textwrap.dedent(code)
    env = {**os.environ, 'HOME': str(home), 'OMP_NUM_THREADS': '1', **env}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script], capture_output=True, text=True, timeout=300, env=env
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_nothing_of_the_caller_changes(tmp_path):
    """Empty home, no network: it works, from two threads at once, and leaves everything else as it was."""
    home, temporary = tmp_path / 'home', tmp_path / 'temporary'
    home.mkdir(), temporary.mkdir()
    seen, err = run(
        '''
    before = set(sys.modules)
    import redaction_serde.compat as compat
    heavy = {'torch', 'numpy', 'matplotlib', 'icevision', 'loguru', 'PIL', 'zenml', 'msgspec'} & (set(sys.modules) - before)

    # all that icevision needs, so that what changes below is icevision's doing
    import albumentations, cv2, gc, matplotlib, matplotlib.pyplot as plt, numpy as np, pycocotools, random, requests, signal, torch, torchvision, tqdm.auto, warnings
    from loguru import logger
    heard = []
    logger.add(heard.append, format='{message}')
    plt.rcParams['lines.linewidth'] = 7.5
    def state():
        return dict(settings={name: dict.__getitem__(plt.rcParams, name) for name in plt.rcParams}, python=random.getstate(), numpy=np.random.get_state()[1].tolist(),
                    torch=torch.get_rng_state().tolist(), threads=torch.get_num_threads(), dtype=torch.get_default_dtype(), filters=list(warnings.filters),
                    path=list(sys.path), signals={s: signal.getsignal(s) for s in signal.valid_signals()}, hooks=(sys.excepthook, sys.displayhook),
                    environment=dict(os.environ), collector=(gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()), home=vars(pathlib.Path).get('home'), loguru=dict(vars(type(logger))))
    gc.unfreeze()  # Python 3.12 begins with some objects frozen, which count as nobody's
    was = state()

    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(4) as pool: reports = list(pool.map(lambda _: compat.prepare_icevision(), range(4)))
    changed = [name for name, value in state().items() if value != was[name]]
    logger.info('still here')

    from icevision.all import SingleSplitSplitter, parsers
    from icevision.utils import get_data_dir
    from icevision.models import inference
    import inspect
    from PIL import Image
    Image.new('L', (85, 110)).save(page)
    coco = dict(images=[dict(id=1, file_name=page.name, width=85, height=110)], categories=[dict(id=1, name='redaction')],
                annotations=[dict(id=1, image_id=1, category_id=1, bbox=[10.5, 20, 30, 8.25], area=247.5, iscrowd=0)])
    (page.parent/'coco.json').write_text(json.dumps(coco))
    records, = parsers.COCOBBoxParser(page.parent/'coco.json', page.parent).parse(data_splitter=SingleSplitSplitter(), show_pbar=False)
    font = inspect.signature(inference.draw_sample).parameters['font_path'].default
    at_home = pathlib.Path.home()/'.icevision'
    made = [at_home.exists(), get_data_dir() == at_home/'data' and at_home.is_dir()]
    print(json.dumps(dict(heavy=sorted(heavy), changed=changed, same=all(r is reports[0] for r in reports), text=repr(reports[0]), heard=''.join(heard).splitlines()[:1],
        box=records[0].detection.bboxes[0].xyxy, size=list(records[0].img_size), drawn=drawn_in_full(), font=os.path.exists(font), made=made, asked=len(asked))))
    ''',
        tmp_path,
        home,
        TMPDIR=str(temporary),
    )
    text = seen.pop('text')
    assert seen == dict(
        heavy=[],
        changed=[],
        same=True,
        heard=['still here'],
        box=[10.5, 20, 40.5, 28.25],
        size=[85, 110],
        drawn=[True] * 4,
        font=True,
        made=[False, True],
        asked=0,
    )
    assert (
        text.count('  mended') == len(compat.MENDS) == 5
        and "matplotlib's DejaVu Sans" in text
        and str(tmp_path) not in text
    )
    assert 'still here' in err  # loguru's own first sink is there as well
    assert not list(temporary.glob('icevision-*'))


def test_again_after_failing(tmp_path):
    """A home that cannot be written to, an import that failed without us, and a missing package: once it is there, the same process goes on."""
    (tmp_path / 'file').touch()
    seen, _ = run(
        '''
    import gc
    from redaction_serde.compat import prepare_icevision
    try: import icevision
    except OSError as e: alone = type(e).__name__
    sys.modules['pycocotools'] = None
    try: prepare_icevision()
    except ImportError as e: missing = str(e)
    collecting = gc.isenabled()
    del sys.modules['pycocotools']
    report = prepare_icevision()
    print(json.dumps(dict(alone=alone, missing=missing, outcomes=sorted({m.outcome for m in report.mends}), drawn=drawn_in_full(), asked=len(asked), collecting=collecting)))
    ''',
        tmp_path,
        tmp_path / 'file' / 'home',
    )
    missing = seen.pop('missing')
    assert seen == dict(alone='NotADirectoryError', outcomes=['mended'], drawn=[True] * 4, asked=0, collecting=True)
    assert (
        'icevision needs pycocotools' in missing
        and "pip install 'redaction_serde[icevision]'" in missing
        and '--no-deps icevision==0.12.0' in missing
    )


def test_imported_before(tmp_path):
    """icevision was imported by the user, with a font of the user's: it is mended, and keeps that font and that home."""
    import matplotlib

    fonts = tmp_path / 'home' / '.icevision' / 'fonts'
    fonts.mkdir(parents=True)
    font = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSerif.ttf'
    (fonts / 'SpaceGrotesk-Medium.ttf').write_bytes(font.read_bytes())
    seen, _ = run(
        '''
    from icevision.all import draw_sample
    from redaction_serde.compat import prepare_icevision
    from icevision.visualize.draw_data import DEFAULT_FONT_PATH
    report = prepare_icevision()
    print(json.dumps(dict(outcomes=sorted({m.outcome for m in report.mends}), sinks=report.sinks_kept, font=report.font == DEFAULT_FONT_PATH, drawn=drawn_in_full(),
        text=repr(report), asked=len(asked))))
    ''',
        tmp_path,
        tmp_path / 'home',
    )
    text = seen.pop('text')
    assert seen == dict(outcomes=['mended'], sinks=False, font=True, drawn=[True] * 4, asked=0)
    assert 'your own ~/.icevision' in text and 'earlier import' in text


def test_without_icevision(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr('importlib.metadata.version', missing)
    monkeypatch.setattr(compat, '_done', None)
    with pytest.raises(
        ImportError, match=r"(?s)not installed.*redaction_serde\[icevision\].*--no-deps icevision==0\.12\.0"
    ):
        compat.prepare_icevision()


def test_a_mend_is_made_only_where_it_is_needed_and_counts_only_if_it_helps():
    def broken():
        raise ValueError('broken')

    assert compat._apply(compat.Mend('fine', '', lambda: None, broken)).outcome == 'not needed'
    with pytest.warns(RuntimeWarning, match='could not be mended'):
        assert compat._apply(compat.Mend('hopeless', '', broken, lambda: None)).outcome == 'not possible'


def test_the_collector_and_the_compiler_of_torch_wait(tmp_path):
    """The compiler until it is asked: it is the real one then, for whoever asks, and also while torchvision is imported."""
    seen, _ = run(
        """
        import gc
        from redaction_serde import compat
        looked = []
        gc.callbacks.append(lambda phase, info: looked.append(len(gc.get_objects(generation=0))))
        compat.prepare_icevision()
        seldom = len(looked) < 200 and max(looked) < 100_000  # and not a thousand times, at a million objects
        import torch
        modules = [name for name in sys.modules if name.startswith('torch._dynamo')]
        from torchvision.ops.roi_align import is_compile_supported as taken
        supported = taken('cpu')
        from torch._dynamo.utils import is_compile_supported
        twice = torch.compile(lambda x: 2 * x, backend='eager')(torch.ones(1)).item()
        print(json.dumps([seldom, modules, supported == is_compile_supported('cpu'), twice]))
        """,
        tmp_path,
        tmp_path,
    )
    assert seen == [True, [], True, 2]
    seen, _ = run(
        """
        from redaction_serde import compat
        with compat._compiler_when_asked():
            import torch._dynamo.config as config
            first = sys.modules['torch._dynamo'].__spec__
            from torch._dynamo import optimize
        import torch
        print(json.dumps([first, optimize is torch._dynamo.optimize, config is torch._dynamo.config]))
        """,
        tmp_path,
        tmp_path,
    )
    assert seen == [None, True, True]
