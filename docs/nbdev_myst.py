"""Executed nbdev notebooks as MyST notebooks that Sphinx can read. A notebook is known by its path in nbs/, such as `learn/01_bytes.ipynb`.

nbdev's own processors do what they do for every nbdev site (hidden lines and cells, ANSI codes, headings that end with a dash).
What follows them here: directives become cell tags, exported definitions become API entries over their folded source, backticked
names become links, Quarto's callouts become MyST's, and every picture has an alternative text, or the build stops.
"""

import ast
import io
import posixpath
import re
import textwrap
import tokenize
from dataclasses import dataclass, field
from urllib.parse import unquote

import nbformat
from nbdev.doclinks import NbdevLookup
from nbdev.process import NBProcessor
from nbdev.processors import filter_stream_, hide_line, populate_language, rm_header_dash, strip_ansi
from notebooks import is_export_list, is_import, is_preparing, is_test

LIB = 'redaction_serde'
BLOB = 'https://github.com/redaction-serde/redaction_serde/blob/main'
STDLIB = NbdevLookup(strip_libs=(), incl_libs=('nbdev-stdlib', 'nbdev_stdlib'))


def page_name(name):
    """The name of a notebook's page, as nbdev names it: `learn/bytes` for `learn/01_bytes.ipynb`."""
    folder, _, file = name.rpartition('/')
    return posixpath.join(folder, re.sub(r'^\d+[a-zA-Z0-9]*_', '', file.removesuffix('.ipynb').lower()))


def relative(target, page):
    """The way from a page to a file, both by their paths in the site."""
    return posixpath.relpath(target, posixpath.dirname(page) or '.')


@dataclass
class Entry:
    """A public name, as it is documented."""

    kind: str  # function, class, method or data
    name: str  # with its class, if it has one
    signature: str  # with the parentheses
    doc: str = ''
    params: dict = field(default_factory=dict)  # what its docments say
    returns: str = ''
    members: list = field(default_factory=list)
    property: bool = False


# -- entries from source -----------------------------------------------------------------------------------------------


def comments_of(source):
    """Docments of a function: names to the comments on their lines, and `return` to the one at the end of its head.

    fastcore's own `docments` wants the function, and so its module with all that it imports; this only wants the text.
    """
    node = ast.parse(source).body[0]
    says = {
        t.start[0]: t.string.lstrip('# ')
        for t in tokenize.generate_tokens(io.StringIO(source).readline)
        if t.type == tokenize.COMMENT
    }
    args = [
        *node.args.posonlyargs,
        *node.args.args,
        *filter(None, [node.args.vararg]),
        *node.args.kwonlyargs,
        *filter(None, [node.args.kwarg]),
    ]
    if not args or args[0].lineno == node.lineno == args[-1].lineno:
        return {}
    starts = [a.lineno for a in args] + [node.returns.lineno if node.returns else node.body[0].lineno]
    found = {}
    for a, start, next_one in zip(args, starts, starts[1:]):  # an annotation may take several lines
        for line in range(start, next_one):
            if line in says:
                found[a.arg] = says[line]
    end = next((says[line] for line in range(starts[-1], node.body[0].lineno) if line in says), None)
    return found | ({'return': end} if end else {})


def fields_of(node, source):
    """The annotated fields of a class as (name, annotation, default, comment)."""
    lines = source.splitlines()
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not item.target.id.startswith('_'):
            comment = re.search(
                r'#\s*(.*)$',
                lines[item.end_lineno - 1][len(lines[item.end_lineno - 1].encode()[: item.end_col_offset].decode()) :],
            )
            yield (
                item.target.id,
                ast.unparse(item.annotation),
                item.value and ast.unparse(item.value),
                comment[1] if comment else '',
            )


def signature_of(node, bound=False):
    """`(a, b=1) -> c`, with the defaults as they are written."""
    args = ast.parse(ast.unparse(node)).body[0].args
    if bound and (args.posonlyargs or args.args):
        (args.posonlyargs or args.args).pop(0)
    returns = f' -> {ast.unparse(node.returns)}' if node.returns else ''
    return f'({ast.unparse(args)}){returns}'


def decorators(node):
    return {ast.unparse(d).split('(')[0].split('.')[-1] for d in node.decorator_list}


def of_function(node, source, owner=None):
    comments = comments_of(textwrap.dedent(source))
    marks = decorators(node)
    bound = owner is not None and 'staticmethod' not in marks
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
    if bound and names:
        comments.pop(names[0], None)
    return Entry(
        'method' if owner else 'function',
        f'{owner}.{node.name}' if owner else node.name,
        signature_of(node, bound),
        ast.get_docstring(node) or '',
        {k: v for k, v in comments.items() if k != 'return'},
        comments.get('return', ''),
        property='property' in marks,
    )


