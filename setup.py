"""Everything about the package is read from `settings.ini`; this file only hands it to setuptools."""
from configparser import ConfigParser
from pathlib import Path

import setuptools

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='])
parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']

STATUSES = {'1': '1 - Planning', '2': '2 - Pre-Alpha', '3': '3 - Alpha', '4': '4 - Beta', '5': '5 - Production/Stable'}
EXTRAS = ['protobuf', 'parquet', 's3', 'dask', 'icevision', 'zenml', 'dev', 'docs', 'lessons', 'bench']
PYTHONS = ['3.10', '3.11', '3.12', '3.13', '3.14']

extras = {name: cfg[f'{name}_requirements'].split() for name in EXTRAS}
extras['all'] = sorted({req for reqs in extras.values() for req in reqs})

setuptools.setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=(here/'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    url=cfg['git_url'],
    author=cfg['author'],
    author_email=cfg['author_email'],
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords=cfg['keywords'].split(),
    classifiers=[
        f"Development Status :: {STATUSES[cfg['status']]}",
        f"Intended Audience :: {cfg['audience']}",
        'Framework :: Jupyter',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Education',
        f"Natural Language :: {cfg['language']}",
        *(f'Programming Language :: Python :: {version}' for version in PYTHONS),
    ],
    packages=setuptools.find_packages(include=['redaction_serde', 'redaction_serde.*']),
    package_data={'redaction_serde': ['*.proto', 'py.typed']},
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg['requirements'].split(),
    extras_require=extras,
    entry_points={
        'console_scripts': cfg['console_scripts'].split(),
        'nbdev': [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"],
    },
    zip_safe=False,
)
