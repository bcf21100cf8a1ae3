"""JupyterLab as `make lab` opens it: on the copy of the first notebook, with the kernel of .venv, nothing asked and nothing sent."""

import json
import os
import sys
from pathlib import Path

from nbdev.clean import clean_nb

root = Path(__file__).resolve().parent.parent
state = root / '.state' / 'lab'

# what a reader would otherwise be asked on the first visit, and what would be fetched
settings = {
    'apputils-extension/notification': {'fetchNews': 'false', 'checkForUpdates': False, 'doNotDisturbMode': True},
    'notebook-extension/tracker': {'windowingMode': 'none'},
}  # every cell is there to be searched
for name, values in settings.items():
    path = state / 'settings' / '@jupyterlab' / f'{name}.jupyterlab-settings'
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(json.dumps(values), encoding='utf-8')

kernel = (
    Path(os.environ.get('IPYTHONDIR') or root / '.state' / 'ipython') / 'profile_default' / 'ipython_kernel_config.py'
)
if not kernel.exists():
    kernel.parent.mkdir(parents=True, exist_ok=True)
    kernel.write_text("c.IPKernelApp.log_level = 'ERROR'\n", encoding='utf-8')

os.environ['JUPYTER_PREFER_ENV_PATH'] = '1'  # the kernel of this environment goes before any that the user has

c = get_config()  # noqa: F821
c.ServerApp.ip = '127.0.0.1'
c.ServerApp.root_dir = str(root / 'lab')  # `make lab NBS=nbs` says another
c.Application.log_level = 'ERROR'  # the address is shown all the same
c.LabApp.default_url = '/lab/tree/index.ipynb'
c.LabApp.user_settings_dir = str(state / 'settings')
c.LabApp.workspaces_dir = str(state / 'workspaces')
c.LabApp.extension_manager = 'readonly'
c.LabApp.news_url = None


def clean_on_save(model, contents_manager, **kwargs):
    """Save a source as `nbdev_clean` leaves it, so that running it without a change of text changes little in the file."""
    is_source = Path(contents_manager.root_dir).name == 'nbs'
    if is_source and model['type'] == 'notebook' and model['content']['nbformat'] == 4:
        clean_nb(model['content'], allowed_cell_metadata_keys=['jupyter'])


c.ContentsManager.pre_save_hook = clean_on_save
c.MappingKernelManager.default_kernel_name = 'python3'

# JupyterLite's kernel is installed for the site; JupyterLab would load it and complain
extensions = state / 'labextensions'
extensions.mkdir(parents=True, exist_ok=True)
for old in extensions.iterdir():
    old.unlink()
for installed in (Path(sys.prefix) / 'share' / 'jupyter' / 'labextensions').glob('*'):
    if installed.name != '@jupyterlite':
        (extensions / installed.name).symlink_to(installed)
c.LabApp.labextensions_path = [str(extensions)]
