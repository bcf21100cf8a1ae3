"""The command line, as its users meet it."""

import gc
import json
import math
import os
import re
import shutil
import subprocess
import sys
from datetime import date

import processes
import pytest
from PIL import Image

from redaction_serde import cli
from redaction_serde.document import Document, Header
from redaction_serde.wire.registry import FORMATS, encode

CHROMIUM = next(filter(None, map(shutil.which, ['chromium', 'chromium-browser', 'google-chrome'])), None)


def run(*args):
    return processes.run('-m', 'redaction_serde.cli', *args)


def test_demo_on_real_data(real_data, tmp_path):
    coco, out = real_data / 'coco', tmp_path / 'out'
    asked = ['--annotations', coco / 'annotations.json', '--images', coco / 'images', '--out', out]
    done = processes.run('-c', processes.CLI, processes.python(tmp_path), 'demo', *asked)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / 'report.json').read_text())
    assert (report['ours']['boxes'], report['ours']['boxes_identical']) == (36, 36)
    assert report['article']['boxes_identical'] < 36
    file = report['file']
    assert file['identical'] and (file['images'], file['images_identical']) == (6, 6)
    assert (file['annotations'], file['annotations_identical']) == (36, 36)
    assert file['fields'] == file['fields_identical'] > 36 * 8


def test_demo_on_synthetic_pages(tmp_path):
    out, before = tmp_path / 'demo', set(os.listdir(os.path.expanduser('~')))
    command = [sys.executable, '-W', 'ignore', '-m', 'redaction_serde.cli', 'demo', '--pages', '2', '--out', out]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert processes.complaints(done) == '' and 'Everything survived' in done.stdout
    assert {p.name for p in out.iterdir()} == {*cli.OUTPUTS, 'pages', 'zenml'}
    for name in cli.OUTPUTS[:2]:
        assert Image.open(out / name).size[0] > 500
    html = (out / 'report.html').read_text()
    assert '<script' not in html and 'src="data:image/png' in html and 'width=device-width' in html
    assert not [src for src in html.split('src="')[1:] if not src.startswith('data:')]
    assert set(os.listdir(os.path.expanduser('~'))) == before
    text = (out / 'report.json').read_text()
    assert str(tmp_path) not in html + text and 'page-0000.png' in text  # names, no places
    assert f'Made on <time>{date.today()}</time>' in html and 'This page is for those who' in html
    if CHROMIUM:
        assert_its_tables_stack(out / 'report.html')


def assert_its_tables_stack(path):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu'])
        page = browser.new_page(viewport={'width': 390, 'height': 844})
        page.goto(path.as_uri())
        assert page.evaluate('() => document.documentElement.scrollWidth <= 390')
        tops = page.evaluate(
            '() => [...document.querySelector("tbody tr").cells].map(c => c.getBoundingClientRect().top)'
        )
        assert len(tops) == len(set(tops)) == len(cli.HEAD)
        before = 'c => getComputedStyle(c, "::before").content'
        assert page.locator('tbody td').nth(1).evaluate(before) == '"boxes"'
        browser.close()


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
    monkeypatch.setattr(sys, 'executable', str(processes.python(tmp_path)))
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
    done = processes.run('-c', code, annotations, images, store)
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
        ('', ['the file is empty']),
        ('{"images": [', ['the file ends in the middle']),
        ('[' * 100_000, ['nested too deeply']),
        ('\x00\x01', ['not']),
        ('[1, 2]', ['not a COCO file', 'object']),
        ('{"format":"redaction-serde","version":"1.0","records":[]}', ['not a COCO file', 'redaction_serde.load']),
        (coco(annotations=[dict(COCO['annotations'][0], bbox=[1, 2, 3])]), ['$.annotations[0]', 'four numbers']),
        (coco(annotations=[dict(COCO['annotations'][0], image_id=9)]), ['$.annotations[0]', '`image_id` 9']),
        (coco(annotations=[dict(COCO['annotations'][0], category_id=9)]), ['$.annotations[0]', '`category_id` 9']),
        (coco(images=[], annotations=[]), ['no annotations']),
        (coco(), ['the image is not found', '1 of 1 images', 'a.png']),
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
        ('{"a": 1', 'no saved collection, and the file ends in the middle'),
        ('{"a": 1}', 'no saved collection, and not a COCO file'),
        ('hello', 'no saved collection, and not JSON'),
        ('\x95', 'not a redaction-serde document'),
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


def test_only_a_program_ends_without_the_collector(monkeypatch, tmp_path):
    """Whoever calls `main` keeps it to the end: it may hold a file that is not written yet."""
    (tmp_path / 'a.json').write_bytes(encode(Document(Header(), []), 'json'))
    arguments, at_the_end = ['inspect', str(tmp_path / 'a.json')], []
    monkeypatch.setattr('atexit.register', at_the_end.append)
    assert (cli.main(arguments), at_the_end) == (0, [])
    monkeypatch.setattr('sys.argv', ['redaction-serde', *arguments])
    assert (cli.main(), at_the_end) == (0, [gc.freeze])


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


