"""ZenML's own dashboard over a store of ours: it starts, stays on this machine, and shows the contact sheet."""

import json
import urllib.request

import dashboard
import processes
import pytest
from notebooks import NBS, ROOT

pytest.importorskip('fastapi', reason='zenml[server] is not installed')
pytestmark = pytest.mark.timeout(600)

CODE = '''import sys
from redaction_serde.compat import prepare_icevision, prepare_zenml
prepare_icevision(); prepare_zenml(sys.argv[3])
from redaction_serde.pipelines import collection_pipeline
collection_pipeline(*sys.argv[1:3])'''


@pytest.fixture(scope='module')
def store(pages_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp('dashboard') / 'zenml'
    done = processes.run('-c', CODE, pages_file, pages_file.parent / 'images', folder, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope='module')
def url(store):
    before = (store / 'config.yaml').read_bytes()
    with dashboard.serve(store) as url:
        yield url
    assert (store / 'config.yaml').read_bytes() == before, (
        'the store must not end up connected to a server that is gone'
    )


def test_it_answers_for_this_machine_only(url):
    assert url.startswith('http://127.0.0.1:')
    policy = urllib.request.urlopen(url).headers['content-security-policy']
    sources = {word for directive in policy.split(';') for word in directive.split()[1:]}
    assert sources == {url, 'data:', 'blob:', "'unsafe-inline'", "'unsafe-eval'"}
    stranger = urllib.request.Request(f'{url}/api/v1/runs', headers={'Origin': 'http://example.org'})
    assert 'access-control-allow-origin' not in urllib.request.urlopen(stranger).headers


@pytest.mark.skipif(
    not dashboard.chromium(),
    reason='no Chromium on this machine (Debian: apt install chromium): the dashboard is not looked at here',
)
def test_the_contact_sheet_and_the_report_are_seen(url):
    finished, broken = [], []
    with dashboard.browser_page(viewport=dict(width=1280, height=800)) as page:
        page.set_default_timeout(120_000)
        page.on('requestfinished', lambda r: finished.append(r.url))
        page.on('pageerror', lambda e: broken.append(str(e)))
        sheet = dashboard.open_sheet(page, dashboard.run_page(url))
        width, height = sheet.evaluate('image => [image.naturalWidth, image.naturalHeight]')
        assert width >= 600 and height >= 300
        assert sheet.get_attribute('src').startswith(('data:image/png', 'blob:', url))
        page.get_by_role('dialog').get_by_text('contact-sheet.png').click()
        page.get_by_text('report.html', exact=True).last.click()
        page.get_by_role(
            'button', name='Load Preview'
        ).click()  # the dashboard warns of HTML, and shows it without scripts
        page.frame_locator('iframe').get_by_text('4 records').first.wait_for()
        assert page.locator('iframe').get_attribute('sandbox') == ''
    assert not [u for u in finished if not u.startswith((f'{url}/', 'data:', 'blob:'))] and not broken


def test_no_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match='no ZenML store in none; `make demo`'):
        with dashboard.serve('none'):
            pass


def test_a_port_that_is_taken(store):
    import socket

    with socket.create_server(('127.0.0.1', 0)) as taken, pytest.raises(SystemExit, match='is taken'):
        with dashboard.serve(store, taken.getsockname()[1]):
            pass


def test_the_picture_of_the_lesson_is_small():
    from PIL import Image

    path = NBS / 'images' / 'dashboard.png'
    assert path.stat().st_size < 150_000 and Image.open(path).size[0] > 1000
    cells = json.loads((NBS / 'learn' / '05_materialisation.ipynb').read_text(encoding='utf-8'))['cells']
    assert any('](../images/dashboard.png)' in ''.join(c['source']) for c in cells)
