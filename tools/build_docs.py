"""The site: every notebook executed afresh, then Sphinx, then JupyterLite, into _site/.

python tools/build_docs.py [--no-lite]   builds; does nothing if nothing has changed
python tools/build_docs.py --serve       builds, then shows it on 127.0.0.1
"""

import argparse
import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from html import escape
from pathlib import Path

from notebooks import NBS, ROOT, notebooks, part_of
from run_notebooks import alone, digest, executed

sys.path.insert(0, str(ROOT / 'docs'))
SITE, WORK = ROOT / '_site', ROOT / 'build' / 'site'
BASE = '/redaction_serde/'  # the path at which Pages serves the site
REPOSITORY = 'https://github.com/redaction-serde/redaction_serde'

GROUPS = [  # folder of nbs/, title, what its notebooks are about
    (
        'learn',
        'Learn',
        'What serialisation is, from single bytes to the artifacts of a pipeline. Each lesson can be read on its own, asks before it tells, '
        'and says at its top how long it takes and what it needs.',
    ),
    (
        'build',
        'Build',
        'The library, a room at a time. Each notebook explains a module and *is* its source: what you read here is what `import redaction_serde` runs.',
    ),
    (
        'compare',
        'Compare',
        'Ways to store a record collection, held against each other: what each one keeps, what it changes without a word, how fast it is, how large its files are, and what a hostile file can do to its reader.',
    ),
    (
        'reference',
        'Reference',
        'What the lessons stand on: icevision made to work on today’s packages, and the command line.',
    ),
]

MOVED = {  # pages that had another address once: an address, once given, leads somewhere for ever
    'bytes': 'learn/bytes',
    'pickle': 'learn/pickle',
    'json': 'learn/json',
    'binary_formats': 'learn/binary_formats',
    'materialisation': 'learn/materialisation',
    'documents': 'build/pages',
    'schema': 'build/document',
    'records': 'build/save_and_load',
    'formats': 'build/registry',
    'fidelity': 'build/fidelity',
    'visual': 'build/visual',
    'materializers': 'build/collections',
    'trained_models': 'build/trained_models',
    'who_keeps_what': 'compare/who_keeps_what',
    'speed_and_size': 'compare/speed_and_size',
    'compat': 'reference/compat',
    'cli': 'reference/cli',
}


BESIDE = ['howto', 'cards', 'versions', 'glossary']  # pages of text in nbs/


def say(text):
    print(f'docs: {text}', flush=True)


# -- pages -------------------------------------------------------------------------------------------------------------


