"""`make lab`: JupyterLab in a browser, on copies of the notebooks, with a lesson that is run from top to bottom."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from types import SimpleNamespace

import copies
import pytest
from notebooks import NBS, ROOT

LESSON = 'learn/01_bytes.ipynb'
IDLE = '.jp-Notebook-ExecutionIndicator[data-status=idle]'
ERROR = '[data-mime-type="application/vnd.jupyter.stderr"]'  # JupyterLab shows an error as it shows stderr
FAILS = {
    'nbformat': 4,
    'nbformat_minor': 5,
    'metadata': {'kernelspec': {'name': 'python3', 'display_name': 'python3', 'language': 'python'}},
    'cells': [
        {'cell_type': 'markdown', 'id': 'title', 'metadata': {}, 'source': '# Fails'},
        {'cell_type': 'code', 'id': 'fails', 'metadata': {}, 'source': '1 / 0', 'outputs': [], 'execution_count': None},
    ],
}
CHROMIUM = next(filter(None, map(shutil.which, ['chromium', 'chromium-browser', 'google-chrome'])), None)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The address of a JupyterLab with the project's configuration, on copies of the notebooks in `lab/` of a git checkout."""
    for name in ('.gitignore', 'settings.ini', 'pyproject.toml'):
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(['git', 'init', '-q', tmp_path], check=True)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    state = {
        n: str(tmp_path / 'state' / n.lower())
        for n in ('JUPYTER_CONFIG_DIR', 'JUPYTER_DATA_DIR', 'JUPYTER_RUNTIME_DIR', 'IPYTHONDIR')
    }
    monkeypatch.setenv('JUPYTER_DATA_DIR', state['JUPYTER_DATA_DIR'])
    copies.make(tmp_path / 'lab', NBS)
    process = subprocess.Popen(
        [
            sys.executable,
            '-m',
            'jupyterlab',
            '--config',
            ROOT / 'tools' / 'jupyter_lab_config.py',
            '--no-browser',
            '--allow-root',
            f'--ServerApp.root_dir={tmp_path / "lab"}',
            f'--LabApp.workspaces_dir={tmp_path / "workspaces"}',
            f'--ServerApp.port={port}',
            '--ServerApp.port_retries=0',
            '--IdentityProvider.token=secret',
        ],
        cwd=tmp_path,
        env={**os.environ, **state},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    address = f'http://127.0.0.1:{port}/'
    for _ in range(240):
        try:
            urllib.request.urlopen(f'{address}api?token=secret', timeout=5)
            break
        except OSError:
            time.sleep(0.5)
        if process.poll() is not None:
            pytest.fail(process.stdout.read())
    yield address
    process.terminate()
    process.wait(30)


def cells(page, selector):
    return page.evaluate(f'() => [...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)')


def open_cells(path):
    """The numbers that the cells get whose code is not folded away. A folded cell is counted, and shows no number."""
    code = [c for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
    return [str(i) for i, c in enumerate(code, 1) if not c['metadata'].get('jupyter', {}).get('source_hidden')]


def is_unsaved(page):
    return page.locator('.lm-DockPanel-tabBar .lm-TabBar-tab.lm-mod-current.jp-mod-dirty').count() > 0


def assert_answers(page, number, data):
    """The fields at the top of the lesson on bytes change the bytes below them."""
    page.get_by_label('xmin').fill(number)
    assert data in page.locator('[id^=live-box] dl code').first.inner_text()


def opened(page, address, title):
    """Open a notebook, and wait until its kernel is idle: one was chosen, and nobody was asked."""
    page.goto(address)
    page.wait_for_selector(f'.jp-Notebook h1:has-text("{title}")', timeout=90_000)
    page.wait_for_selector(IDLE, state='attached', timeout=90_000)
    page.wait_for_timeout(1000)  # what it would change by itself, it would change now
    assert not page.locator('.jp-Dialog').count() and not is_unsaved(page)


def run_all(page):
    page.click('.lm-MenuBar-item:has-text("Run")')
    page.click('.lm-Menu-item:has-text("Run All Cells") >> nth=0')


def assert_an_error_is_seen(page, lab, folder):
    """That no cell has failed says something only if one that fails would be found."""
    (folder / 'fails.ipynb').write_text(json.dumps(FAILS), encoding='utf-8')
    page.goto(f'{lab}lab/tree/fails.ipynb')
    page.wait_for_selector('.jp-Notebook h1:has-text("Fails")', timeout=90_000)
    page.wait_for_selector(IDLE, state='attached', timeout=90_000)
    run_all(page)
    page.wait_for_selector('.jp-OutputArea-output:has-text("ZeroDivisionError")', timeout=90_000)
    assert page.locator(ERROR).count() == 1


def test_sources_are_saved_clean_and_copies_as_they_are():
    from traitlets.config.loader import PyFileConfigLoader

    hook = PyFileConfigLoader('jupyter_lab_config.py', str(ROOT / 'tools')).load_config().ContentsManager.pre_save_hook
    cell = {'cell_type': 'code', 'execution_count': 7, 'outputs': [], 'metadata': {'trusted': True}, 'source': '1'}
    for folder, left in (('lab', 7), ('nbs', None)):
        content = {'nbformat': 4, 'metadata': {}, 'cells': [json.loads(json.dumps(cell))]}
        hook({'type': 'notebook', 'content': content}, contents_manager=SimpleNamespace(root_dir=f'/x/{folder}'))
        assert content['cells'][0]['execution_count'] == left


def test_the_launcher_says_where_the_copies_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(copies, 'make', lambda: {'learn/a.ipynb': ROOT / 'lab' / 'learn' / 'mine-a.ipynb'})
    copies.main()
    first, second = capsys.readouterr().out.splitlines()
    assert 'copies, in lab/' in first and 'NBS=nbs' in first and 'lab/learn/mine-a.ipynb' in second


@pytest.mark.skipif(
    not CHROMIUM, reason='no Chromium on this machine (`apt install chromium`): JupyterLab is not tested here'
)
def test_a_lesson_runs_from_top_to_bottom(lab, tmp_path):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        saved = tmp_path / 'lab' / LESSON
        browser = p.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu'])
        page = browser.new_page(viewport={'width': 1280, 'height': 900})
        elsewhere, errors = [], []
        page.on('console', lambda m: errors.append(m.text) if m.type == 'error' else None)
        page.on(
            'request',
            lambda r: (
                elsewhere.append(r.url)
                if not r.url.startswith((lab, lab.replace('http', 'ws'), 'data:', 'blob:'))
                else None
            ),
        )
        page.goto(f'{lab}?token=secret')  # the start page
        page.wait_for_selector('.jp-Notebook h1:has-text("redaction_serde")', timeout=90_000)
        opened(page, f'{lab}lab/tree/{LESSON}', 'Bytes')
        folds = cells(page, '.jp-NotebookPanel:not(.lm-mod-hidden) .jp-InputPlaceholder')
        assert folds[0].startswith('# Imports') and any(text.startswith('# Check') for text in folds)
        assert_answers(page, '11', '31 31 2e 30')  # copies are signed, so that what they show is shown whole
        run_all(page)
        panel = '.jp-NotebookPanel:not(.lm-mod-hidden)'
        deadline = time.monotonic() + 180
        while True:
            page.wait_for_timeout(500)
            prompts = [
                re.sub(r'\W', '', t) if '*' not in t else '*'
                for t in cells(page, f'{panel} .jp-CodeCell .jp-InputArea-prompt')
                if '[' in t
            ]
            if prompts and '*' not in prompts and prompts[-1]:
                break
            assert time.monotonic() < deadline, prompts
        assert prompts == open_cells(saved)  # each once, in order
        page.wait_for_selector(IDLE, state='attached', timeout=90_000)  # folded cells have run, too
        assert not page.locator(ERROR).count()
        last = page.locator(f'{panel} .jp-OutputArea-output').last
        assert 'unpack requires a buffer of 42 bytes' in last.inner_text()
        before = saved.stat().st_mtime_ns
        assert_answers(page, '12', '31 32 2e 30')
        page.keyboard.press('Control+s')
        while saved.stat().st_mtime_ns == before and time.monotonic() < deadline:
            page.wait_for_timeout(200)
        opened(page, f'{lab}lab/tree/{LESSON}', 'Bytes')  # what was run and saved opens again as it is
        assert copies.make(tmp_path / 'lab', NBS) == {}
        status = subprocess.run(
            ['git', 'status', '--porcelain'], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert not [line for line in status.stdout.splitlines() if 'lab/' in line]
        assert not elsewhere and not errors, (elsewhere, errors)
        assert_an_error_is_seen(page, lab, tmp_path / 'lab')
        browser.close()
