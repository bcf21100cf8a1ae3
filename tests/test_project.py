"""The project keeps its own house: exports, notebooks, README, wheel, imports, workflows, set-up."""

import ast
import base64
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import set_up
from notebooks import ROOT, notebooks, part_of
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BIN = Path(sys.executable).parent
NOTEBOOKS = notebooks()
MACHINE_PATHS = re.compile(r'/(?:home|root|Users|tmp|var/folders|work)/|[A-Z]:\\\\')


def run(*command, cwd=ROOT, **kw):
    return subprocess.run(
        [str(c) for c in command], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, **kw
    )


@pytest.fixture
def copy(tmp_path):
    """A copy of the sources, to try things on."""
    for name in ('nbs', 'redaction_serde'):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
        )
    for name in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'MANIFEST.in'):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def texts(folder, pattern):
    """The files of a whole tree by their paths in it."""
    return {p.relative_to(folder).as_posix(): p.read_text(encoding='utf-8') for p in sorted(folder.rglob(pattern))}


def is_written_by_hand(name, text):
    """Is a module of the package no export of a notebook? nbdev makes those `__init__` files that are not there, and they are empty."""
    return name in ('__init__.py', 'document_pb2.py') or name.endswith('/__init__.py') and text != ''


def test_export_leaves_no_difference(copy):
    package = copy / 'redaction_serde'
    before = texts(package, '*.py')
    for name, text in before.items():
        if not is_written_by_hand(name, text):
            (package / name).unlink()
    done = run(BIN / 'nbdev_export', cwd=copy)
    assert done.returncode == 0, done.stderr
    assert texts(package, '*.py') == before


def test_notebooks_are_clean(copy):
    before = texts(copy / 'nbs', '*.ipynb')
    assert list(before) == list(NOTEBOOKS)
    assert run(BIN / 'nbdev_clean', cwd=copy).returncode == 0
    assert texts(copy / 'nbs', '*.ipynb') == before


def outputs(path):
    for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
        for output in cell.get('outputs', []):
            yield cell, output


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_stored_outputs_are_fit_to_publish(name):
    for cell, output in outputs(NOTEBOOKS[name]):
        assert output['output_type'] != 'error'
        assert not MACHINE_PATHS.search(
            json.dumps({k: v for k, v in output.get('data', output).items() if not k.startswith('image/')})
        )
        for kind, data in output.get('data', {}).items():
            if kind in ('image/png', 'image/jpeg'):
                assert len(base64.b64decode(''.join(data))) < 150_000, ''.join(cell['source'])


def test_readme_is_in_step():
    done = run(sys.executable, 'tools/readme.py', '--check')
    assert done.returncode == 0, done.stderr


def test_readme_lists_every_lesson():
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    table = [line for line in text.splitlines() if line.startswith('| [')]
    for name in notebooks():
        assert part_of(name) != 'learn' or any(f'](nbs/{name})' in line for line in table), name


def test_readme_links_lead_somewhere():
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    links = [link for link in re.findall(r'\]\(([^)\s]+)\)', text) if not link.startswith(('http', '#'))]
    assert len(links) > 5
    assert not [link for link in links if not (ROOT / link.partition('#')[0]).exists()]


def headings(path):
    """The anchors that Jupyter gives the headings of a notebook."""
    for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
        if cell['cell_type'] != 'markdown':
            continue
        for title in re.findall(r'^#+ (.+)$', ''.join(cell['source']), re.M):
            yield re.sub(r'[`*]', '', title).strip().replace(' ', '-')


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_links_of_notebooks_lead_somewhere(name):
    """As JupyterLab and GitHub follow them: from the notebook's own folder, to the heading as it is spelt there."""
    broken = []
    for cell in json.loads(NOTEBOOKS[name].read_text(encoding='utf-8'))['cells']:
        if cell['cell_type'] != 'markdown':
            continue
        prose = re.sub(r'^```.*?^```$', '', ''.join(cell['source']), flags=re.M | re.S)
        for link in re.findall(r'\]\(([^)\s]+)\)', prose):
            if link.startswith(('http', 'mailto:')):
                continue
            file, _, anchor = link.partition('#')
            target = (NOTEBOOKS[name].parent / file).resolve() if file else NOTEBOOKS[name]
            if (
                not target.exists()
                or anchor
                and target.suffix == '.ipynb'
                and unquote(anchor) not in set(headings(target))
            ):
                broken.append(link)
    assert not broken