def write(path, text):
    """Write a file only if that changes it, so that Sphinx need not read it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding='utf-8') != text:
        path.write_text(text, encoding='utf-8')


def execute_all(paths):
    """Notebooks by name, executed two at a time. One that fails stops the build."""
    with ThreadPoolExecutor(2) as pool:
        waiting = {name: pool.submit(executed, path, say) for name, path in paths.items()}
        try:
            return {name: one.result() for name, one in waiting.items()}
        except Exception as e:
            pool.shutdown(cancel_futures=True)
            sys.exit(f'docs: a notebook failed\n{e}')


def toc(entries, caption=''):
    return '\n'.join(
        ['```{toctree}', ':hidden:', *([f':caption: {caption}'] if caption else []), '', *entries, '```', '']
    )


def write_pages(executed, source, in_browser):
    """Everything that Sphinx reads, from executed notebooks by their names. Returns what is known of each page."""
    import nbformat
    from redaction_serde.lessons.listings import lessons_of
    from nbdev_myst import Links, convert, module_of, page_name, public, read, relative, relink, title_and_lead

    pages = {name: page_name(name) for name in executed}
    modules, about = {}, {}
    for name, nb in executed.items():
        cells = read(nb)
        title, lead = title_and_lead(nb)
        about[pages[name]] = dict(
            title=title,
            description=plain(lead),
            lead=lead,
            notebook=name,
            group=part_of(name),
            module=module_of(cells),
            lite=name in in_browser,
        )
        if module_of(cells):
            modules[module_of(cells)] = (pages[name], public(cells))
    links = Links({m: entries for m, (_, entries) in modules.items()})
    pages |= {f'{name}.md': name for name in BESIDE}
    for name, nb in executed.items():
        page, made = pages[name], convert(nb, name, links, pages)
        if page == 'index':
            groups = [g for g, *_ in GROUPS if any(a.get('group') == g for a in about.values())]
            made.cells.append(
                nbformat.v4.new_markdown_cell(
                    toc([*BESIDE[:1], *groups, *BESIDE[1:], 'api', 'changelog', 'contributing'])
                )
            )
        if page != 'index':
            made.cells.insert(
                1, nbformat.v4.new_markdown_cell(ways_to_run(name, relative('.', page), name in in_browser))
            )
        for cell in made.cells:
            cell.pop('id', None)
        write(source / f'{page}.ipynb', nbformat.writes(made))
    for name, title, text in GROUPS:
        inside = [(page, a) for page, a in about.items() if a.get('group') == name]
        if not inside:
            continue
        lines = [f'# {title}', '', f'> {text}', '', '{.lessons}']
        said = {one.file: one for one in lessons_of(NBS / name)}
        for page, a in inside:
            lesson = said[a['notebook'].rpartition('/')[2]]
            time = f' *About {lesson.minutes} minutes.*' if lesson.minutes else ''
            lead = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', a['lead'])  # its links lead from elsewhere
            lines += [f'[{a["title"]}]({page}.ipynb)', f': {lead}{time}', '']
            if lesson.minutes:
                goals = ''.join(f'\n    - {goal}' for goal in lesson.goals)
                lines += [f'  You will be able to\n{goals}', '']
        write(source / f'{name}.md', '\n'.join(lines) + '\n\n' + toc(page for page, _ in inside))
        about[name] = dict(title=title, description=plain(text))
    write(source / 'api.md', api_page(modules, about, links))
    write(source / 'parameters.json', json.dumps(parameters(modules)).replace("<", "\\u003c"))
    about['api'] = dict(title='API index', description='Every public name of redaction_serde, by module.')
    for name in BESIDE:
        text = (NBS / f'{name}.md').read_text(encoding='utf-8')
        title, lead = re.match(r'# (.+)\n+> (.+)', text).groups()
        write(source / f'{name}.md', relink(text, f'{name}.md', pages))
        about[name] = dict(title=title, description=plain(lead))
    for name in ('changelog', 'contributing'):
        write(
            source / f'{name}.md',
            re.sub(
                r'\]\((?!https?:|#)([^)]+)\)',
                rf']({REPOSITORY}/blob/main/\1)',
                (ROOT / f'{name.upper()}.md').read_text(encoding='utf-8'),
            ),
        )
        about[name] = dict(title=name.capitalize(), description=f'{name.capitalize()} of redaction_serde.')
    write(
        source / '404.md',
        '---\norphan: true\n---\n# There is no such page\n\nIt may have been renamed. Go to the [first page](index.ipynb), look through the [API index](api.md), or search.\n',
    )
    return about


def ways_to_run(name, top, lite):
    """The line under a lesson's title. `top` is the way from its page to the first folder of the site."""
    here = f'<a href="{top}/lite/notebooks/index.html?path={name}">in this browser</a>, ' if lite else ''
    why = '' if lite else ' It cannot run in a browser: it needs packages that are not made for that.'
    return f'{{.run-it}}\nRun this lesson {here}with `make lab`, or <a href="{top}/_notebooks/{name}" download>download it</a>.{why}\n'


