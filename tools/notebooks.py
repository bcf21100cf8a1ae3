"""Which notebooks there are, and which of their cells are tests. Everything that runs, checks or shows notebooks asks here."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / 'nbs'


def notebooks(folder=NBS):
    """Notebooks anywhere under a folder by their path in it, such as `learn/01_bytes.ipynb`, in this order.

    Files and folders that begin with a dot or an underscore are no notebooks of ours, as for nbdev.
    """
    found = {path.relative_to(folder).as_posix(): path for path in Path(folder).rglob('*.ipynb')}
    return {name: found[name] for name in sorted(found) if not hidden(name)}


def hidden(name):
    """Does a part of this path begin with a dot or an underscore?"""
    return any(part.startswith(('.', '_')) for part in name.split('/'))


def part_of(name):
    """The part of the course that a notebook belongs to, which is its folder; '' for the first page."""
    return name.partition('/')[0] if '/' in name else ''


def is_test(source):
    """Does a cell assert, or call functions named `test_…`, and do nothing else? A reader may unfold it."""
    if source.lstrip().startswith(('%', '!')):
        return False
    body = ast.parse(source).body
    return bool(body) and all(map(_tests, body))


def _tests(node):
    if isinstance(node, (ast.For, ast.With)):
        return all(map(_tests, node.body))
    called = node.value.func if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
    return isinstance(node, ast.Assert) or (isinstance(called, ast.Name) and called.id.startswith('test_'))
