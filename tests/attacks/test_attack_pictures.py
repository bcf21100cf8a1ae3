"""Pictures and terminals: what stands in data is shown as text, and files that are no pictures start nothing and stop nothing."""

import os
import subprocess
import sys
import time
import warnings

import pytest
from PIL import Image

from pace import cpu_seconds
from redaction_serde import visual
from redaction_serde.records import save

from icevision.core import (
    BaseRecord,
    BBox,
    BBoxesRecordComponent,
    ClassMap,
    FilepathRecordComponent,
    InstancesLabelsRecordComponent,
)
from icevision.data import RecordCollection


def page(name='a', path='/p/x.png', size=(100, 100)):
    "A collection of one page with one box."
    record = BaseRecord((FilepathRecordComponent(), InstancesLabelsRecordComponent(), BBoxesRecordComponent()))
    record.set_record_id(1)
    record.set_filepath(path)
    record.set_img_size(size)
    record.detection.set_class_map(ClassMap([name]))
    record.detection.add_labels([name])
    record.detection.add_bboxes([BBox(1.0, 2.0, 30.0, 40.0)])
    return RecordCollection(None).new([record])


NAMES = [
    'from $5 to $10',
    r'$\frac{1$',
    'US$_net CA$',
    '$' + '{' * 400 + 'x' + '}' * 400 + '$',
    '$' + r'\sqrt{' * 100 + 'x' + '}' * 100 + '$',
    '_hidden',
    'x' * 100_000,
    '\u202eexe.png',
    '\x1b[2K',
    'a\nb',
    '',
    '%',
    '\x00',
]


@pytest.mark.parametrize('name', NAMES, ids=lambda name: ascii(name[:12]))
def test_names_are_text(name):
    sheets = []

    def shown():
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            sheets.append(visual.contact_sheet(page(name, f'/p/{name[:50]}.png'.replace('\x00', ''))))
            assert len(visual.png(sheets[-1])) > 1000
            assert len(visual.png(visual.visual_check(page(name), page(name)))) > 1000

    assert cpu_seconds(shown, 20) < 20
    text = sheets[0].legends[0].get_texts()[0].get_text()
    assert text.isprintable() and len(text) < 80 and text[:3].startswith(name[:1] if name[:1].isprintable() else '\\')


@pytest.mark.parametrize(
    'size', [(0, 0), (-5, 3), (1e308, 1), (float('nan'), 1), (10**30, 1), (10**400, 1)], ids=lambda size: str(size)[:16]
)
def test_sizes(size):
    (record,) = page(size=size)
    for figure in (visual.contact_sheet([record]), visual.draw_record(record), visual.overlay(record, record)[0]):
        assert len(visual.png(figure)) > 1000


@pytest.mark.parametrize(
    'corners',
    [(1e308, 1, -1e308, 2), (float('nan'), 0, 1, 1), (float('inf'), 0, 1, 1), (10**400, 0, 1, 1)],
    ids=lambda c: str(c[0])[:9],
)
def test_corners(corners):
    (record,) = page()
    (
        record.detection.bboxes[0].xmin,
        record.detection.bboxes[0].ymin,
        record.detection.bboxes[0].xmax,
        record.detection.bboxes[0].ymax,
    ) = corners
    (whole,) = page()
    for a, b in ((record, record), (record, whole), (whole, record)):
        assert len(visual.png(visual.overlay(a, b)[0])) > 1000
    assert visual.contact_sheet([record])


@pytest.fixture
def no_programs(tmp_path, monkeypatch):
    "A folder of programs before all others, that write down when they are started."
    (tmp_path / 'bin').mkdir()
    for name in ('gs', 'gswin64c', 'sh'):
        program = tmp_path / 'bin' / name
        program.write_text(f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/ran\n')
        program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}/bin{os.pathsep}{os.environ["PATH"]}')
    return tmp_path / 'ran'


def test_postscript_starts_no_program(tmp_path, no_programs):
    (tmp_path / 'page.png').write_bytes(
        b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(%pipe%id) (r) file\nshowpage\n'
    )
    assert visual.image_of(page(path=tmp_path / 'page.png')[0]) == (None, 1.0)
    assert not no_programs.exists()


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no pipes with names')
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / 'fifo.png')
    for path in (tmp_path / 'fifo.png', '/dev/zero', tmp_path):
        start = time.monotonic()
        assert visual.image_of(page(path=path)[0]) == (None, 1.0)
        assert time.monotonic() - start < 5


def test_a_picture_of_too_many_pixels(tmp_path):
    Image.new('L', (9_100, 9_100)).save(tmp_path / 'big.png')
    big = page(path=tmp_path / 'big.png')[0]

    def refused():
        assert visual.image_of(big) == (None, 1.0)

    assert cpu_seconds(refused, 0.5) < 0.5


EVIL = '\x1b]0;owned\x07\x1b]52;c;Y3VybCBldmlsLnNo\x07\x1b[2K\x1b[1A\rall 1000 records are fine\n  checksum: VERIFIED\u202e'


@pytest.mark.parametrize('encoding', ['ascii', 'cp1252', 'utf-8', 'utf-16'])
def test_terminal(encoding, tmp_path):
    """Whatever the encoding, what is shown of a file is one line for a thing, without a control character in it."""
    pages = page(EVIL)
    pages[0].detection.class_map._id2class.append('é✓ 日本')
    save(pages, tmp_path / 'a.json')
    (tmp_path / 'b.json').write_bytes((tmp_path / 'a.json').read_bytes().replace(b'"bboxes"', b'"\\u001b[2K"'))
    for name, status, lines in (('a.json', 0, 3), ('b.json', 2, 1), ('none\x1b[2K\n.json', 2, 1)):
        done = subprocess.run(
            [sys.executable, '-m', 'redaction_serde.cli', 'inspect', name],
            cwd=tmp_path,
            capture_output=True,
            env={**os.environ, 'PYTHONIOENCODING': encoding, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
        )
        shown = (done.stdout + done.stderr).decode(encoding)
        assert done.returncode == status, shown
        assert len(shown.splitlines()) == lines and all(line.isprintable() for line in shown.split('\n'))