@pytest.fixture
def coco_file(tmp_path):
    """A COCO file with much that icevision has no place for, and its images."""
    from redaction_serde.lessons.pages import make_documents

    path = make_documents(tmp_path / 'pages', n_pages=3, seed=2)
    said = json.loads(path.read_text())
    said['licenses'] = [{'id': 4, 'name': 'none'}]
    said['images'].append(
        {'id': 77, 'file_name': said['images'][0]['file_name'], 'width': 8, 'height': 9, 'seen': True}
    )
    for i, annotation in enumerate(said['annotations']):
        annotation.update(
            attributes={'certain': i % 2 == 0}, bbox=[annotation['bbox'][0] + 0.1, *annotation['bbox'][1:]]
        )
    path.write_text(json.dumps(said))
    return path


def same_file(a, b):
    from redaction_serde.coco.faithful import compare_coco

    return compare_coco(json.loads(a.read_text()), json.loads(b.read_text()))


@pytest.mark.parametrize('format', FORMATS)
def test_coco_through_every_format(format, coco_file, tmp_path, capsys):
    middle, again = tmp_path / f'a.{format}', tmp_path / 'again.coco.json'
    assert cli.main(['convert', str(coco_file), str(middle)]) == 0
    said = capsys.readouterr().out
    assert (
        'read 4 images (1 without annotations)' in said and 'left out nothing' in said and len(said.splitlines()) == 1
    )
    assert cli.main(['compare', str(coco_file), str(middle)]) == 0
    assert cli.main(['inspect', str(middle)]) == 0 and 'on the collection: coco' in capsys.readouterr().out
    assert cli.main(['convert', str(middle), str(again)]) == 0 and 'nothing is lost' in capsys.readouterr().out
    report = same_file(coco_file, again)
    assert report and report.images == report.images_identical == 4, report.differences[:5]
    assert cli.main(['convert', str(again), str(tmp_path / 'third.json'), '--to', 'coco']) == 0
    assert same_file(coco_file, tmp_path / 'third.json')


def test_paths_of_the_machine_stay_out_of_what_is_converted(coco_file, tmp_path):
    from redaction_serde import load, read_coco
    from redaction_serde.fidelity import compare

    assert cli.main(['convert', str(coco_file), str(tmp_path / 'a.pb')]) == 0
    assert str(tmp_path).encode() not in (tmp_path / 'a.pb').read_bytes()
    images = coco_file.parent / 'images'
    assert compare(read_coco(coco_file, images, report=str), load(tmp_path / 'a.pb', root=images))


def test_less_is_said(coco_file, tmp_path, capsys):
    assert cli.main(['convert', str(coco_file), str(tmp_path / 'a.json'), '--only', 'boxes']) == 0
    said = capsys.readouterr().out
    assert 'left out segmentation of' in said and len(said.splitlines()) == 1
    assert cli.main(['compare', str(coco_file), str(tmp_path / 'a.json')]) == 1
    assert cli.main(['compare', str(coco_file), str(tmp_path / 'a.json'), '--coco', 'boxes']) == 0
    assert cli.main(['inspect', str(coco_file)]) == 0 and '4 records' in capsys.readouterr().out


def test_compare_sees_a_changed_file(coco_file, tmp_path, capsys):
    assert cli.main(['convert', str(coco_file), str(tmp_path / 'a.pb')]) == 0
    said = json.loads(coco_file.read_text())
    said['licenses'][0]['name'] = 'some'
    coco_file.write_text(json.dumps(said))
    assert cli.main(['compare', str(tmp_path / 'a.pb'), str(coco_file)]) == 1
    assert '$.coco.file.licenses[0].name' in capsys.readouterr().out


def test_nothing_is_overwritten_that_was_not_meant(coco_file, tmp_path, capsys):
    source = coco_file.read_bytes()
    ours, other = tmp_path / 'ours.json', tmp_path / 'notes.msgpack'
    assert cli.main(['convert', str(coco_file), str(ours)]) == 0
    other.write_text('not to be lost')
    capsys.readouterr()
    for given, out, words in (
        (coco_file, coco_file, 'the file that is read'),
        (ours, ours, 'the file that is read'),
        (coco_file, other, 'is no collection, not msgpack'),
        (ours, coco_file, 'is coco, not json'),
    ):
        before = out.read_bytes()
        assert cli.main(['convert', str(given), str(out)]) == 2
        err = capsys.readouterr().err
        assert words in err and len(err.splitlines()) == 1 and out.read_bytes() == before
    assert cli.main(['convert', str(coco_file), str(ours)]) == 0  # a file of the same kind
    assert cli.main(['convert', str(ours), str(other), '--force']) == 0 and coco_file.read_bytes() == source


