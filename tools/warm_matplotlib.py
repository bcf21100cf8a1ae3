"""matplotlib for the processes of `warm.py`: imported and set aside.

It reads the name of its backend from the environment when it is imported, and a kernel puts that there when it starts.
"""

import os

import matplotlib.pyplot  # noqa: F401
from set_aside import SetAside

_ANY = matplotlib.rcsetup._auto_backend_sentinel  # what stands for a backend that is chosen with the first figure


def choose_backend():
    """Take the backend that the environment of this process names, as matplotlib does when it is imported."""
    matplotlib.rcParams['backend'] = os.environ.get('MPLBACKEND') or _ANY


SetAside('matplotlib', again=choose_backend)
