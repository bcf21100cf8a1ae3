"""Sphinx configuration. `make docs` prepares the folder that Sphinx reads (tools/build_docs.py); nothing here needs a network."""

import json
import os
import sys
from configparser import ConfigParser
from functools import cache
from html import escape
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path[:0] = [str(here), str(here.parent / 'tools')]
SOURCE = Path(os.environ['SITE_SOURCE'])  # where tools/build_docs.py has put the pages
PAGES = json.loads((SOURCE / 'pages.json').read_text(encoding='utf-8'))  # page name to title, description, notebook, …

settings = ConfigParser(delimiters=['='])
settings.read(here.parent / 'settings.ini', encoding='utf-8')
settings = settings['DEFAULT']

project, release = settings['title'], settings['version']
author, copyright = settings['author'], settings['copyright']
html_baseurl = settings['doc_host'] + settings['doc_baseurl']

extensions = ['myst_nb', 'sphinx.ext.viewcode', 'sphinx_copybutton']
exclude_patterns = ['pages.json', 'parameters.json']
templates_path = [str(here / '_templates')]

# Notebooks: they were executed already, and each picture becomes a file
nb_execution_mode = 'off'
nb_merge_streams = True
nb_render_markdown_format = 'myst'  # tables that cells make
nb_ipywidgets_js = {}
myst_enable_extensions = ['colon_fence', 'deflist', 'dollarmath', 'amsmath', 'fieldlist', 'attrs_inline', 'attrs_block']
myst_heading_anchors = 3
suppress_warnings = [
    'mystnb.unknown_mime_type',
    'ref.python',  # two modules may have a class of one name; a plain word then leads to the first
]

# API
add_module_names = False
python_maximum_signature_line_length = 72
python_use_unqualified_type_names = True
viewcode_follow_imported_members = False
viewcode_line_numbers = True
toc_object_entries = False

# Looks
html_theme = 'sphinx_book_theme'
html_title = project
html_static_path = [str(here / '_static')]
html_css_files = ['icons.css', 'site.css']  # icons.css is written when the pages are known
html_js_files = [('site.js', {'defer': 'defer'})]
html_favicon = str(here / '_static' / 'icon.svg')
html_last_updated_fmt = None
html_copy_source = False
html_show_sphinx = False
html_permalinks_icon = '#'
pygments_style = 'a11y-high-contrast-light'
html_use_index = html_domain_indices = False  # api.md is better
html_theme_options = {
    'logo': {'text': project, 'image_light': '_static/icon.svg', 'image_dark': '_static/icon.svg', 'alt_text': ''},
    'navbar_persistent': [],
    'show_navbar_depth': 2,
    'home_page_in_toc': True,
    'show_toc_level': 2,
    'toc_title': 'On this page',
    'use_download_button': False,
    'use_fullscreen_button': False,
    'footer_content_items': ['site-footer.html'],
    'pygments_light_style': 'a11y-high-contrast-light',
    'pygments_dark_style': 'a11y-high-contrast-dark',
}
html_context = {'default_mode': 'auto', 'repository': settings['git_url']}
html_sidebars = {'**': ['navbar-logo.html', 'search-button-field.html', 'sbt-sidebar-nav.html']}
copybutton_selector = 'div:not(.highlight-output) > div.highlight pre'
copybutton_exclude = '.linenos, .gp, .go'


