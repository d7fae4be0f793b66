"""What a person reads of a run: text, tables and figures, in Markdown and as one page of HTML."""

import base64
import html
import io
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from corrkd_jax.atomic import write_atomically
from train.engine import parallel
from train.engine.workdir import make_folder, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURES = "figures"
"""Folder of a report's figures, beside the report."""

_DPI = 130
_KINDS = {b"\x89PNG": "image/png", b"GIF8": "image/gif"}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto;
  max-width: 80rem; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums;
  font-size: 0.85rem; display: block; overflow-x: auto; }
th, td { border: 1px solid #ddd; padding: 0.2rem 0.5rem; text-align: left; white-space: nowrap; }
th { background: #f4f4f4; }
tbody tr:nth-child(even) { background: #fafafa; }
img { max-width: 100%; height: auto; }
code { background: #f4f4f4; padding: 0.1rem 0.25rem; }
pre { background: #f4f4f4; padding: 0.75rem; overflow-x: auto; }
"""


class Report:
    """A report under construction: parts in their order, figures by name."""

    def __init__(self, title: str, facts: Sequence[str], figures: str = FIGURES):
        """Begin with a heading and a list.

        Args:
            title: heading.
            facts: lines on data, seeds, machine.
            figures: folder of the figures, seen from the report's; empty: the report's own.
        """
        self._title = title
        self._folder = figures
        self._parts = [f"# {title}", "\n".join(f"* {fact}" for fact in facts)]
        self._figures: dict[str, bytes] = {}

    def add(self, *parts: str) -> None:
        """Add paragraphs, tables or headings in Markdown; empty ones are left out."""
        self._parts += [part for part in parts if part]

    def section(self, heading: str, *parts: str) -> None:
        """Add a heading of the second level and what stands below it.

        Args:
            heading: its text.
            parts: paragraphs and tables; the first follows the heading on the next line.
        """
        shown = [part for part in parts if part]
        self.add(f"## {heading}\n{shown[0]}" if shown else f"## {heading}", *shown[1:])

    def next_steps(self, commands: Mapping[str, str]) -> None:
        """Add a section with the commands that go on from here.

        Args:
            commands: command -> what it does, in a few words.
        """
        width = max(map(len, commands))
        lines = [f"{command:{width}}  # {what}" for command, what in commands.items()]
        self.section("Next", "```\n" + "\n".join(lines) + "\n```")

    def figure(self, name: str, caption: str, picture: "Figure | bytes") -> None:
        """Add a figure, where the text has come to.

        Args:
            name: of its file.
            caption: what it shows, for those who cannot see it.
            picture: to be drawn as PNG, or the bytes of a PNG or GIF.
        """
        self._figures[name] = picture if isinstance(picture, bytes) else drawn(picture)
        self.add(f"![{caption}]({self._path(name)})")

    def text(self) -> str:
        """The report in Markdown."""
        return "\n\n".join(self._parts) + "\n"

    def write(self, folder: Path, name: str = "report") -> str:
        """Write the figures, `NAME.md` and `NAME.html`, each whole or not at all.

        Args:
            folder: made if it does not exist.
            name: of the report.

        Returns:
            The report in Markdown.

        Raises:
            InputError: the disk refuses.
        """
        text = self.text()
        if not parallel.is_main():
            return text
        make_folder(folder)
        if self._figures:
            make_folder(folder / self._folder)
        for figure, picture in self._figures.items():
            write_picture(folder / self._path(figure), picture)
        write_text(folder / f"{name}.md", text)
        write_text(folder / f"{name}.html", self.html())
        return text

    def html(self) -> str:
        """The report as one page that needs no other file."""
        pictures = {self._path(name): picture for name, picture in self._figures.items()}
        return page(self._title, self.text(), pictures)

    def _path(self, figure: str) -> str:
        return f"{self._folder}/{figure}" if self._folder else figure


def page(title: str, text: str, pictures: dict[str, bytes]) -> str:
    """Markdown as a page of HTML with its pictures inside.

    Args:
        title: of the page.
        text: in Markdown, without HTML of its own: names come from files of others.
        pictures: bytes by the path under which the text shows them.
    """
    from markdown_it import MarkdownIt

    # without HTML, and without links to protocols that run code
    markdown = MarkdownIt("js-default", {"linkify": False, "typographer": False})
    tokens = markdown.parse(text)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image" and str(child.attrs.get("src")) in pictures:
                child.attrs["src"] = _inline(pictures[str(child.attrs["src"])])
    body = markdown.renderer.render(tokens, markdown.options, {})
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )


def command(program: str, *arguments: object) -> str:
    """A command line that a shell takes as it stands.

    Args:
        program: module that is run, such as `train.evaluate`.
        arguments: of it, in order.
    """
    return shlex.join(["python", "-m", program, *map(str, arguments)])


def evaluate_and_export(folder: Path, evaluated: str, exported: str) -> dict[str, str]:
    """Commands that every finished run can go on with, for `Report.next_steps`.

    Args:
        folder: of the run.
        evaluated: what `train.evaluate` writes.
        exported: what `train.export` writes.
    """
    return {
        command("train.evaluate", folder): evaluated,
        command("train.export", folder, folder / "export"): exported,
    }


def legend_beside(axes: "Axes") -> None:
    """Set the legend of axes to their right, where it hides nothing that is drawn."""
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def drawn(figure: "Figure") -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def write_picture(path: Path, picture: bytes) -> None:
    """Write a picture whole or not at all; raises InputError if the disk refuses."""
    write_atomically(path, lambda file: file.write(picture))


def _inline(picture: bytes) -> str:
    kind = next((kind for start, kind in _KINDS.items() if picture.startswith(start)), None)
    if kind is None:
        raise ValueError("a picture is neither PNG nor GIF")
    return f"data:{kind};base64,{base64.b64encode(picture).decode()}"
