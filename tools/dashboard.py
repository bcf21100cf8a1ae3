"""ZenML's own dashboard over one store, on this machine only; and the picture of it that the lesson on materialisation shows.

    python tools/dashboard.py [--store DIR] [--port N]   serves until Ctrl-C; what it shows is not changed
    python tools/dashboard.py --picture                  makes nbs/images/dashboard.png anew (needs Chromium)

The server is started directly and not with `zenml login --local`, which would leave the store's own settings pointing at it.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARTIFACT = 'redacted_pages'


def policy(url):
    """What the browser may load: nothing from elsewhere. No directive ends in a quote, because ZenML 0.98 strips those."""
    sources = {
        'default': url,
        'script': f"{url} 'unsafe-inline' 'unsafe-eval' {url}",
        'connect': url,
        'img': f'{url} data: blob:',
        'style': f"{url} 'unsafe-inline' {url}",
        'font': f'{url} data:',
        'frame': f'{url} data: blob:',
    }
    return '; '.join(
        [*(f'{what}-src {where}' for what, where in sources.items()), f'base-uri {url}', f'form-action {url}']
    )


def settings(store, folder, url):
    """Environment of the server: the database and artifacts of `store`, its own settings in `folder`."""
    return {
        **os.environ,
        'ZENML_SERVER': 'true',
        'ZENML_SERVER_ALLOW_LOCAL_FILE_ACCESS': 'true',
        'ZENML_CONFIG_PATH': folder,
        'ZENML_LOCAL_STORES_PATH': str(store / 'local_stores'),
        'ZENML_SERVER_AUTH_SCHEME': 'NO_AUTH',
        'ZENML_SERVER_DEPLOYMENT_TYPE': 'local',
        'ZENML_SERVER_AUTO_ACTIVATE': 'true',
        'ZENML_SERVER_SECURE_HEADERS_CSP': policy(url),
        'ZENML_SERVER_CORS_ALLOW_ORIGINS': url,
        'ZENML_DISABLE_DATABASE_MIGRATION': 'true',
        'ZENML_ANALYTICS_OPT_IN': 'false',
        'ZENML_LOGGING_VERBOSITY': 'ERROR',
    }


def ask(url, answer=None):
    """The server's reply as an object; with `answer`, that is sent."""
    data = answer and json.dumps(answer).encode()
    with urllib.request.urlopen(
        urllib.request.Request(url, data, {'Content-Type': 'application/json'}, method='PUT' if data else 'GET'),
        timeout=60,
    ) as reply:
        return json.load(reply)


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as s:
        return s.getsockname()[1]


def taken(port):
    with socket.socket() as s:
        return s.connect_ex(('127.0.0.1', port)) == 0


@contextlib.contextmanager
def serve(store, port=None, patience=180):
    """Start the dashboard over a store and yield its address. Exits with one line if there is no store, or if it does not start."""
    store, port = Path(store).absolute(), port or free_port()
    url = f'http://127.0.0.1:{port}'
    if not (store / 'local_stores' / 'default_zen_store' / 'zenml.db').is_file():
        raise SystemExit(f'dashboard: there is no ZenML store in {os.path.relpath(store)}; `make demo` makes one')
    if taken(port):
        raise SystemExit(f'dashboard: port {port} of 127.0.0.1 is taken; choose another one')
    command = [
        sys.executable,
        '-m',
        'uvicorn',
        'zenml.zen_server.zen_server_api:app',
        '--host',
        '127.0.0.1',
        '--port',
        str(port),
        '--log-level',
        'warning',
        '--no-server-header',
    ]
    with tempfile.TemporaryDirectory(prefix='dashboard-') as folder, open(Path(folder) / 'log', 'wb') as log:
        server = subprocess.Popen(
            command,
            env=settings(store, folder, url),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
        )
        try:
            wait_until_ready(server, url, time.monotonic() + patience, Path(folder) / 'log')
            yield url
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()


def wait_until_ready(server, url, deadline, log):
    """Return when the server answers, having answered its survey: no mail, please."""
    while True:
        try:
            urllib.request.urlopen(f'{url}/ready', timeout=5).close()
            break
        except OSError:
            pass
        if server.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(
                'dashboard: ZenML\'s server did not start: '
                + (log.read_text(errors='replace').strip().splitlines() or ['it said nothing'])[-1]
            )
        time.sleep(0.2)
    ask(f'{url}/api/v1/current-user', dict(email_opted_in=False, user_metadata=dict(finished_onboarding_survey=True)))


def run_page(url):
    """Address of the page of the newest run that made a collection."""
    versions = ask(f'{url}/api/v1/artifact_versions?artifact={ARTIFACT}&sort_by=desc:created&size=1')['items']
    if not versions:
        raise SystemExit(f'dashboard: no run in this store has made an artifact {ARTIFACT}')
    run = versions[0]['resources']['producer_pipeline_run_id']
    return f'{url}/projects/default/runs/{run}'


def chromium():
    """Path of a Chromium on this machine, or None."""
    return next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


@contextlib.contextmanager
def browser_page(**options):
    """A page of a headless Chromium. WebGL is off: it would hang screenshots."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=chromium(), args=['--disable-webgl', '--disable-webgl2', '--disable-gpu', '--no-sandbox']
        )
        try:
            yield browser.new_page(**options)
        finally:
            browser.close()


def open_sheet(page, address):
    """Walk from the run's page to the artifact and its contact sheet, as a person would; the picture when it is there."""
    page.goto(address)
    page.get_by_text(ARTIFACT, exact=True).first.click()
    details = page.get_by_role('dialog')
    details.get_by_text('Visualization', exact=True).click()
    sheet, button = (
        details.locator('img[alt="Visualization for artifact"]').first,
        details.get_by_role('button', name='Load Preview').first,
    )
    sheet.or_(button).first.wait_for()
    if button.is_visible():
        button.click()
    sheet.wait_for()
    page.wait_for_function('image => image.complete && image.naturalWidth > 0', arg=sheet.element_handle())
    return sheet


def picture(target=ROOT / 'nbs' / 'images' / 'dashboard.png'):
    """The demo's artifact in the dashboard, under 150 kB."""
    import io
    from PIL import Image

    if not chromium():
        raise SystemExit('dashboard: the picture needs Chromium; on Debian: apt install chromium')
    with tempfile.TemporaryDirectory(prefix='dashboard-') as folder:
        subprocess.run(
            [sys.executable, '-m', 'redaction_serde.cli', 'demo', '--out', f'{folder}/demo'],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
        )
        with serve(f'{folder}/demo/zenml') as url, browser_page(viewport=dict(width=1280, height=800)) as page:
            page.set_default_timeout(60_000)
            open_sheet(page, run_page(url))
            page.wait_for_timeout(1000)  # its panel slides in
            image = Image.open(io.BytesIO(page.screenshot()))
    image.convert('RGB').quantize(128).save(target, optimize=True)
    print(f'{target.relative_to(ROOT)}: {target.stat().st_size} bytes')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--store', default='out/demo/zenml', help='folder of the store (default: out/demo/zenml)')
    parser.add_argument('--port', type=int, help='port on 127.0.0.1 (default: any free one)')
    parser.add_argument('--picture', action='store_true', help='make nbs/images/dashboard.png anew')
    args = parser.parse_args()
    if args.picture:
        return picture()
    print('dashboard: starting, which takes a while …', flush=True)
    with serve(args.store, args.port) as url:
        print(
            f'dashboard: {run_page(url)}\n           click on `{ARTIFACT}`, then on Visualization; Ctrl-C ends it',
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == '__main__':
    main()
