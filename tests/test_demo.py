"""The command line, as its users meet it."""

import json
import math
import os
import subprocess
import sys

import pytest
from PIL import Image

from redaction_serde import cli


def run(*args, **kw):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'redaction_serde.cli', *map(str, args)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        **kw,
    )


def test_demo_on_real_data(real_data, tmp_path):
    done = run(
        'demo',
        '--annotations',
        real_data / 'coco' / 'annotations.json',
        '--images',
        real_data / 'coco' / 'images',
        '--out',
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / 'report.json').read_text())
    assert (report['ours']['boxes'], report['ours']['boxes_identical']) == (36, 36)
    assert report['article']['boxes_identical'] < 36


def test_demo_on_synthetic_pages(tmp_path):
    out, before = tmp_path / 'demo', set(os.listdir(os.path.expanduser('~')))
    done = run('demo', '--pages', 2, '--out', out)
    assert done.returncode == 0, done.stderr
    assert done.stderr == '' and 'Everything survived' in done.stdout
    assert {p.name for p in out.iterdir()} == {*cli.OUTPUTS, 'pages', 'zenml'}
    for name in cli.OUTPUTS[:2]:
        assert Image.open(out / name).size[0] > 500
    html = (out / 'report.html').read_text()
    assert '<script' not in html and 'src="data:image/png' in html and 'width=device-width' in html
    assert not [src for src in html.split('src="')[1:] if not src.startswith('data:')]
    assert set(os.listdir(os.path.expanduser('~'))) == before


def test_demo_notices_one_float_step(pages_file, tmp_path, monkeypatch, capsys):
    folder = tmp_path / 'data'
    folder.mkdir()
    annotations = folder / 'annotations.json'
    annotations.write_bytes(pages_file.read_bytes())
    real = cli.second_process

    def meddle(artifact, *rest):
        coco = json.loads(annotations.read_text())
        coco['annotations'][5]['bbox'][0] = math.nextafter(coco['annotations'][5]['bbox'][0], math.inf)
        annotations.write_text(json.dumps(coco))
        real(artifact, *rest)

    monkeypatch.setattr(cli, 'run_pipeline', lambda a, i, store: pipeline_in_new_process(a, i, tmp_path / 'store'))
    monkeypatch.setattr(cli, 'second_process', meddle)
    monkeypatch.setattr('redaction_serde.compat.prepare_zenml', lambda store: store)
    assert (
        cli.main(
            [
                'demo',
                '--annotations',
                str(annotations),
                '--images',
                str(pages_file.parent / 'images'),
                '--out',
                str(tmp_path / 'out'),
            ]
        )
        == 1
    )
    printed = capsys.readouterr().out
    assert 'NOT everything survived' in printed and 'changed: $.records[0].detection.bboxes[5]' in printed
    report = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert report['ours']['boxes_identical'] == report['ours']['boxes'] - 1
    assert 0 < report['ours']['largest_px'] < 1e-12


