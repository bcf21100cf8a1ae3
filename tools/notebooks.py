"""Which notebooks there are, and which of their cells only import or test. Everything that runs, checks or shows notebooks asks here."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / 'nbs'
IMPORT = (ast.Import, ast.ImportFrom)


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


def is_import(source):
    """Does a cell import, and nothing else? icevision has to be prepared between two imports; that belongs to them."""
    if source.lstrip().startswith(('%', '!')):
        return False
    rest = re.sub(r'^(_ = )?(rs\.)?prepare_icevision\(\);?$', 'import icevision', source, flags=re.M)
    body = ast.parse(rest).body
    return bool(body) and all(isinstance(node, IMPORT) or is_guarded(node) for node in body)


PREPARING = re.compile(
    r'((rs\.)?prepare_(icevision|zenml)\(.*\);?|\w+ = tempfile\.TemporaryDirectory\(\)|place = Path\(folder\.name\))( +#.*)?$'
)


def is_preparing(source):
    """Does a cell make a temporary folder, or prepare what is imported next, and do nothing else? More imports may follow."""
    return all(map(PREPARING.match, source.splitlines()))


def is_guarded(node):
    """Is this an import that some systems lack, with a value in its place?"""
    if not isinstance(node, ast.Try):
        return False
    instead = [line for handler in node.handlers for line in handler.body]
    imports = all(isinstance(line, IMPORT) for line in node.body)
    return imports and all(isinstance(line, ast.Assign) for line in instead) and not node.orelse + node.finalbody


def is_export_list(source):
    """Does a cell name what nbdev exports from elsewhere, and nothing else?"""
    body = ast.parse(source).body
    return bool(body) and all(
        isinstance(node, ast.Assign) and [ast.unparse(name) for name in node.targets] == ['_all_'] for node in body
    )


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