def test_wheel_installs_in_an_empty_environment(copy, tmp_path):
    """The wheel that a source distribution makes: what is not in the one is in neither."""
    done = run(sys.executable, 'setup.py', '-q', 'sdist', '-d', tmp_path / 'source', cwd=copy)
    assert done.returncode == 0, done.stderr
    (source,) = (tmp_path / 'source').glob('*.tar.gz')
    make = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-q', '-w', tmp_path / 'wheels']
    done = run(*make, source)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / 'wheels').glob('*.whl')
    assert run(sys.executable, '-m', 'venv', tmp_path / 'empty').returncode == 0
    python = tmp_path / 'empty' / 'bin' / 'python'
    done = run(
        python, '-m', 'pip', 'install', '-q', '--disable-pip-version-check', '-c', ROOT / 'constraints.txt', wheel
    )
    assert done.returncode == 0, done.stderr
    done = run(
        python,
        '-c',
        'import redaction_serde as rs; from redaction_serde.document import Document, Header; from redaction_serde.wire.registry import encode; print(rs.__version__, len(dir(rs)) > 10, encode(Document(Header(), []))[:31])',
        cwd=tmp_path,
    )
    assert done.stdout.startswith('0.2.0 True'), done.stderr
    assert run(tmp_path / 'empty' / 'bin' / 'redaction-serde', '--help').returncode == 0
    done = run(python, '-c', 'import redaction_serde as rs; rs.save', cwd=tmp_path)
    assert 'icevision' in done.stderr and 'pip install' in done.stderr
    done = run(
        python,
        '-c',
        'import redaction_serde, pathlib; print((pathlib.Path(redaction_serde.__file__).parent/"py.typed").exists())',
        cwd=tmp_path,
    )
    assert done.stdout.strip() == 'True'


LESSONS_ROOM = 'redaction_serde.lessons'
LAZILY = {
    'redaction_serde/cli.py': 'pages',
    'redaction_serde/pipelines.py': 'toys',
}  # the demo, and the names of the article


def imports_of(path):
    """(full name of what a module of the package imports, whether that is inside of a function)."""
    package = path.relative_to(ROOT).with_suffix('').parts[:-1]
    tree = ast.parse(path.read_text(encoding='utf-8'))
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = '.'.join(package[: len(package) - node.level + 1]) if node.level else ''
            module = '.'.join(filter(None, [start, node.module]))
            names = [f'{module}.{a.name}' for a in node.names]
        else:
            continue
        for name in names:
            yield name, id(node) in inside


def test_the_product_does_not_know_the_lessons():
    """Only the demo makes pages, and only old names of the article lead to toys; both when they are asked for."""
    found = {}
    for path in sorted((ROOT / 'redaction_serde').rglob('*.py')):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith('redaction_serde/lessons/') or is_written_by_hand(
            name.removeprefix('redaction_serde/'), path.read_text()
        ):
            continue
        for imported, lazily in imports_of(path):
            if not imported.startswith(LESSONS_ROOM):
                continue
            assert lazily, (name, imported)
            found[name] = imported.removeprefix(f'{LESSONS_ROOM}.').partition('.')[0]
    assert found == LAZILY


@pytest.mark.parametrize(
    'old, new, name',
    [('documents', 'pages', 'make_documents'), ('cases', 'cases', 'CASES'), ('hexdump', 'hexdump', 'hexdump')],
)
def test_old_names_of_rooms_lead_to_the_lessons(old, new, name):
    before, after = (importlib.import_module(f'redaction_serde.{module}') for module in (old, f'lessons.{new}'))
    assert before.__all__ == after.__all__ and getattr(before, name) is getattr(after, name)