def of_class(node, source):
    entry = Entry('class', node.name, '', ast.get_docstring(node) or '')
    lines = source.splitlines()
    for item in node.body:
        if not isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        start = min([item.lineno, *(d.lineno for d in item.decorator_list)])
        of = of_function(item, '\n'.join(lines[start - 1 : item.end_lineno]), node.name)
        if item.name == '__init__':
            entry.signature, entry.params = of.signature.partition(' -> ')[0], of.params
        elif not item.name.startswith('_') and of.doc:
            entry.members.append(of)
    fields = list(fields_of(node, source))
    own = [field for field in fields if not field[1].startswith('ClassVar')]  # a class variable is no argument
    fields = own or fields
    if not entry.signature and fields:
        entry.signature = '(' + ', '.join(f'{n}: {a}' + (f' = {d}' if d else '') for n, a, d, _ in fields) + ')'
        entry.params = {n: c for n, _, _, c in fields if c}
    return entry


def entries_of(source):
    """What an exported cell makes public. Names with an underscore are not."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        marks = getattr(node, 'decorator_list', [])
        start = min([node.lineno, *(d.lineno for d in marks)])
        text = '\n'.join(lines[start - 1 : node.end_lineno])
        if isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
            yield of_class(ast.parse(text).body[0], text)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith('_'):
            owner = 'patch' in decorators(node) and node.args.args and node.args.args[0].annotation
            if not owner:
                yield of_function(node, text)
            elif isinstance(owner, ast.Name) and not owner.id.startswith('_'):
                yield of_function(node, text, owner.id)
        elif (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and re.fullmatch('[A-Z][A-Z0-9_]*', node.targets[0].id)
        ):
            value, comment = (
                ast.unparse(node.value),
                re.search(r'#\s*(.*)$', lines[node.end_lineno - 1][node.end_col_offset :]),
            )
            if comment or len(value) < 60:
                yield Entry(
                    'data', node.targets[0].id, f' = {value}' if len(value) < 60 else '', comment[1] if comment else ''
                )


# -- links -------------------------------------------------------------------------------------------------------------


class Links:
    """Backticked names to references: ours by their full name, Python's by their address."""

    def __init__(self, modules):  # module name to its entries
        self.names = {}
        for module, entries in modules.items():
            for e in entries:
                for one in (e, *e.members):
                    self.names.setdefault(one.name, []).append((module, one.kind))
        self.modules = set(modules)

    def target(self, text, here, scope=None):
        """The full name of one of ours, or None. A single word such as `load` has to be in scope: it may well be somebody else's."""
        if scope is not None and (
            text in scope.foreign or re.fullmatch('[a-z]+|[A-Z]+|[A-Z][a-z]+', text) and text not in scope
        ):
            return None
        text = re.sub(rf'^({LIB}|rs)\.', '', text)
        for module in self.modules:  # `kinds.boxes.Boxes` is `Boxes` of the module `kinds.boxes`
            rest = text.removeprefix(f'{module}.')
            if rest != text and any(m == module for m, _ in self.names.get(rest, ())):
                return f'{LIB}.{module}.{rest}'
        found = [m for m, _ in self.names.get(text, ())]
        if here in found:
            return f'{LIB}.{here}.{text}'
        if len(set(found)) == 1:
            return f'{LIB}.{found[0]}.{text}'

    def linkify(self, text, here, seen=(), scope=None):
        """Link each name where it is met first; headings, code and what is a link already stay as they are."""

        def one(match):
            name, call = match[1], match[2] or ''
            if name in seen:
                return match[0]
            if full := self.target(name, here, scope):
                new = f'{{py:obj}}`{name}{call} <{full}>`'
            elif url := ('.' in name or call) and (STDLIB.doc(name) or STDLIB.doc(f'builtins.{name}')):
                new = f'[`{name}{call}`]({url})'
            else:
                return match[0]
            if isinstance(seen, set):
                seen.add(name)
            return new

        out, fence = [], None
        for line in text.split('\n'):
            mark = re.match(r'\s*(`{3,}|~{3,})', line)
            if mark and (fence is None or line.strip().startswith(fence)):
                fence = None if fence else mark[1]
            elif fence is None and line.startswith('## ') and isinstance(seen, set):
                seen.clear()
            elif fence is None and not re.match(r'#|\s*<', line) and not line.startswith('    '):
                parts = re.split(r'(\[[^\]]*\]\([^)]*\))', line)  # not inside a link
                line = ''.join(
                    p if i % 2 else re.sub(r'(?<![`\\}\w])`([A-Za-z_][\w.]*)(\(\))?`(?!`)', one, p)
                    for i, p in enumerate(parts)
                )
            out.append(line)
        return '\n'.join(out)