def plain(text):
    return re.sub(r'\s+', ' ', re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', text).replace('`', '').replace('*', '')).strip()


def api_page(modules, about, links):
    """All public names by module, each with the first line of its docstring."""
    from nbdev_myst import value_of

    order = [
        m
        for m in (
            'records.verbs',
            'records.classes',
            'fidelity',
            'checks',
            'wire.registry',
            'errors',
            'document',
            'values',
            'components',
            'visual',
            'materializers.collections',
            'materializers.predictions',
            'pipelines',
            'pickles',
            'detectors',
            'compat',
            'cli',
        )
        if m in modules
    ]
    lines = ['# API index', '', '> Every public name, by module, with the notebook that explains it.', '']
    for module in [*order, *sorted(set(modules) - set(order))]:
        page, entries = modules[module]
        lines += [
            f'## {module}',
            '',
            f'```{{py:module}} redaction_serde.{module}\n```',
            '',
            f'Explained in [{about[page]["title"]}]({page}.ipynb).',
            '',
        ]
        rows = [
            (e, one)
            for e in entries
            if e.kind != 'method'
            for one in (e, *e.members, *(p for p in entries if p.kind == 'method' and p.name.startswith(e.name + '.')))
        ]
        if not rows:
            continue
        lines += ['| name | |', '|---|---|']
        for _, e in rows:
            first = links.linkify(e.doc.split('\n\n')[0].replace('\n', ' '), module)
            if not first and (value := value_of(e)):
                first = f'`{value}`'
            first = first.replace('|', '\\|')
            lines.append(f'| {{py:obj}}`{e.name} <redaction_serde.{module}.{e.name}>` | {first} |')
        lines.append('')
    return '\n'.join(lines)


def parameters(modules):
    """For the search page: by the name of a parameter the functions that take it.

    Each has its page, its name, its anchor, what its docment says, and whether `import redaction_serde` offers it.
    """
    import redaction_serde

    found = {}
    for module, (page, entries) in modules.items():
        for owner in (one for entry in entries for one in (entry, *entry.members)):
            anchor, offered = f'redaction_serde.{module}.{owner.name}', owner.name in redaction_serde.__all__
            for name, says in owner.params.items():
                found.setdefault(name.lower(), []).append([page, owner.name, anchor, plain(says), offered])
    return found


# -- after Sphinx ------------------------------------------------------------------------------------------------------


def card(title, text, path):
    """A picture of a page's title for messengers: 1200 by 630 pixels, made here, with a typeface that matplotlib brings."""
    import textwrap
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    fonts = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf'
    font = lambda size, bold='': ImageFont.truetype(str(fonts / f'DejaVuSans{bold}.ttf'), size)
    image = Image.new('RGB', (1200, 630), '#f6f7f5')
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 28, 630), fill='#0072b2')
    y = 110
    for line in textwrap.wrap(title, 26)[:2]:
        draw.text((90, y), line, font=font(68, '-Bold'), fill='#16202a')
        y += 88
    y += 22
    for line in textwrap.wrap(text, 54)[:4]:
        draw.text((90, y), line, font=font(33), fill='#37444f')
        y += 50
    for i, width in enumerate((170, 90, 230)):  # redactions, as on the pages of the lessons
        x = 90 + (0, 190, 300)[i]
        draw.rectangle((x, 520, x + width, 552), fill='#16202a')
    draw.text((1110, 520), 'redaction_serde', font=font(30, '-Bold'), fill='#0072b2', anchor='ra')
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(48).save(path, optimize=True)


def shrink(path, target):
    """A picture as WebP if that is smaller. Returns the file name and the size in pixels."""
    import io
    from PIL import Image

    data = path.read_bytes()
    image = Image.open(io.BytesIO(data))
    out = io.BytesIO()
    lossless = image.format == 'PNG'
    image.save(out, 'WEBP', lossless=lossless, quality=100 if lossless else 82, method=6)
    name = path.name
    if len(out.getvalue()) < len(data):
        name, data = f'{path.stem}.webp', out.getvalue()
    target.mkdir(exist_ok=True)
    (target / name).write_bytes(data)
    return name, image.size


def finish_page(text, sizes):
    """A page as Sphinx wrote it, with its pictures as small files that load when they are needed."""

    def picture(match):
        tag = match[0]
        source = re.search(r'src="((?:\.\./)*_images/)([^"]+)"', tag)
        if source and source[2] in sizes:
            name, (width, height) = sizes[source[2]]
            tag = tag.replace(source[0], f'src="{source[1]}{name}"')
            tag = re.sub(r' (?:width|height)="[^"]*"', '', tag)
            tag = tag.replace('<img ', f'<img width="{width}" height="{height}" loading="lazy" decoding="async" ', 1)
        return tag

    return re.sub(r'<img [^>]*>', picture, text)


def named(text):
    """Controls with the names that screen readers want, and signatures of several lines without half a definition list."""
    text = re.sub(r'(<button class="btn search-button-field[^>]*?) title="[^"]*" aria-label="[^"]*"', r'\1', text)
    text = text.replace('<summary aria-label="Toggle hidden content">', '<summary>')
    text = re.sub(
        r'(<a class="[^"]*\breference internal" href="[^"]*">\s*([^<]*?)\s*</a>\s*<details[^>]*>\s*<summary)>',
        r'\1 aria-label="Pages of \2">',
        text,
    )

    def lines(match):
        for old, new in (
            ('<dl>', '<span class="sig-lines">'),
            ('</dl>', '</span>'),
            ('<dd>', '<span class="sig-line">'),
            ('</dd>', '</span>'),
        ):
            match = match.replace(old, new)
        return match

    return re.sub(r'<dt class="sig .*?</dt>', lambda m: lines(m[0]), text, flags=re.S)


LONG = 20  # letters of a name that may go on in the next line


def breakable(text):
    """Long names, in code or of modules, with the places where they may go on in the next line: between their words, and nowhere else."""

    def one(match):
        return re.sub(r'(?<=[A-Za-z0-9\])])([._/(=,])(?=[A-Za-z])|([a-z])(?=[A-Z])', r'\1\2<wbr>', match[0])

    module = r'(?<=[ >])(?=redaction_serde\.[a-z_.]+</(?:a|h1)>)'
    return re.sub(rf'(?:(?<=<span class="pre">)|{module})[^<]{{{LONG},}}', one, text)


def embedded(text, folder, prefix):
    """Pictures that an output carries in itself, as files."""
    import base64

    def one(match):
        data = base64.b64decode(match[2])
        name = f'{hashlib.sha256(data).hexdigest()[:20]}.{match[1]}'
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        return f'src="{prefix}_images/{name}"'

    return re.sub(r'src="data:image/(png|jpeg|webp);base64,([A-Za-z0-9+/=\s]+)"', one, text)


def icons(pages, script):
    """The few icons that the pages use, as a style sheet: Font Awesome's script would bring two thousand and weigh 1.5 MB."""
    names = {'xmark'} | {
        n
        for text in pages
        for tag in re.findall(r'<i\b[^>]*class="([^"]*)"', text)
        for n in re.findall(r'\bfa-([a-z-]+)', tag)
    }
    drawn = dict()
    for name in sorted(names - {'solid', 'brands', 'regular', 'lg', 'fw', 'sm'}):
        found = re.search(rf'[,{{]"?{name}"?:\[(\d+),(\d+),\[[^\]]*\],"\w+","([^"]+)"\]', script)
        if found:
            drawn[name] = (
                f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {found[1]} {found[2]}'><path d='{found[3]}'/></svg>"
            )
    rules = [
        f'.fa-{name} {{ --icon: url("data:image/svg+xml,{svg.replace("<", "%3C").replace(">", "%3E").replace("#", "%23")}") }}'
        for name, svg in drawn.items()
    ]
    return (
        '\n'.join(
            [
                '/* Icons of Font Awesome Free, https://fontawesome.com, CC BY 4.0 */',
                'i.fas, i.fab, i.far, i.fa-solid, i.fa-brands, i.fa-regular { display: inline-block; width: 1.1em; height: 1em; vertical-align: -.125em; '
                'background: currentColor; mask: var(--icon) center / contain no-repeat; -webkit-mask: var(--icon) center / contain no-repeat }',
                *rules,
            ]
        )
        + '\n'
    )


def moved(target, page):
    """A page at an old address that leads to the new one, to the same heading if scripts may run."""
    address = f'{target}.html'
    if not (page.parent / address).exists():
        sys.exit(f'docs: {page.name} should lead to {address}, which does not exist; see MOVED')
    page.write_text(
        f'''<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>This page has moved</title>
<meta name="robots" content="noindex">
<link rel="canonical" href="{address}">
<script>location.replace('{address}' + location.search + location.hash)</script>
<noscript><meta http-equiv="refresh" content="0; url={address}"></noscript>
</head>
<body><p>This page has moved to <a href="{address}">{address}</a>.</p></body>
</html>
''',
        encoding='utf-8',
    )


def lite_root(page, lessons):
    """The first page of JupyterLite, which would lead to an app that is not there: the lessons that run in it."""
    order = [group for group, *_ in GROUPS]
    links = ''
    for lesson in sorted(lessons, key=lambda lesson: order.index(lesson['group'])):
        links += f'<li><a href="notebooks/index.html?path={lesson["notebook"]}">{escape(lesson["title"])}</a></li>\n'
    text = (ROOT / 'docs' / 'lite-root.html').read_text(encoding='utf-8')
    page.write_text(text.replace('LESSONS', links), encoding='utf-8')


def finish(html, about, executed, target):
    """What Sphinx wrote, made lighter, with downloads, cards and a map of the site."""
    import nbformat

    shutil.copytree(html, target, ignore=shutil.ignore_patterns('_images', '.buildinfo*', 'objects.inv.txt', '*.map'))
    pictures = target / '_images'
    pages = {
        p: embedded(p.read_text(encoding='utf-8'), html / '_images', '../' * (len(p.relative_to(target).parts) - 1))
        for p in target.rglob('*.html')
    }
    (script,) = [
        *target.glob('_static/scripts/fontawesome.js'),
        *target.glob('_static/vendor/fontawesome/*/js/all.min.js'),
    ]  # today's theme, and Python 3.10's
    (target / '_static' / 'icons.css').write_text(
        icons(pages.values(), script.read_text(encoding='utf-8')), encoding='utf-8'
    )
    script.unlink()
    sizes = {
        p.name: shrink(p, pictures)
        for p in sorted((html / '_images').glob('*'))
        if p.suffix in ('.png', '.jpeg', '.jpg', '.webp')
    }
    for page, text in pages.items():
        text = re.sub(
            r'<script[^>]*fontawesome[^>]*></script>\s*|<link[^>]*fontawesome[^>]*>\s*',
            '',
            breakable(named(finish_page(text, sizes))),
        )
        if page.name == '404.html':  # served for any address, so that its links cannot be relative
            base = (ROOT / "docs" / "404-head.html").read_text(encoding="utf-8").replace("BASE", BASE)
            text = re.sub(r'(href|src)="#', r'\1="404.html#', text).replace("<head>", f"<head>\n{base}", 1)
        page.write_text(text, encoding='utf-8')
    for name, a in about.items():
        card(a['title'], a['description'], target / '_cards' / f'{name}.png')
    for name, nb in executed.items():
        (target / '_notebooks' / name).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nb, target / '_notebooks' / name)
    for old, new in MOVED.items():
        moved(new, target / f'{old}.html')
    host = f'https://redaction-serde.github.io{BASE}'
    urls = ''.join(f'<url><loc>{host}{"" if n == "index" else n + ".html"}</loc></url>' for n in about)
    (target / 'sitemap.xml').write_text(
        f'<?xml version="1.0" encoding="utf-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{urls}</urlset>\n',
        encoding='utf-8',
    )
    (target / 'robots.txt').write_text(f'User-agent: *\nAllow: /\nSitemap: {host}sitemap.xml\n', encoding='utf-8')
    (target / '.nojekyll').touch()


def npm():
    """The folder of packages from npm, pinned by docs/package-lock.json; None, with a word, where they cannot be had."""
    folder = ROOT / 'build' / 'npm'
    with alone('npm'):
        wanted = digest(ROOT / 'docs' / 'package-lock.json')
        if (folder / '.stamp').exists() and (folder / '.stamp').read_text() == wanted:
            return folder / 'node_modules'
        if not shutil.which('npm'):
            return say('no npm on this machine')
        folder.mkdir(parents=True, exist_ok=True)
        for name in ('package.json', 'package-lock.json'):
            shutil.copy(ROOT / 'docs' / name, folder)
        done = subprocess.run(
            ['npm', 'ci', '--ignore-scripts', '--no-audit', '--no-fund'], cwd=folder, capture_output=True, text=True
        )
        if done.returncode:
            return say(
                f'npm could not install: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}'
            )
        (folder / '.stamp').write_text(wanted)
        return folder / 'node_modules'


# -- all of it ---------------------------------------------------------------------------------------------------------


def stamp(lite):
    """Of everything that the site is made from."""
    return (
        digest(
            NBS,
            ROOT / 'redaction_serde',
            ROOT / 'docs',
            ROOT / 'tools',
            ROOT / 'constraints.txt',
            ROOT / 'settings.ini',
            ROOT / 'CHANGELOG.md',
            ROOT / 'CONTRIBUTING.md',
        )
        + f' {sys.version_info[:3]} lite={lite}'
    )


def lessons_in_browser(executed):
    """JupyterLite with the lessons that can run in it: the folder and their names. (None, …) where it cannot be made."""
    import lite

    folder, work = ROOT / 'build' / 'lite', ROOT / 'build' / 'lite-work'
    wanted = digest(
        NBS,
        ROOT / 'redaction_serde',
        ROOT / 'constraints.txt',
        ROOT / 'docs' / 'package-lock.json',
        ROOT / 'tools' / 'lite.py',
        ROOT / 'tools' / 'copies.py',
        ROOT / 'tools' / 'loading.js',
        ROOT / 'tools' / 'try_in_pyodide.mjs',
    )
    if (folder / '.stamp').exists() and (folder / '.stamp').read_text().startswith(wanted):
        return folder, set((folder / '.stamp').read_text().split()[1:])
    if not (packages := npm()):
        return None, set()
    start = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    try:
        lessons = lite.build({name: nb for name, nb in executed.items() if part_of(name)}, packages, folder, work)
    except RuntimeError as e:
        say(f'no lessons in the browser this time. {e}')
        return None, set()
    (folder / '.stamp').write_text(' '.join([wanted, *lessons]))
    say(f'{len(lessons)} lessons can run in the browser, {time.perf_counter() - start:.0f} s')
    return folder, set(lessons)


def build(lite=True):
    """Bring _site/ up to date. Whoever else is at it is waited for."""
    with alone('site'):
        wanted = stamp(lite)
        if (SITE / '.stamp').exists() and (SITE / '.stamp').read_text() == wanted:
            return say('nothing has changed')
        start = time.perf_counter()
        made = execute_all(notebooks())
        say(f'{len(made)} notebooks are executed, {time.perf_counter() - start:.0f} s')
        source, html, final = WORK / 'source', WORK / 'html', WORK / 'final'
        made_by = digest(ROOT / 'docs', Path(__file__).resolve())
        if not (WORK / '.made-by').exists() or (WORK / '.made-by').read_text() != made_by:
            shutil.rmtree(WORK, ignore_errors=True)
            write(WORK / '.made-by', made_by)
        folder, in_browser = lessons_in_browser(made) if lite else (None, set())
        about = write_pages(made, source, in_browser)
        for old in [p for p in source.rglob('*') if p.suffix in ('.md', '.ipynb')]:
            page = old.relative_to(source).with_suffix('').as_posix()
            if page in about or page == '404':
                continue
            old.unlink()
            (html / f'{page}.html').unlink(missing_ok=True)
        if (NBS / 'images').is_dir():
            shutil.copytree(NBS / 'images', source / 'images', dirs_exist_ok=True)
        write(source / 'pages.json', json.dumps(about, indent=1))
        start = time.perf_counter()
        command = [
            sys.executable,
            '-m',
            'sphinx',
            '-W',
            '--keep-going',
            '-q',
            '-j',
            '2',
            '-b',
            'html',
            '-c',
            str(ROOT / 'docs'),
            '-d',
            str(WORK / 'doctrees'),
            str(source),
            str(html),
        ]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, 'SITE_SOURCE': str(source)})
        if done.returncode:
            shutil.rmtree(WORK / 'doctrees', ignore_errors=True)  # it would not warn of an unchanged page again
            sys.exit('docs: Sphinx is not content')
        if final.exists():
            shutil.rmtree(final)
        finish(html, about, made, final)
        if folder:
            shutil.copytree(folder, final / 'lite', ignore=shutil.ignore_patterns('.stamp', '.cache', '*.doit*'))
            lite_root(final / "lite" / "index.html", [a for a in about.values() if a.get("lite")])
        say(f'{len(list(final.rglob("*.html")))} pages, {time.perf_counter() - start:.0f} s')
        if SITE.exists():
            shutil.rmtree(SITE)
        final.rename(SITE)
        (SITE / '.stamp').write_text(wanted)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site below a path, with its 404 page."""

    def __init__(self, *args, base, **kwargs):
        self.base = base
        super().__init__(*args, **kwargs)

    def translate_path(self, path):
        inside = path.startswith(self.base)
        return super().translate_path(path[len(self.base) - 1 :] if inside else "/no-such-page")

    def do_GET(self):
        if self.path in ("/", self.base[:-1]):
            self.send_response(302)
            self.send_header("Location", self.base)
            return self.end_headers()
        super().do_GET()

    def send_error(self, code, message=None, explain=None):
        page = Path(self.directory) / '404.html'
        if code != 404 or not page.exists():
            return super().send_error(code, message, explain)
        self.send_response(404)
        self.send_header('Content-Type', 'text/html; charset=utf-8')
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(page.read_bytes())

    def log_message(self, *args):
        pass


def server(port=0, folder=SITE, base=BASE):
    """A server of a site on 127.0.0.1, below the path that it has on Pages or another one."""
    handler = partial(Handler, directory=str(folder), base=base)
    return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--no-lite', action='store_true', help='without the lessons that run in the browser')
    parser.add_argument('--serve', action='store_true', help='show the site on 127.0.0.1 afterwards')
    parser.add_argument('--port', type=int, default=8000)
    args = parser.parse_args()
    start = time.perf_counter()
    build(lite=not args.no_lite)
    say(f'_site/ is ready, {time.perf_counter() - start:.0f} s')
    if not args.serve:
        return
    with server(args.port) as serving:
        say(f'http://127.0.0.1:{serving.server_port}{BASE} (stop with Ctrl-C)')
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == '__main__':
    main()