def test_front_door():
    import redaction_serde as rs
    from redaction_serde import fidelity, records

    assert rs.save is records.save and rs.compare is fidelity.compare
    assert set(rs.__all__) <= set(dir(rs))
    assert all(getattr(rs, name) is not None for name in rs.__all__)
    with pytest.raises(AttributeError):
        rs.no_such_name


def test_front_door_says_the_same_to_type_checkers():
    """What is imported for a type checker, and what is fetched when a name is used, are the same names from the same rooms."""
    import redaction_serde as rs

    tree = ast.parse((ROOT / 'redaction_serde' / '__init__.py').read_text('utf-8'))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING')
    typed = {alias.name: node.module.removeprefix('redaction_serde.') for node in block.body for alias in node.names}
    assert typed == rs._ROOM_OF
    other = next(
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == 'not TYPE_CHECKING'
    )
    assert [node.name for node in other.body] == ['__getattr__']  # else a type checker would find any name at all


FOR_GITHUB = {  # files and their schema
    **{path: 'github-workflows' for path in (ROOT / '.github' / 'workflows').glob('*')},
    **{path: 'github-issue-forms' for path in (ROOT / '.github' / 'ISSUE_TEMPLATE').glob('*.yaml')},
    ROOT / '.github' / 'ISSUE_TEMPLATE' / 'config.yml': 'github-issue-config',
    ROOT / 'CITATION.cff': 'citation-file-format',
}