def head_and_buttons(app, pagename, templatename, context, doctree):
    """What search engines and messengers show of a page, and the buttons at its top."""
    page = PAGES.get(pagename, {})
    title = page.get('title') or context.get('title', '')
    description = page.get('description') or settings['description']
    url = f'{html_baseurl}{pagename}.html' if pagename != 'index' else html_baseurl
    tags = {
        'og:site_name': project,
        'og:type': 'website' if pagename == 'index' else 'article',
        'og:title': title,
        'og:description': description,
        'og:url': url,
    }
    if page:
        tags |= {
            'og:image': f'{html_baseurl}_cards/{pagename}.png',
            'og:image:width': '1200',
            'og:image:height': '630',
            'og:image:alt': f'{title}. {description}',
        }
    metas = [
        f'<meta name="description" content="{escape(description)}">',
        *(f'<meta property="{k}" content="{escape(v)}">' for k, v in tags.items()),
        f'<meta name="twitter:card" content="{"summary_large_image" if page else "summary"}">',
    ]
    if pagename in ('404', 'search', 'genindex', 'py-modindex'):
        metas = ['<meta name="robots" content="noindex">']
    if pagename == 'search':
        taken = (SOURCE / 'parameters.json').read_text(encoding='utf-8')
        app.add_js_file(None, body=f'const PARAMETERS = {taken};')
        app.add_js_file('search.js', loading_method='defer')
    context['metatags'] = context.get('metatags', '') + '\n'.join(metas)
    buttons = context['header_buttons'] = []
    to = context['pathto']
    if page.get('notebook'):
        if page.get('lite'):
            buttons.append(
                {
                    'type': 'link',
                    'url': to(f'lite/notebooks/index.html?path={page["notebook"]}', 1),
                    'icon': 'fas fa-rocket',
                    'text': '',
                    'tooltip': 'Run this lesson in the browser',
                    'label': 'run-in-browser',
                }
            )
        buttons.append(
            {
                'type': 'link',
                'url': to(f'_notebooks/{page["notebook"]}', 1),
                'icon': 'fas fa-download',
                'text': '',
                'tooltip': 'Download this notebook',
                'label': 'download-notebook',
            }
        )
    source = f'blob/main/nbs/{page["notebook"]}' if page.get('notebook') else ''
    buttons.append(
        {
            'type': 'link',
            'url': f'{settings["git_url"]}/{source}'.rstrip('/'),
            'icon': 'fab fa-github',
            'text': '',
            'tooltip': 'Source on GitHub',
            'label': 'repository',
        }
    )


def patched_methods(app, modname):
    """viewcode's table of definitions, with methods that fastcore's `@patch` adds under their full names. Nothing is imported."""
    return definitions(modname)  # asked for once for each name on each page


@cache
def definitions(modname):
    """The source of a module, and where each of its definitions begins and ends."""
    import ast

    path = here.parent.joinpath(*modname.split('.')).with_suffix('.py')
    if not path.exists():
        return None
    code, tags = path.read_text(encoding='utf-8'), {}

    def visit(nodes, prefix=''):
        for node in nodes:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            start = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            owner = prefix
            if (
                not isinstance(node, ast.ClassDef)
                and 'patch' in map(ast.unparse, node.decorator_list)
                and node.args.args[0].annotation
            ):
                owner = ast.unparse(node.args.args[0].annotation) + '.'
            tags[owner + node.name] = ('class' if isinstance(node, ast.ClassDef) else 'def', start, node.end_lineno)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f'{node.name}.')

    visit(ast.parse(code).body)
    return code, tags


def stack_tables(app, doctree, docname):
    """Tables of sentences are too wide for a phone: mark them, and let each cell say what its column is, for site.css."""
    from docutils import nodes

    index = docname == 'api'  # whose names need no word on what they are, and stack however short they are
    for table in doctree.findall(nodes.table):
        head, *rows = [list(row.findall(nodes.entry)) for row in table.findall(nodes.row)]
        longest = max((len(cell.astext()) for row in rows for cell in row), default=0)
        short = len(head) < 3 or longest < 40  # such columns are compared better as they are
        pictures = any(table.findall(nodes.image))  # the front page lays them out by itself
        if pictures or (short and not index):
            continue
        table['classes'].append('stacked')
        if index:
            continue
        for row in rows:
            for column, cell in list(zip(head, row))[1:]:
                if column.astext() and cell.astext():
                    cell[0].insert(0, nodes.inline('', f'{column.astext()}: ', classes=['column']))


def mathml(mode):
    """Formulas as MathML: no script, read aloud by screen readers."""

    def visit(self, node):
        from docutils.nodes import SkipNode
        from latex2mathml.converter import convert

        tag = 'div' if mode == 'block' else 'span'
        self.body.append(f'<{tag} class="math">{convert(node.astext(), display=mode)}</{tag}>')
        raise SkipNode

    return visit


def setup(app):
    app.connect('html-page-context', head_and_buttons, priority=900)
    app.connect('viewcode-find-source', patched_methods)
    app.connect('doctree-resolved', stack_tables)
    app.add_html_math_renderer('mathml', (mathml('inline'), None), (mathml('block'), None))


html_math_renderer = 'mathml'