def pipeline_in_new_process(annotations, images, store):
    """The demo's pipeline with a store of its own: this process has chosen another one."""
    code = (
        'import sys, json; from redaction_serde.compat import prepare_icevision, prepare_zenml; prepare_icevision(); store = prepare_zenml(sys.argv[3]); '
        'from redaction_serde.cli import run_pipeline; print(json.dumps(run_pipeline(*sys.argv[1:3], store)))'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code, str(annotations), str(images), str(store)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


COCO = dict(
    images=[dict(id=1, file_name='a.png')],
    categories=[dict(id=1, name='redaction')],
    annotations=[dict(image_id=1, category_id=1, bbox=[1, 2, 3, 4], area=12, iscrowd=0)],
)


def coco(**changes):
    return json.dumps({**COCO, **changes})


@pytest.mark.parametrize(
    'content, words',
    [
        (None, ['no annotation file at']),
        ('', ['is not whole JSON']),
        ('{"images": [', ['is not whole JSON']),
        ('[' * 100_000, ['is not']),
        ('\x00\x01', ['is not whole JSON']),
        ('[1, 2]', ['is not a COCO annotation file', 'object']),
        ('{"format":"redaction-serde","version":"1.0","records":[]}', ['is not a COCO annotation file', 'images']),
        (coco(annotations=[dict(COCO['annotations'][0], bbox=[1, 2, 3])]), ['$.annotations[0].bbox', 'length 4']),
        (coco(annotations=[dict(COCO['annotations'][0], image_id=9)]), ['$.annotations[0]', 'image 9']),
        (coco(annotations=[dict(COCO['annotations'][0], category_id=9)]), ['$.annotations[0]', 'category 9']),
        (coco(annotations=[]), ['no annotations']),
        (coco(), ['1 of 1 images are not in', 'a.png']),
    ],
    ids=[
        'missing',
        'empty',
        'truncated',
        'deep',
        'binary',
        'list',
        'ours',
        'bbox',
        'image',
        'category',
        'none',
        'no image',
    ],
)
def test_bad_annotations(content, words, tmp_path, capsys):
    (tmp_path / 'images').mkdir()
    if content is not None:
        (tmp_path / 'a.json').write_text(content)
    assert (
        cli.main(
            [
                'demo',
                '--annotations',
                str(tmp_path / 'a.json'),
                '--images',
                str(tmp_path / 'images'),
                '--out',
                str(tmp_path / 'out'),
            ]
        )
        == 2
    )
    err = capsys.readouterr().err
    assert all(word in err for word in words) and len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / 'out').exists()


def test_an_image_that_is_not_one(tmp_path, capsys):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'a.png').write_text('no picture')
    (tmp_path / 'a.json').write_text(coco())
    done = run('demo', '--annotations', tmp_path / 'a.json', '--images', tmp_path / 'images', '--out', tmp_path / 'out')
    assert done.returncode == 2 and 'a.png' in done.stderr and 'Traceback' not in done.stderr, done.stderr
    assert not [n for n in cli.OUTPUTS if (tmp_path / 'out' / n).exists()]


@pytest.mark.parametrize(
    'args, words',
    [
        (['demo', '--annotations', 'x.json'], '--images'),
        (['demo', '--pages', '0'], '--pages'),
        (['inspect', 'no-such.json'], 'no-such.json'),
        (['compare', 'no-such.json', 'other.json'], 'no-such.json'),
    ],
)
def test_bad_arguments(args, words, capsys):
    assert cli.main(args) == 2
    assert words in capsys.readouterr().err


def test_output_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert cli.main(['demo', '--pages', '1', '--out', str(tmp_path / 'file' / 'out')]) == 2
    assert 'cannot write to' in capsys.readouterr().err


@pytest.mark.parametrize(
    'content, words',
    [
        ('', 'empty'),
        ('{"format":"redaction-serde","version":"7.0"}', 'version 7.0'),
        ('{"a": 1', 'not whole JSON'),
        ('{"a": 1}', 'not a redaction-serde document'),
        ('hello', 'not a redaction-serde document'),
    ],
)
def test_inspect_refuses(content, words, tmp_path, capsys):
    (tmp_path / 'x.json').write_text(content)
    assert cli.main(['inspect', str(tmp_path / 'x.json')]) == 2
    err = capsys.readouterr().err
    assert words in err and 'Traceback' not in err


def test_inspect_and_compare(pages, tmp_path, capsys):
    from redaction_serde.records import save

    save(pages, tmp_path / 'a.json')
    pages[0].detection.bboxes[0].xmin = math.nextafter(pages[0].detection.bboxes[0].xmin, 0)
    save(pages, tmp_path / 'b.json')
    assert cli.main(['inspect', str(tmp_path / 'a.json')]) == 0
    assert '4 records' in capsys.readouterr().out
    assert cli.main(['compare', str(tmp_path / 'a.json'), str(tmp_path / 'a.json')]) == 0
    assert cli.main(['compare', str(tmp_path / 'a.json'), str(tmp_path / 'b.json')]) == 1