# -- cells -------------------------------------------------------------------------------------------------------------


def quoted(text):
    """A value of a directive's option. What begins with a quotation mark would lose its own."""
    return "'" + text.replace("'", "''") + "'" if text[0] in '\'"' else text


def value_of(entry):
    """The value of a constant, if it is short enough to be shown, or nothing."""
    return entry.signature.removeprefix(' = ') if entry.kind == 'data' else ''


def entry_text(entry, module, links, scope, own=(), depth=0):
    """An API entry as a MyST directive. Its parameters, and its fellows in a class (`own`), are no links to others of their name."""
    colons = ':' * (4 - depth)
    kind = 'property' if entry.property else entry.kind
    signature, value = '' if entry.kind == 'data' else entry.signature, value_of(entry)
    name = entry.name.split('.')[-1] if depth else entry.name
    own = {*own, *entry.params, *(member.name.split('.')[-1] for member in entry.members)}
    say = lambda text: links.linkify(text, module, frozenset(own), scope)
    fields = [f':param {n}: {say(t)}' for n, t in entry.params.items()] + (
        [f':returns: {say(entry.returns)}'] if entry.returns else []
    )
    lines = [
        f'{colons}{{py:{kind}}} {name}{"" if entry.property else signature}',
        *([] if depth else [f':module: {LIB}.{module}']),
        *([f':value: {quoted(value)}'] if value else []),
        '',
        say(entry.doc),
        '',
        *fields,
        '',
    ]
    for member in entry.members:
        lines += [entry_text(member, module, links, scope, own, depth + 1), '']
    return '\n'.join([*lines, colons])


def source_summary(source):
    """What the fold over an exported cell says."""
    body = ast.parse(source).body
    defined = [n.name for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))]
    targets = [t for n in body if isinstance(n, ast.Assign) for t in n.targets]
    targets += [n.target for n in body if isinstance(n, ast.AnnAssign)]
    assigned = [t.id for t in targets if isinstance(t, ast.Name)]
    names = [name for name in defined or assigned if name != '_']  # which is none to speak of
    if not names:
        return 'Imports' if any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in body) else 'Source'
    return f'Source of {", ".join(names[:4])}{" and others" if len(names) > 4 else ""}'


def fold_summary(source):
    """What the fold over a cell says that the reader of a lesson need not see."""
    if source.startswith('with as_in_the_text:'):
        return 'Check'
    return 'How this is drawn' if 'Diagram(' in source else source_summary(source)


def solution_summary(source, told):
    """What the fold over a cell of a solution says: its number if it has one, and which part of a solution it is that was told."""
    if number := re.match(r'# (Solution \d+)', source):
        return number[1]
    if is_test(source):
        return 'Its check'
    return 'Its code' if told else 'Solution'


def callouts(text):
    """Quarto's `::: {.callout-tip}` as MyST's `:::{tip}`."""
    return re.sub(
        r'^(:{3,})\s*\{\.callout-(\w+)(?:\s+title="([^"]*)")?[^}]*\}\s*$',
        lambda m: f'{m[1]}{{admonition}} {m[3]}\n:class: {m[2]}' if m[3] else f'{m[1]}{{{m[2]}}}',
        text,
        flags=re.M,
    )


def relink(text, name, pages):
    """Links to notebooks lead to their pages, links to files of the repository lead there, pictures stay. `name` is the notebook's own."""

    def address(target, anchor):
        place = posixpath.normpath(posixpath.join('nbs', posixpath.dirname(name), target))  # in the repository
        inside = place.removeprefix('nbs/')
        if inside in pages:
            return relative(pages[inside] + posixpath.splitext(inside)[1], pages[name]) + re.sub(
                r'[^\w#-]', '', unquote(anchor).lower()
            )  # Jupyter's anchors keep capitals and commas
        if inside.startswith('images/'):
            return relative(inside, pages[name])
        if place in ('CHANGELOG.md', 'CONTRIBUTING.md'):
            return relative(place.lower(), pages[name]) + anchor
        return f'{BLOB}/{place}{anchor}'

    def one(match):
        target, mark, anchor = match[2].partition('#')
        return f'{match[1]}{address(target, mark + anchor)})'

    parts = re.split(r'(^```.*?^```$)', text, flags=re.M | re.S)  # what looks like a link in code is none
    parts[::2] = [re.sub(r'(\]\()(?!https?:|#|mailto:)([^)\s]+)\)', one, part) for part in parts[::2]]
    return ''.join(parts)