@pytest.mark.parametrize('path', sorted(FOR_GITHUB), ids=lambda path: path.name)
def test_files_for_github_are_valid(path):
    done = run(BIN / 'check-jsonschema', '--builtin-schema', f'vendor.{FOR_GITHUB[path]}', path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('path', sorted((ROOT / '.github' / 'workflows').glob('*')), ids=lambda path: path.name)
def test_actions_are_pinned_by_hash(path):
    used = re.findall(r'uses: (\S+)(.*)', path.read_text(encoding='utf-8'))
    assert used
    for action, comment in used:
        assert re.fullmatch(r'[\w-]+/[\w-]+@[0-9a-f]{40}', action), action
        assert re.fullmatch(r'  # v\d+\.\d+\.\d+', comment), f'{action} does not say which version it is'


def test_citation_and_package_are_of_one_version():
    cited = re.search(r'^version: (\S+)$', (ROOT / 'CITATION.cff').read_text(encoding='utf-8'), re.M)
    assert cited[1] == importlib.import_module('redaction_serde').__version__


@pytest.mark.parametrize(
    'case, words',
    [
        (dict(version=(3, 8)), ['needs Python 3.10 to 3.14', 'is 3.8', 'make demo PYTHON=']),
        (dict(version=(3, 15)), ['needs Python 3.10 to 3.14', 'is 3.15']),
        (dict(version=(3, 11), executable='/bin/false'), ['venv', 'python3.11-venv']),
        (dict(version=(3, 11), free_gb=1.0, environ={}), ['GB of free disk', '1.0 GB', 'PIP_EXTRA_INDEX_URL']),
        (
            dict(version=(3, 11), free_gb=100, environ={'LOCKED': '1', 'PIP_EXTRA_INDEX_URL': set_up.CPU_INDEX}),
            ['LOCKED=1', 'CPU builds', 'leave out'],
        ),
    ],
    ids=['old', 'new', 'no venv', 'disk', 'locked and CPU'],
)
def test_set_up_says_what_is_wrong(case, words, monkeypatch, tmp_path):
    monkeypatch.setattr(set_up, 'VENV', str(tmp_path))
    message = set_up.trouble(**case)
    assert '\n' not in message
    assert all(word in message for word in words), message


def test_set_up_is_content_with_this_machine():
    assert set_up.trouble(free_gb=100) is None


def test_set_up_says_first_what_it_will_download():
    default = set_up.announcement({})
    small = set_up.announcement({'PIP_EXTRA_INDEX_URL': set_up.CPU_INDEX})
    locked = set_up.announcement({'LOCKED': '1'})
    assert '3.6 GB' in default and f'PIP_EXTRA_INDEX_URL={set_up.CPU_INDEX}' in default
    assert '0.8 GB' in small and 'CUDA' not in small
    assert '3.6 GB' in locked and 'requirements.lock' in locked and 'leave out LOCKED=1' in locked
    assert set_up.announcement({'LOCKED': '0'}) == default


@pytest.mark.parametrize('uv', [None, '/somewhere/uv'])
def test_a_locked_set_up_installs_nothing_without_a_hash(uv, monkeypatch):
    stages = []
    monkeypatch.setattr(set_up, 'run', lambda text, command: stages.append(command))
    monkeypatch.setattr(shutil, 'which', lambda name: uv)
    set_up.install_locked(['pip', 'install'], 'python')
    packages, ours = stages
    assert packages[0] == uv if uv else packages[0] == 'pip'
    assert {'--require-hashes', '--no-deps', '--only-binary', 'requirements.lock'} <= set(packages)
    assert ours[-1] == '.' and {'--no-deps', '--no-build-isolation'} <= set(ours)


def test_set_up_reports_a_failing_stage(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(set_up, 'LOG', str(tmp_path / 'log'))
    with pytest.raises(SystemExit) as e:
        set_up.run('failing', [sys.executable, '-c', 'print("the reason"); raise SystemExit(3)'])
    assert 'the reason' in capsys.readouterr().out and 'stopped' in str(e.value)


def pins(name):
    """The requirements in a file of pins, without their hashes."""
    lines = (ROOT / name).read_text(encoding='utf-8').splitlines()
    return [Requirement(line.rstrip('\\ ')) for line in lines if re.match(r'\w', line)]


def versions_on(requirements, python):
    """{package: version} of those that a Python on Linux takes."""
    linux = {'sys_platform': 'linux', 'platform_system': 'Linux', 'platform_machine': 'x86_64', 'os_name': 'posix'}
    environment = {**linux, 'python_version': python, 'python_full_version': f'{python}.1'}
    here = [r for r in requirements if r.marker is None or r.marker.evaluate(environment)]
    return {canonicalize_name(r.name): str(r.specifier) for r in here}


BESIDE = re.compile(
    r'icevision|triton|(cuda|nvidia)-.*'
)  # set-up has icevision's version; the others follow from torch


@pytest.mark.parametrize('python', ['3.10', '3.11', '3.12', '3.13', '3.14'])
def test_lock_and_constraints_have_the_same_versions(python):
    constraints = versions_on(pins('constraints.txt'), python)
    lock = versions_on(pins('requirements.lock'), python)
    assert {name: lock[name] for name in lock.keys() & constraints.keys()}.items() <= constraints.items(), 'make lock'
    assert [name for name in lock.keys() - constraints.keys() if not BESIDE.fullmatch(name)] == []
    assert set_up.ICEVISION == f'icevision{lock["icevision"]}'


def test_every_constraint_is_in_the_lock_and_every_requirement_too():
    lock = pins('requirements.lock')
    names = {canonicalize_name(r.name) for r in lock}
    assert {canonicalize_name(r.name) for r in pins('constraints.txt')} - names == set()
    settings = ConfigParser(delimiters=['='])
    settings.read(ROOT / 'settings.ini', encoding='utf-8')
    keys = [key for key in settings['DEFAULT'] if key.endswith('requirements')]
    for requirement in [Requirement(r) for key in keys for r in settings['DEFAULT'][key].split()]:
        found = [r for r in lock if canonicalize_name(r.name) == canonicalize_name(requirement.name)]
        assert found, f'{requirement} is not in requirements.lock: make lock'
        for pin in found:
            [version] = pin.specifier
            assert requirement.specifier.contains(version.version), f'{pin} is not {requirement}'


def test_every_pin_of_the_lock_has_hashes():
    text = (ROOT / 'requirements.lock').read_text(encoding='utf-8')
    entries = re.split(r'\n(?=\w)', text.split('#    make lock\n')[1])
    assert len(entries) == len(pins('requirements.lock'))
    assert [e for e in entries if not re.search(r'--hash=sha256:[0-9a-f]{64}', e)] == []


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with our settings for git and one notebook on two branches, `main` and `other`; its folder is where set-up works."""
    for name in ('.gitconfig', '.gitattributes'):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / '.venv').symlink_to(sys.prefix)
    monkeypatch.setattr(set_up, 'HERE', str(tmp_path))
    git = Git(tmp_path)
    git('init', '-q', '-b', 'main')
    git.write('one', 'two')
    git('branch', 'other')
    return git


class Git:
    """Commands in a repository of its own, with nothing of the user's settings."""

    def __init__(self, folder):
        self.folder, self.notebook = folder, folder / 'n.ipynb'

    def __call__(self, *command):
        env = {**os.environ, 'GIT_CONFIG_GLOBAL': os.devnull, 'GIT_CONFIG_NOSYSTEM': '1'}
        names = [o for key in ('user.name', 'user.email') for o in ('-c', f'{key}=a')]
        return run('git', *names, *command, cwd=self.folder, env=env)

    def write(self, *sources):
        cells = [
            dict(cell_type='code', execution_count=None, id=f'cell-{i}', metadata={}, outputs=[], source=[s])
            for i, s in enumerate(sources)
        ]
        self.notebook.write_text(
            json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5), indent=1) + '\n'
        )
        self('add', 'n.ipynb', '.gitconfig', '.gitattributes')
        return self('commit', '-qm', 'a change')