def test_inspect_is_light(pages, tmp_path):
    from redaction_serde.records import save

    save(pages, tmp_path / 'a.json')
    code = f"import sys; from redaction_serde.cli import main; main(['inspect', {str(tmp_path / 'a.json')!r}]); print([m for m in ('torch', 'icevision', 'zenml', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip().endswith('[]'), done.stdout + done.stderr


def test_convert_goes_round_all_formats(pages, tmp_path, capsys):
    from redaction_serde.wire.registry import FORMATS
    from redaction_serde.records import save

    save(pages, tmp_path / '0.json')
    files = [f'{i}.{format}' for i, format in enumerate(('json', *FORMATS, 'json'))]
    for a, b in zip(files, files[1:]):
        assert cli.main(['convert', str(tmp_path / a), str(tmp_path / b)]) == 0
    assert (tmp_path / files[-1]).read_bytes() == (tmp_path / '0.json').read_bytes()
    for name in files:
        assert cli.main(['inspect', str(tmp_path / name)]) == 0
    assert cli.main(['compare', str(tmp_path / files[2]), str(tmp_path / files[3])]) == 0


def test_convert_refuses_what_json_cannot_hold(pages, tmp_path, capsys):
    from redaction_serde.records import save

    pages[0].detection.bboxes[0].xmin = math.nan
    save(pages, tmp_path / 'a.msgpack')
    assert cli.main(['convert', str(tmp_path / 'a.msgpack'), str(tmp_path / 'b.json')]) == 2
    assert '$.records[0].detection.bboxes[0][0]' in capsys.readouterr().err
    assert cli.main(['convert', str(tmp_path / 'a.msgpack'), str(tmp_path / 'b.pickle')]) == 2
    assert [p.name for p in tmp_path.iterdir()] == ['a.msgpack']


def test_coco_goes_in(tmp_path, capsys):
    from redaction_serde.lessons.pages import make_documents
    from redaction_serde.fidelity import compare
    from redaction_serde.records import load, parse_coco

    coco = make_documents(tmp_path / 'pages', n_pages=3, seed=2)
    out = tmp_path / 'a.pb'
    assert cli.main(['convert', str(coco), str(out), '--coco', 'boxes']) == 0
    assert compare(parse_coco(coco, coco.parent / 'images'), load(out, root=coco.parent / 'images'))
    assert str(tmp_path).encode() not in out.read_bytes()
    assert cli.main(['compare', str(coco), str(out), '--coco', 'boxes']) == 0
    assert cli.main(['inspect', str(coco), '--coco', 'masks']) == 0 and '3 records' in capsys.readouterr().out
    annotations = json.loads(coco.read_text())
    annotations['annotations'][0]['bbox'][0] += 0.5
    for a in annotations['annotations']:
        del a['segmentation']
    (coco.parent / 'b.json').write_text(json.dumps(annotations))
    assert cli.main(['compare', str(out), str(coco.parent / 'b.json')]) == 1
    annotations['annotations'][0]['segmentation'] = [[0, 0, 5, 0, 5, 5]]
    (coco.parent / 'b.json').write_text(json.dumps(annotations))
    capsys.readouterr()
    for extra, words in (
        ([], 'say what to take'),
        (['--coco', 'keypoints'], 'have no keypoints'),
        (['--images', str(tmp_path / 'none')], 'no image folder'),
    ):
        assert cli.main(['convert', str(coco.parent / 'b.json'), str(tmp_path / 'c.json'), *extra]) == 2
        assert words in capsys.readouterr().err and not (tmp_path / 'c.json').exists()


@pytest.mark.parametrize(
    'name, what', [('annotations', 'boxes'), ('annotations', 'masks'), ('keypoints_annotations', 'keypoints')]
)
def test_real_coco_goes_in(name, what, real_data, tmp_path):
    source = str(real_data / 'coco' / f'{name}.json')
    for suffix in ('jsonl.gz', 'pb'):
        assert cli.main(['convert', source, str(tmp_path / f'a.{suffix}'), '--coco', what]) == 0
        assert cli.main(['compare', source, str(tmp_path / f'a.{suffix}'), '--coco', what]) == 0
