"""Are the lower ends of the ranges in settings.ini right? `make lowest` calls this.

Installs the oldest packages that the base install and its extras `protobuf`, `parquet` and `icevision` allow into .venv-lowest,
and runs the tests of the product with them.
"""

import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv-lowest'
PYTHON = VENV / 'bin' / 'python'
RANGES = ['requirements', 'protobuf_requirements', 'parquet_requirements', 'icevision_requirements']
TOOLS = ['pytest', 'pytest-timeout', 'pytest-xdist', 'hypothesis', 'setuptools<81']
TESTS = ['round_trip', 'components', 'values', 'losses', 'limits', 'hostile', 'coco', 'properties']


def ranges():
    """The requirements, as they stand in settings.ini."""
    parser = ConfigParser(delimiters=['='])
    parser.read(ROOT / 'settings.ini', encoding='utf-8')
    return [requirement for name in RANGES for requirement in parser['DEFAULT'][name].split()]


def uv(*words):
    """Run uv, which can resolve to the oldest versions where pip cannot."""
    subprocess.run([Path(sys.executable).with_name('uv'), *words], check=True, cwd=ROOT)


def main():
    uv('venv', '--quiet', '--clear', '--python', sys.executable, VENV)
    install = ['pip', 'install', '--quiet', '--python', PYTHON]
    uv(*install, '--resolution', 'lowest-direct', *ranges())
    uv(*install, *TOOLS)
    uv(*install, '--no-deps', 'icevision==0.12.0', '-e', '.')
    uv('pip', 'list', '--python', PYTHON)
    tests = [f'tests/test_{name}.py' for name in TESTS]
    done = subprocess.run([PYTHON, '-m', 'pytest', '-q', '-n', '2', '-p', 'no:cacheprovider', *tests], cwd=ROOT)
    sys.exit(done.returncode)


if __name__ == '__main__':
    main()
