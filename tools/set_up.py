"""Make .venv with everything in it, or say in one line why that is not possible. `make demo` and `make test` call this.

Runs on any Python 3, far enough to say that it is too old.
"""

import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(HERE, '.venv')
LOG = os.path.join(HERE, '.setup.log')
OLDEST, NEWEST = (3, 10), (3, 14)
ICEVISION = 'icevision==0.12.0'
CPU_INDEX = 'https://download.pytorch.org/whl/cpu'
# Measured on Linux, x86_64, Python 3.11. .venv takes 7.6 and 3.1 GB; while pip works it also holds every file that it has
# downloaded. What it keeps in its own cache, outside of this folder, is not counted.
DOWNLOADS_GB = {'cuda': 3.6, 'cpu': 0.8}
NEEDS_GB = {'cuda': 12, 'cpu': 4}


def index_kind(environ=os.environ):
    """'cpu' if the user has chosen PyTorch's CPU builds, else 'cuda'."""
    return 'cpu' if '/whl/cpu' in environ.get('PIP_EXTRA_INDEX_URL', '') + environ.get('PIP_INDEX_URL', '') else 'cuda'


def is_locked(environ=os.environ):
    """Has the user asked for requirements.lock, where every file has its hash?"""
    return environ.get('LOCKED', '') not in ('', '0')


def trouble(version=sys.version_info, executable=sys.executable, free_gb=None, environ=os.environ):
    """What keeps this machine from being set up: one line, or None."""
    found = tuple(version[:2])
    if not OLDEST <= found <= NEWEST:
        return (
            'needs Python %d.%d to %d.%d, but %s is %d.%d: install one and say which, for example `make demo PYTHON=python3.12`'
            % (OLDEST + NEWEST + (executable,) + found)
        )
    if not has_venv(executable):
        return (
            'this Python cannot make virtual environments: install its venv module (on Debian and Ubuntu: '
            '`apt install python%d.%d-venv`) and try again' % found
        )
    if is_locked(environ) and index_kind(environ) == 'cpu':
        return (
            'LOCKED=1 knows the hashes of the default package index, and the CPU builds of PyTorch are other files: '
            'leave out LOCKED=1, or leave out the index'
        )
    free = shutil.disk_usage(HERE).free / 1e9 if free_gb is None else free_gb
    needed = NEEDS_GB[index_kind(environ)]
    if free < needed and not os.path.exists(os.path.join(VENV, 'bin', 'redaction-serde')):
        hint = (
            ''
            if index_kind(environ) == 'cpu'
            else ', or take the smaller CPU build: `PIP_EXTRA_INDEX_URL=%s make demo`' % CPU_INDEX
        )
        return 'needs about %d GB of free disk, but there are %.1f GB: free some%s' % (needed, free, hint)


def announcement(environ=os.environ):
    """What will be downloaded, and how it could be less or surer."""
    kind = index_kind(environ)
    lines = ['set-up: will download about %.1f GB, in the versions of constraints.txt.' % DOWNLOADS_GB[kind]]
    if kind == 'cuda':
        lines.append('PyTorch comes as a CUDA build, which runs on any CPU. On 2 busy cores all this took 7 minutes.')
    if is_locked(environ):
        lines.append('LOCKED=1: only files whose hash is in requirements.lock are installed. If your package index')
        lines.append('has other files than PyPI, their hashes do not fit: leave out LOCKED=1 then.')
    elif kind == 'cuda':
        lines.append('For the small CPU build stop here and say: PIP_EXTRA_INDEX_URL=%s make demo' % CPU_INDEX)
    return '\n        '.join(lines)


def has_venv(executable):
    return (
        subprocess.call(
            [executable, '-c', 'import venv, ensurepip'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        == 0
    )


def run(text, command):
    """One stage of the set-up: its output goes to the log, and the log's end to the screen if it fails."""
    sys.stdout.write('set-up: %s ... ' % text)
    sys.stdout.flush()
    start = time.time()
    with open(LOG, 'a') as log:
        log.write('\n$ %s\n' % ' '.join(command))
        log.flush()
        status = subprocess.call(command, stdout=log, stderr=subprocess.STDOUT, cwd=HERE)
    print('%.0f s' % (time.time() - start) if status == 0 else 'failed')
    if status:
        with open(LOG) as log:
            print('\n'.join('    ' + line.rstrip() for line in log.readlines()[-12:]))
        sys.exit(
            'set-up: stopped. The whole log is in %s. If the network was the reason, the same command goes on where this one ended.'
            % os.path.relpath(LOG)
        )


def tell_git():
    """Make git read .gitconfig, which says how notebooks are merged. Only in a checkout: an unpacked archive is none, even inside of one."""
    if not os.path.exists(os.path.join(HERE, '.git')) or not shutil.which('git'):
        return
    # as `git config --local include.path ../.gitconfig`, but without touching other files that the user includes
    command = ['git', 'config', '--local', '--replace-all', 'include.path', '../.gitconfig', r'^\.\./\.gitconfig$']
    if subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=HERE):
        print(
            'set-up: git keeps merging notebooks as plain text, because it would not take `include.path ../.gitconfig`'
        )


def install(pip):
    """Versions from constraints.txt, from whatever index the user's pip has."""
    run('installing packages (constraints.txt)', pip + ['-c', 'constraints.txt', '-e', '.[all]'])
    run('installing %s without its list of requirements, which is of 2021' % ICEVISION, pip + ['--no-deps', ICEVISION])


def install_locked(pip, python):
    """The same versions, but only wheels whose hash stands in requirements.lock: nothing is resolved, nothing is built.

    By uv where the user has it, which takes a fraction of the time and of the disk; it reads its own settings, not pip's.
    """
    uv = shutil.which('uv')
    # pip compiles what it installs and uv does not, unless it is told to; then every first import would have to do it
    install = [uv, 'pip', 'install', '--compile-bytecode', '--python', python] if uv else pip
    exact = ['--no-deps', '--only-binary', ':all:', '--require-hashes', '-r', 'requirements.lock']
    run('installing packages by %s, each with its hash (requirements.lock)' % ('uv' if uv else 'pip'), install + exact)
    run('installing this package', pip + ['--no-deps', '--no-build-isolation', '-e', '.'])


def main():
    message = trouble()
    if message:
        sys.exit('set-up: ' + message)
    print(announcement())
    if os.path.exists(LOG):
        os.remove(LOG)
    python = os.path.join(VENV, 'bin', 'python')
    run('making .venv with %s' % os.path.basename(sys.executable), [sys.executable, '-m', 'venv', VENV])
    pip = [python, '-m', 'pip', 'install', '--disable-pip-version-check', '--no-input']
    if is_locked():
        install_locked(pip, python)
    else:
        install(pip)
    run('trying it', [python, '-c', 'from redaction_serde.compat import prepare_icevision; print(prepare_icevision())'])
    tell_git()
    with open(os.path.join(VENV, '.ready'), 'w') as f:
        f.write('set up with %s\n' % sys.version)
    os.remove(LOG)


if __name__ == '__main__':
    main()