def said(directives, name):
    """The value of a directive as text, without quotes; '' if it is bare, None if it is absent."""
    value = directives.get(f'{name}:', directives.get(name))
    return None if value is None else ' '.join(value).strip('"\'')


def picture_options(cell, directives, where):
    """Alternative text and caption of the pictures of a cell."""
    alts = [
        o.metadata.get(kind, {}).get('alt')
        for o in cell.outputs
        if 'data' in o
        for kind in o.data
        if kind in ('image/png', 'image/jpeg', 'image/svg+xml')
    ]
    if not alts:
        return {}
    alt = said(directives, 'fig-alt') or said(directives, 'alt') or next(filter(None, alts), None)
    if not alt:
        raise SystemExit(
            f'{where}: a picture without alternative text; give its object one, or the cell `#| fig-alt:`\n{cell.source[:200]}'
        )
    caption = said(directives, 'fig-cap')
    return {'image': {'alt': alt}, **({'figure': {'caption': caption}} if caption else {})}


WIDEST = 93  # letters in a line of output, where the window is 1280 pixels wide


def wrapping(outputs):
    """Tags of a cell whose text may go on in the next line: what is one line, or wider than any page. Columns wait for a wide page."""
    texts = [o.get('text') or o.get('data', {}).get('text/plain', '') for o in outputs]
    lines = [line for text in texts for line in text.splitlines()]
    if len(lines) == 1:
        return ['wrapped']
    words = [word for line in lines for word in line.split()]
    if any(len(word) > WIDEST for word in words) and sum(map(len, words)) / len(words) > 20:
        return []  # lines of JSON without blanks and the like: broken anywhere, they read wrong
    if not any(len(line) > WIDEST for line in lines):
        return []
    columns = any(len(line) > 40 and re.search(r'\S {3,}\S', line) for line in lines)
    return ['wrapped-where-wide' if columns else 'wrapped']


def read(nb):
    """The cells of a notebook after nbdev's processors, each with its directives."""
    plain = nbformat.v4.new_notebook(cells=nb.cells, metadata=nb.metadata)
    from execnb.nbio import dict2nb
    import json

    processor = NBProcessor(
        nb=dict2nb(json.loads(nbformat.writes(plain))),
        rm_directives=True,
        procs=[populate_language, strip_ansi, hide_line, filter_stream_, rm_header_dash],
    )
    processor.process()
    return [c for c in processor.nb.cells if c.source is not None]


def module_of(cells):
    for c in cells:
        if c.cell_type == 'code' and 'default_exp' in c.directives_:
            return c.directives_['default_exp'][0]


def public(cells):
    """The entries that the exported cells of a notebook make; of a name that is defined twice, the last."""
    found = {}
    for c in cells:
        if c.cell_type == 'code' and {'export', 'exports'} & set(c.directives_):
            for e in entries_of(c.source):
                found[e.name] = e
    for name in [n for n in found if '.' in n]:  # patched methods of classes that are not ours here
        if name.split('.')[0] not in found:
            found.pop(name)
    return list(found.values())


class Scope(set):
    """What a notebook defines or imports of ours, by its plain name; `foreign` are names that it gives to things of its own."""

    foreign = frozenset()


