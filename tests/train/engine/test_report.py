"""Reports: Markdown beside figures, and one page that needs no other file."""

import base64
import errno
import io
import os
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from corrkd_jax.errors import InputError
from tests.train.figures import assert_nothing_hidden
from train.engine.report import Report, command, legend_beside, page


def small_report():
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1], [0, 1])
    report = Report("Title & more", ["fact one", "fact two"])
    report.section("Numbers", "Text.", "| a | b |\n|---|---|\n| <b>x</b> | 2 |")
    report.section("Nothing")
    report.figure("line.png", "a line", figure)
    return report


class Reader(HTMLParser):
    """What a browser would find: texts by tag, and sources of pictures."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.words.append(data.strip())


def test_markdown_has_the_parts_in_their_order():
    assert small_report().text() == (
        "# Title & more\n\n* fact one\n* fact two\n\n## Numbers\nText.\n\n"
        "| a | b |\n|---|---|\n| <b>x</b> | 2 |\n\n## Nothing\n\n![a line](figures/line.png)\n"
    )


def test_a_report_is_written_with_its_figures(tmp_path):
    text = small_report().write(tmp_path / "run", "evaluation")
    assert (tmp_path / "run" / "evaluation.md").read_text(encoding="utf-8") == text
    assert Image.open(tmp_path / "run" / "figures" / "line.png").size == (130, 130)
    files = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {
        "run/evaluation.md",
        "run/evaluation.html",
        "run/figures/line.png",
    }


def test_the_page_needs_no_other_file(tmp_path):
    small_report().write(tmp_path)
    reader = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert {"h1", "h2", "ul", "table", "th", "td", "img"} <= set(reader.tags)
    (source,) = reader.sources
    kind, _, data = source.partition(",")
    assert kind == "data:image/png;base64"
    picture = base64.b64decode(data)
    assert picture == (tmp_path / "figures" / "line.png").read_bytes()
    assert Image.open(io.BytesIO(picture)).size == (130, 130)
    # names come from files of others: what looks like HTML is text
    assert "b" not in reader.tags
    assert "<b>x</b>" in reader.words
    assert "Title & more" in reader.words


def test_what_to_do_next_is_a_command_that_a_shell_takes():
    report = small_report()
    folder = Path("my runs") / "first"
    report.next_steps({command("train.evaluate", folder): "judge it", "x": "y"})
    *_, heading, first, last, end = report.text().splitlines()
    assert (heading, end) == ("```", "```")
    assert first == "python -m train.evaluate 'my runs/first'  # judge it"
    assert shlex.split(first, comments=True) == ["python", "-m", "train.evaluate", str(folder)]
    assert last == f"{'x':40}  # y"
    assert "## Next\n```" in report.text()
    assert "code" in Reader(report.html()).tags


def test_a_legend_hides_nothing():
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.bar([0, 1], [1, 1], label="as high as the axes")
    legend_beside(axes)
    assert_nothing_hidden(figure)
    axes.legend(loc="center")
    with pytest.raises(AssertionError, match="hides"):
        assert_nothing_hidden(figure)


def test_links_that_run_code_are_text():
    reader = Reader(page("x", "[a](javascript:alert(1)) <script>alert(2)</script>", {}))
    assert reader.sources == []
    assert "script" not in reader.tags


@pytest.mark.parametrize("name", ["figures/line.png", "report.md", "report.html"])
def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path, monkeypatch, name):
    older = small_report().write(tmp_path)
    replace = os.replace

    def full(source, target):
        if str(target).endswith(name):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"cannot be written: No space left on device") as caught:
        small_report().write(tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == older
    assert not list(tmp_path.rglob("*.tmp"))
