"""README.md from nbs/index.ipynb, with nbdev's own processors and nbconvert; no Quarto.

python tools/readme.py           writes README.md
python tools/readme.py --check   exits with 1, and a diff, if it is out of step
python tools/readme.py --picture makes nbs/images/visual-check.png anew
"""

import difflib
import re
import sys

from notebooks import NBS, ROOT


def readme():
    """The text that README.md should have."""
    from nbconvert import MarkdownExporter
    import nbformat.v4.rwbase
    from nbdev.process import NBProcessor
    from nbdev.processors import (
        filter_stream_,
        hide_,
        hide_line,
        populate_language,
        rm_export,
        rm_header_dash,
        strip_ansi,
    )

    path = NBS / 'index.ipynb'
    processor = NBProcessor(
        path,
        procs=[populate_language, strip_ansi, hide_line, filter_stream_, rm_header_dash, rm_export, hide_],
        rm_directives=True,
    )
    processor.process()
    cells = [
        nbformat.v4.new_markdown_cell(c.source)
        if c.cell_type == 'markdown'
        else nbformat.v4.new_code_cell(
            c.source,
            outputs=[nbformat.from_dict(o) for o in c.outputs],
            metadata={'transient': {'remove_source': 'false' in c.directives_.get('echo:', [])}},
        )
        for c in processor.nb.cells
    ]
    text, resources = MarkdownExporter().from_notebook_node(
        nbformat.v4.rwbase.rejoin_lines(
            nbformat.v4.new_notebook(cells=cells, metadata={'language_info': {'name': 'python'}})
        )
    )
    if resources.get('outputs'):
        raise SystemExit(
            'index.ipynb has an output that is a file; show pictures from nbs/images/ with Markdown instead'
        )
    text = re.sub(r'(\]\(|src=")(?!https?:|#|mailto:|/)', r'\1nbs/', text)  # relative links start at nbs/
    text = re.sub(r'\(nbs/\.\./', '(', text)
    text = re.sub(r'(\.ipynb)#[^)]+\)', r'\1)', text)  # GitHub's view of a notebook knows no anchors
    return (
        '<!-- made from nbs/index.ipynb by `make readme`; edit that -->\n\n'
        + re.sub(r'\n{3,}', '\n\n', text).strip()
        + '\n'
    )


def picture():
    """Three pages before and after a round trip: the picture of the front page, under 150 kB."""
    import io
    import tempfile
    from PIL import Image
    from redaction_serde.lessons.pages import make_documents
    from redaction_serde.records import parse_coco
    from redaction_serde.records import dumps, loads
    from redaction_serde.visual import png, visual_check

    with tempfile.TemporaryDirectory() as folder:
        annotations = make_documents(folder, n_pages=10, seed=0)
        pages = parse_coco(str(annotations), str(annotations.parent / 'images'))
        image = Image.open(io.BytesIO(png(visual_check(pages, loads(dumps(pages)), n=3), dpi=105)))
    target = NBS / 'images' / 'visual-check.png'
    target.parent.mkdir(exist_ok=True)
    image.convert('RGB').quantize(40).save(target, optimize=True)
    print(f'{target.relative_to(ROOT)}: {target.stat().st_size} bytes')


def main():
    if '--picture' in sys.argv:
        return picture()
    target, wanted = ROOT / 'README.md', readme()
    if '--check' not in sys.argv:
        return target.write_text(wanted, encoding='utf-8')
    found = target.read_text(encoding='utf-8')
    if found != wanted:
        sys.exit(
            'README.md is out of step with nbs/index.ipynb; run `make readme`\n'
            + ''.join(
                difflib.unified_diff(found.splitlines(True), wanted.splitlines(True), 'README.md', 'as it should be')
            )
        )


if __name__ == '__main__':
    main()