def in_scope(cells, links):
    """The scope of a notebook."""
    found = Scope(e.name for e in public(cells))
    found.foreign = {
        node.name
        for c in cells
        if c.cell_type == 'code' and not {'export', 'exports', 'exporti'} & set(c.directives_)
        for node in ast.parse(re.sub(r'^[%!].*$', '', c.source, flags=re.M)).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    for c in cells:
        if c.cell_type != 'code' or 'redaction_serde' not in c.source and 'from .' not in c.source:
            continue
        for node in ast.walk(ast.parse(re.sub(r'^[%!].*$', '', c.source, flags=re.M))):
            if not isinstance(node, ast.ImportFrom) or not (node.level or (node.module or '').startswith(LIB)):
                continue
            module = (node.module or '').removeprefix(f'{LIB}.')
            found |= {a.name for a in node.names if a.name != '*'}
            if any(a.name == '*' for a in node.names):
                found |= {name for name, places in links.names.items() if any(m == module for m, _ in places)}
    return found


def convert(nb, name, links, pages):
    """A processed notebook for MyST-NB. `name` is its path in nbs/; `pages` maps these to page names."""
    cells, out, seen, done = read(nb), [], set(), set()
    module, in_exercises, told, first = module_of(cells), False, False, True
    wanted, scope = {e.name: e for e in public(cells)}, in_scope(cells, links)
    for cell in cells:
        d = cell.directives_ if cell.cell_type == 'code' else {}
        if cell.cell_type == 'markdown':
            in_exercises |= bool(re.search(r'^## Exercise', cell.source, re.M))
            told = bool(re.search(r'<summary>(Answer|A solution|Solution)', cell.source))
            text = links.linkify(relink(callouts(cell.source), name, pages), module, seen, scope)
            out.append(nbformat.v4.new_markdown_cell(text))
            continue
        if cell.cell_type != 'code' or not cell.source.strip():
            continue
        if {'hide', 'default_exp'} & set(d) or said(d, 'include') == 'false' or 'nbdev_export()' in cell.source:
            continue
        if 'export' in d and is_export_list(cell.source):
            continue
        outputs = (
            []
            if said(d, 'output') == 'false'
            else [
                nbformat.from_dict({**o, **{k: joined(o[k]) for k in ('text', 'data') if k in o}})
                for o in cell.get('outputs', [])
            ]
        )
        for shown in (o['data'] for o in outputs if 'text/markdown' in o.get('data', {})):
            shown['text/markdown'] = relink(shown['text/markdown'], name, pages)
        source = re.sub(r'\A(#\|.*\n)+', '', cell.source)  # nbdev leaves directives that Quarto would read
        new = nbformat.v4.new_code_cell(source, outputs=outputs, metadata={'tags': []})
        new.metadata.tags += wrapping(outputs)
        summary = None  # what the fold says, if there is one
        if {'export', 'exports', 'exporti'} & set(d):
            for e in entries_of(cell.source) if 'exporti' not in d else ():
                if e.name in wanted and e.name not in done:
                    done.add(e.name)
                    out.append(nbformat.v4.new_markdown_cell(entry_text(wanted[e.name], module, links, scope)))
            if 'exports' not in d:
                new.metadata.tags.append('hide-input')
                summary = source_summary(cell.source)
        if said(d, 'code-fold') == 'true':  # what a solution says gives it away as its code does
            new.metadata.tags.append('hide-cell' if in_exercises and outputs else 'hide-input')
            summary = said(d, 'code-summary') or (solution_summary(source, told) if in_exercises else 'Show the code')
        folds = cell.metadata.get('jupyter', {})  # what JupyterLab folds, too
        if folds.get('source_hidden'):
            new.metadata.tags.append('hide-input')
            summary = fold_summary(cell.source)
        elif not d and first and not outputs and is_import(source):
            new.metadata.tags.append('hide-input')
            summary = 'Imports'
        elif not d and not outputs and is_test(source):
            new.metadata.tags.append('hide-input')
            summary = 'Check'
        if said(d, 'echo') == 'false':
            new.metadata.tags.append('remove-input')
        if folds.get('outputs_hidden'):  # the reader predicts first
            new.metadata.tags.append('hide-output')
            summary = 'What it says'
        mystnb = picture_options(new, d, name)
        if summary:
            mystnb |= dict.fromkeys(('code_prompt_show', 'code_prompt_hide'), summary)
        if mystnb:
            new.metadata['mystnb'] = mystnb
        first = first and ('hide-input' in new.metadata.tags or is_preparing(new.source))  # nothing to read so far
        last = out[-1].metadata.get('mystnb', {}) if out else {}
        if summary == 'Imports' == last.get('code_prompt_show'):
            out[-1].source += '\n' + new.source
        else:
            out.append(new)
    return nbformat.v4.new_notebook(
        cells=[strip_id(c) for c in number(out)],
        metadata={
            'kernelspec': {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'},
            'language_info': {'name': 'python', 'pygments_lexer': 'ipython3'},
        },
        nbformat_minor=4,
    )


def joined(value):
    if isinstance(value, list):
        return ''.join(value)
    if isinstance(value, dict):
        return {k: joined(v) if k != 'application/json' else v for k, v in value.items()}
    return value


def strip_id(cell):
    cell.pop('id', None)
    return cell


def number(cells):
    for i, c in enumerate((c for c in cells if c.cell_type == 'code'), 1):
        c.execution_count = i
    return cells


def title_and_lead(nb):
    """The H1 of a notebook and the sentence under it."""
    text = next(c.source for c in nb.cells if c.cell_type == 'markdown')
    title = re.search(r'^# (.+)$', text, re.M)[1]
    lead = re.search(r'^> (.+(?:\n> .+)*)', text, re.M)
    return title, re.sub(r'\n> ', ' ', lead[1]) if lead else ''
