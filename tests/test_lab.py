"""`make lab`: JupyterLab in a browser, with a lesson that is run from top to bottom."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LESSON = 'learn/01_bytes.ipynb'
CHROMIUM = next(filter(None, map(shutil.which, ['chromium', 'chromium-browser', 'google-chrome'])), None)


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab with the project's configuration, on a copy of the notebooks: it saves what it runs."""
    for name in ('nbs', 'redaction_serde'):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
        )
    for name in ('settings.ini', 'setup.py', 'pyproject.toml'):
        shutil.copy(ROOT / name, tmp_path / name)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    state = {
        n: str(tmp_path / 'state' / n.lower())
        for n in ('JUPYTER_CONFIG_DIR', 'JUPYTER_DATA_DIR', 'JUPYTER_RUNTIME_DIR', 'IPYTHONDIR')
    }
    process = subprocess.Popen(
        [
            sys.executable,
            '-m',
            'jupyterlab',
            '--config',
            ROOT / 'tools' / 'jupyter_lab_config.py',
            '--no-browser',
            '--allow-root',
            f'--ServerApp.root_dir={tmp_path / "nbs"}',
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


def assert_clean(path):
    """A notebook that was run and saved, as it would be committed."""
    nb = json.loads(path.read_text(encoding='utf-8'))
    code = [c for c in nb['cells'] if c['cell_type'] == 'code']
    assert set(nb['metadata']) == {'kernelspec'} and any(c['outputs'] for c in code)
    assert not [c for c in code if c['execution_count'] or set(c['metadata']) - {'jupyter'}]


@pytest.mark.skipif(
    not CHROMIUM, reason='no Chromium on this machine (`apt install chromium`): JupyterLab is not tested here'
)
def test_a_lesson_runs_from_top_to_bottom(lab, tmp_path):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
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
        page.goto(f'{lab}lab/tree/{LESSON}')
        page.wait_for_selector('.jp-Notebook h1:has-text("Bytes")', timeout=90_000)
        idle = '.jp-Notebook-ExecutionIndicator[data-status=idle]'
        page.wait_for_selector(idle, state='attached', timeout=90_000)  # a kernel was chosen, nobody was asked
        assert not page.locator('.jp-Dialog').count()
        page.click('.lm-MenuBar-item:has-text("Run")')
        page.click('.lm-Menu-item:has-text("Run All Cells") >> nth=0')
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
        assert prompts == open_cells(ROOT / 'nbs' / LESSON)  # each once, in order
        page.wait_for_selector(idle, state='attached', timeout=90_000)  # folded cells have run, too
        assert not page.locator('[data-mime-type="application/vnd.jupyter.error"]').count()
        last = page.locator(f'{panel} .jp-OutputArea-output').last
        assert 'unpack requires a buffer of 42 bytes' in last.inner_text()
        saved = tmp_path / 'nbs' / LESSON
        before = saved.stat().st_mtime_ns
        page.keyboard.press('Control+s')
        while saved.stat().st_mtime_ns == before and time.monotonic() < deadline:
            page.wait_for_timeout(200)
        assert_clean(saved)
        assert not elsewhere and not errors, (elsewhere, errors)
        browser.close()
