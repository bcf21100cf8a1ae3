"""The project keeps its own house: exports, notebooks, README, wheel, imports, workflows, set-up."""
import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import set_up

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
NOTEBOOKS = sorted((ROOT/'nbs').glob('*.ipynb'))
MACHINE_PATHS = re.compile(r'/(?:home|root|Users|tmp|var/folders|work)/|[A-Z]:\\\\')


def run(*command, cwd=ROOT, **kw):
    return subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, **kw)


@pytest.fixture
def copy(tmp_path):
    """A copy of the sources, to try things on."""
    for name in ('nbs', 'redaction_serde'): shutil.copytree(ROOT/name, tmp_path/name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    for name in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE'): shutil.copy(ROOT/name, tmp_path/name)
    return tmp_path


def texts(folder, pattern): return {p.name: p.read_text(encoding='utf-8') for p in sorted(folder.glob(pattern))}


def test_export_leaves_no_difference(copy):
    for path in (copy/'redaction_serde').glob('*.py'):
        if path.name not in ('__init__.py', 'document_pb2.py'): path.unlink()
    done = run(BIN/'nbdev_export', cwd=copy)
    assert done.returncode == 0, done.stderr
    assert texts(copy/'redaction_serde', '*.py') == texts(ROOT/'redaction_serde', '*.py')


def test_notebooks_are_clean(copy):
    before = texts(copy/'nbs', '*.ipynb')
    assert run(BIN/'nbdev_clean', cwd=copy).returncode == 0
    assert texts(copy/'nbs', '*.ipynb') == before


def outputs(path):
    for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
        for output in cell.get('outputs', []): yield cell, output


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_stored_outputs_are_fit_to_publish(path):
    for cell, output in outputs(path):
        assert output['output_type'] != 'error'
        assert not MACHINE_PATHS.search(json.dumps({k: v for k, v in output.get('data', output).items() if not k.startswith('image/')}))
        for kind, data in output.get('data', {}).items():
            if kind in ('image/png', 'image/jpeg'): assert len(base64.b64decode(''.join(data))) < 150_000, ''.join(cell['source'])


def test_readme_is_in_step():
    done = run(sys.executable, 'tools/readme.py', '--check')
    assert done.returncode == 0, done.stderr


def test_readme_links_lead_somewhere():
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    links = [link for link in re.findall(r'\]\(([^)\s]+)\)', text) if not link.startswith(('http', '#'))]
    assert len(links) > 5
    assert not [link for link in links if not (ROOT/link.partition('#')[0]).exists()]


def test_wheel_installs_in_an_empty_environment(copy, tmp_path):
    done = run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-q', '-w', tmp_path/'wheels', copy)
    assert done.returncode == 0, done.stderr
    wheel, = (tmp_path/'wheels').glob('*.whl')
    assert run(sys.executable, '-m', 'venv', tmp_path/'empty').returncode == 0
    python = tmp_path/'empty'/'bin'/'python'
    done = run(python, '-m', 'pip', 'install', '-q', '--disable-pip-version-check', '-c', ROOT/'constraints.txt', wheel)
    assert done.returncode == 0, done.stderr
    done = run(python, '-c', 'import redaction_serde as rs, redaction_serde.formats as f; print(rs.__version__, len(dir(rs)) > 10, f.encode(f.Document(f.Header(), []))[:31])', cwd=tmp_path)
    assert done.stdout.startswith('0.1.0 True'), done.stderr
    assert run(tmp_path/'empty'/'bin'/'redaction-serde', '--help').returncode == 0
    done = run(python, '-c', 'import redaction_serde as rs; rs.save', cwd=tmp_path)
    assert 'icevision' in done.stderr and 'pip install' in done.stderr


HEAVY = ('torch', 'icevision', 'zenml', 'matplotlib', 'PIL', 'cv2', 'numpy')


def test_formats_are_light():
    code = ('import sys, time; start = time.perf_counter(); import redaction_serde.formats; seconds = time.perf_counter() - start; '
            f'print(seconds, [m for m in {HEAVY} if m in sys.modules])')
    results = [run(sys.executable, '-c', code).stdout.split(maxsplit=1) for _ in range(5)]
    assert all(found.strip() == '[]' for _, found in results)
    assert min(float(seconds) for seconds, _ in results) < 0.3


def test_front_door():
    import redaction_serde as rs
    from redaction_serde import fidelity, records
    assert rs.save is records.save and rs.compare is fidelity.compare
    assert set(rs.__all__) <= set(dir(rs))
    with pytest.raises(AttributeError): rs.no_such_name


@pytest.mark.parametrize('path', sorted((ROOT/'.github'/'workflows').glob('*.yaml')), ids=lambda p: p.stem)
def test_workflows_are_valid(path):
    done = run(BIN/'check-jsonschema', '--builtin-schema', 'vendor.github-workflows', path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('case, words', [
    (dict(version=(3, 8)), ['needs Python 3.10 to 3.13', 'is 3.8', 'make demo PYTHON=']),
    (dict(version=(3, 14)), ['needs Python 3.10 to 3.13', 'is 3.14']),
    (dict(version=(3, 11), executable='/bin/false'), ['venv', 'python3.11-venv']),
    (dict(version=(3, 11), free_gb=1.0, environ={}), ['GB of free disk', '1.0 GB', 'PIP_EXTRA_INDEX_URL']),
], ids=['old', 'new', 'no venv', 'disk'])
def test_set_up_says_what_is_wrong(case, words, monkeypatch, tmp_path):
    monkeypatch.setattr(set_up, 'VENV', str(tmp_path))
    message = set_up.trouble(**case)
    assert '\n' not in message
    assert all(word in message for word in words), message


def test_set_up_is_content_with_this_machine():
    assert set_up.trouble(free_gb=100) is None


def test_set_up_reports_a_failing_stage(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(set_up, 'LOG', str(tmp_path/'log'))
    with pytest.raises(SystemExit) as e: set_up.run('failing', [sys.executable, '-c', 'print("the reason"); raise SystemExit(3)'])
    assert 'the reason' in capsys.readouterr().out and 'stopped' in str(e.value)


def test_the_protobuf_module_is_made_from_its_schema(tmp_path):
    done = run(sys.executable, '-m', 'grpc_tools.protoc', '-I.', f'--python_out={tmp_path}', 'redaction_serde/document.proto', cwd=ROOT)
    assert done.returncode == 0, done.stderr
    name = 'redaction_serde/document_pb2.py'
    assert (tmp_path/name).read_text() == (ROOT/name).read_text(), 'run `make proto`'
