"""Make requirements.lock from constraints.txt: the same versions with the hashes of their files. `make lock` calls this.

Change constraints.txt first; this only looks up hashes, and what PyTorch's CUDA build and other systems need beside it.
"""

import subprocess
import sys
from pathlib import Path

from set_up import ICEVISION

ROOT = Path(__file__).resolve().parent.parent
OLDEST = '3.10'


def main():
    compile_ = [Path(sys.executable).with_name('uv'), 'pip', 'compile', '--quiet', 'setup.py', '-', '--extra', 'all']
    versions = ['--constraint', 'constraints.txt', '--universal', '--python-version', OLDEST]
    # pip itself is already there when the lock is installed
    text = ['--generate-hashes', '--no-annotate', '--no-emit-package', 'pip', '--custom-compile-command', 'make lock']
    out = ['--output-file', 'requirements.lock']
    subprocess.run([*compile_, *versions, *text, *out], input=ICEVISION, text=True, check=True, cwd=ROOT)


if __name__ == '__main__':
    main()