def test_set_up_tells_git_of_our_file_and_keeps_what_the_user_has(checkout):
    checkout('config', '--local', 'include.path', 'of-the-user')
    for _ in range(2):
        set_up.tell_git()
    assert checkout('config', '--local', '--get-all', 'include.path').stdout.split() == ['of-the-user', '../.gitconfig']
    assert [p.name for p in (checkout.folder / '.git' / 'hooks').glob('*') if p.suffix != '.sample'] == []


def test_set_up_leaves_git_alone_outside_of_a_checkout(checkout, monkeypatch):
    inside = checkout.folder / 'unpacked'
    inside.mkdir()
    monkeypatch.setattr(set_up, 'HERE', str(inside))
    set_up.tell_git()
    assert checkout('config', '--local', '--get-all', 'include.path').stdout == ''


def test_a_conflict_in_a_notebook_is_one_of_cells(checkout):
    set_up.tell_git()
    checkout.write('one', 'ours')
    checkout('checkout', '-q', 'other')
    checkout.write('one', 'theirs')
    done = checkout('merge', 'main')
    assert done.returncode and 'CONFLICT' in done.stdout, done
    sources = [''.join(c['source']) for c in json.loads(checkout.notebook.read_text())['cells']]  # still a notebook
    assert [s for s in sources if s in ('one', 'ours', 'theirs')] == ['one', 'theirs', 'ours'] and '<<<<<<<' in sources[
        1
    ]


def test_git_merges_notebooks_without_our_environment(checkout):
    set_up.tell_git()
    (checkout.folder / '.venv').unlink()
    checkout.write('one', 'two', 'three')
    checkout('checkout', '-q', 'other')
    checkout.write('ONE', 'two')
    assert checkout('merge', 'main', '-m', 'both').returncode == 0
    assert [''.join(c['source']) for c in json.loads(checkout.notebook.read_text())['cells']] == ['ONE', 'two', 'three']


def test_the_protobuf_module_is_made_from_its_schema(tmp_path):
    done = run(
        sys.executable,
        '-m',
        'grpc_tools.protoc',
        '-I.',
        f'--python_out={tmp_path}',
        'redaction_serde/document.proto',
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    name = 'redaction_serde/document_pb2.py'
    assert (tmp_path / name).read_text() == (ROOT / name).read_text(), 'run `make proto`'


# ---------------------------------------------------------------- lint, format, types

FORMATTED = ('nbs', 'tests', 'tools', 'bench', 'docs')


def test_lint():
    done = run(BIN / 'ruff', 'check', '--no-cache', '.')
    assert done.returncode == 0, done.stdout


def test_format():
    """Of everything but the exported package, which looks as its notebooks do."""
    done = run(BIN / 'ruff', 'format', '--check', '--no-cache', *FORMATTED)
    assert done.returncode == 0, done.stdout


def test_types(tmp_path):
    done = run(BIN / 'mypy', '--cache-dir', tmp_path, 'redaction_serde')
    assert done.returncode == 0, done.stdout
