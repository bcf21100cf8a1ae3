"""README.md from nbs/index.ipynb, with nbdev's own processors and nbconvert; no Quarto.

python tools/readme.py           writes README.md
python tools/readme.py --check   exits with 1, and a diff, if it is out of step
python tools/readme.py --picture makes the pictures of the front page anew
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


FAR = 20  # pixels; a box that came back is farther from no corner of the one that was written


def back_of(box, boxes):
    """What came back of a box, and how far its edges have moved in pixels; None and 0 if nothing did."""
    moves = [max(abs(a - b) for a, b in zip(box.xyxy, other.xyxy)) for other in boxes]
    if not moves or min(moves) > FAR:
        return None, 0
    return boxes[moves.index(min(moves))], min(moves)


def panel(before, after):
    """A part of a page with the boxes that came back, and with what became of the others."""
    from redaction_serde.visual import LOST, PALETTE, Picture, draw_box, draw_page

    figure = Picture(2.4, 1.78, dpi=290)
    ax = figure.add_axes((0, 0, 1, 1))
    draw_page(ax, before)
    ax.set(xlim=(75, 885), ylim=(957, 357))  # all its redactions, and the edge of the paper
    for box in before.detection.bboxes:
        back, moved = back_of(box, after.detection.bboxes)
        if back is None:
            draw_box(ax, box, edgecolor=LOST, linewidth=1.6, linestyle=(0, (3, 2)))
            say(ax, box, 'lost')
        elif moved > 1:
            draw_box(ax, back, edgecolor=LOST, linewidth=1.6)
            say(ax, back, f'cut by {moved:.0f} px')
        else:
            draw_box(ax, back, edgecolor=PALETTE[0], linewidth=1.6)
    return figure


def say(ax, box, text):
    """Write into the middle of a box what became of it."""
    from redaction_serde.visual import LOST

    x, y = (box.xmin + box.xmax) / 2, (box.ymin + box.ymax) / 2
    frame = dict(facecolor=LOST, edgecolor='none', pad=1.5)
    ax.text(x, y, text, fontsize=8.5, fontweight='bold', color='white', ha='center', va='center', bbox=frame)


def came_back(folder):
    """Redactions of a page as they were written, and as two ways bring them back; collections by the names of the pictures."""
    import redaction_serde as rs
    from redaction_serde.article_way import article_dumps, article_loads
    from redaction_serde.lessons.pages import make_documents

    annotations = make_documents(folder, n_pages=1, seed=0)
    everything = rs.parse_coco(str(annotations), str(annotations.parent / 'images'))
    pages = rs.filter_objects(everything, lambda record, k: record.detection.labels[k] == 'redaction')
    backwards = pages[0].detection.bboxes[2]  # a black paragraph
    backwards.xmin, backwards.xmax = backwards.xmax, backwards.xmin  # drawn from right to left
    return {
        'written': pages,
        'careless': article_loads(article_dumps(pages)),
        'ours': rs.loads(rs.dumps(pages)),
    }


def pictures():
    """The front page's: what came back of the redactions of a page. Each under 150 kB."""
    import io
    import tempfile
    from PIL import Image
    from redaction_serde.visual import png

    with tempfile.TemporaryDirectory() as folder:
        found = came_back(folder)
        for name, after in found.items():
            image = Image.open(io.BytesIO(png(panel(found['written'][0], after[0]))))
            target = NBS / 'images' / f'{name}.png'
            target.parent.mkdir(exist_ok=True)
            image.convert('RGB').quantize(40).save(target, optimize=True)
            print(f'{target.relative_to(ROOT)}: {target.stat().st_size} bytes')


def main():
    if '--picture' in sys.argv:
        return pictures()
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