def test_what_coco_cannot_hold_is_refused_or_said(coco_file, tmp_path, capsys):
    from redaction_serde import load, save

    ours, out = tmp_path / 'a.json', tmp_path / 'a.coco.json'
    assert cli.main(['convert', str(coco_file), str(ours)]) == 0
    pages = load(ours)
    pages[0].checked_by = 'Ada'
    save(pages, ours)
    capsys.readouterr()
    assert cli.main(['convert', str(ours), str(out)]) == 2
    err = capsys.readouterr().err
    assert 'checked_by' in err and len(err.splitlines()) == 1 and not out.exists()
    assert cli.main(['convert', str(ours), str(out), '--lossy']) == 0
    assert 'attribute: 1 ×' in capsys.readouterr().out and same_file(coco_file, out)


@pytest.mark.parametrize(
    'content, words',
    [
        ('{"images": [,], "annotations": []}', 'line 1'),
        ('{"images": [], "annotations": [1]}', '$.annotations'),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{}], "categories": []}', '`image_id` is missing'),
    ],
)
@pytest.mark.parametrize('command', ['inspect', 'convert', 'compare'])
def test_bad_coco_is_one_line(content, words, command, tmp_path, capsys):
    path = tmp_path / 'a.json'
    path.write_text(content)
    more = {'inspect': [], 'convert': [str(tmp_path / 'b.json')], 'compare': [str(path)]}[command]
    assert cli.main([command, str(path), *more]) == 2
    err = capsys.readouterr().err
    assert words in err and 'Traceback' not in err and len(err.splitlines()) == 1


@pytest.mark.parametrize('name', ['annotations', 'keypoints_annotations'])
@pytest.mark.parametrize('format', FORMATS)
def test_real_coco_through_every_format(name, format, real_data, tmp_path):
    source = real_data / 'coco' / f'{name}.json'
    assert cli.main(['convert', str(source), str(tmp_path / f'a.{format}')]) == 0
    assert cli.main(['compare', str(source), str(tmp_path / f'a.{format}')]) == 0
    assert cli.main(['convert', str(tmp_path / f'a.{format}'), str(tmp_path / 'b.coco.json')]) == 0
    report = same_file(source, tmp_path / 'b.coco.json')
    assert report, report.differences[:5]


# --- options and messages of the commands that work on files

PYTHON_ONLY = re.compile(r"areas='compute'|only='boxes'")


@pytest.mark.parametrize(
    'text, words',
    [
        ('', 'the file is empty'),
        ('{}', 'found dict of 0'),
        ('<html></html>', 'web page'),
        ('[{"image_id": 1, "score": 0.5}]', 'list of results'),
        ('{"shapes": []}', 'labelme'),
        ('hello', 'not JSON'),
    ],
)
@pytest.mark.parametrize('command', ['inspect', 'convert', 'compare'])
def test_what_is_no_collection_is_told_what_it_is(tmp_path, capsys, text, words, command):
    path = tmp_path / 'it.json'
    path.write_text(text)
    rest = {'inspect': [], 'convert': [str(tmp_path / 'out.msgpack')], 'compare': [str(path)]}[command]
    assert cli.main([command, str(path), *rest]) == 2
    said = capsys.readouterr().err
    assert (
        words in said
        and said.startswith(f'redaction-serde: {path}: no saved collection, and ')
        and said.count('\n') == 1
    )
    assert [p.name for p in tmp_path.iterdir()] == ['it.json']


@pytest.mark.parametrize('option', [['--only', 'boxes'], ['--areas', 'compute'], ['--images', '.']])
@pytest.mark.parametrize('command', ['inspect', 'convert'])
def test_options_for_coco_are_refused_elsewhere(tmp_path, capsys, option, command):
    path = tmp_path / 'it.json'
    path.write_bytes(encode(Document(Header(layouts=[]), [])))
    rest = [str(tmp_path / 'out.msgpack')] if command == 'convert' else []
    assert cli.main([command, str(path), *rest, *option]) == 2
    assert f'{option[0]} is for COCO annotations' in capsys.readouterr().err
    assert cli.main([command, str(path), *rest]) == 0


def test_remedies_are_options(tmp_path, capsys):
    path = tmp_path / 'it.json'
    entry = {'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [1, 1, 2, 2]}
    image = {'id': 1, 'file_name': 'a.png', 'width': 9, 'height': 9}
    path.write_text(json.dumps({'images': [image], 'annotations': [entry], 'categories': [{'id': 1, 'name': 'a'}]}))
    assert cli.main(['inspect', str(path)]) == 2
    said = capsys.readouterr().err
    assert 'pass --areas compute' in said and not PYTHON_ONLY.search(said)
    assert cli.main(['inspect', str(path), '--areas', 'compute']) == 0


def test_the_suffix_of_coco_is_named(tmp_path, capsys):
    path = tmp_path / 'it.json'
    path.write_text('{"images": [], "annotations": [], "categories": []}')
    assert cli.main(['convert', str(path), str(tmp_path / 'out.foo')]) == 2
    assert '.coco.json' in capsys.readouterr().err
