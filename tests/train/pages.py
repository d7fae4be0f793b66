"""What the page of any program must keep to, so that it is believed alone."""

import re
import shlex


def assert_believed_alone(text, folder, seeds):
    """Rows and deviations are explained before the first table, and the end says what to run.

    Args:
        text: of the page, in Markdown.
        folder: of the run.
        seeds: number of seeds.
    """
    before, _, tables = text.partition("\n|")
    assert "Rows: *" in before, "no row is explained"
    if seeds == 1:
        assert "One seed: no deviation is known" in before
        assert "±" not in tables, "a deviation of one seed"
    else:
        assert f"± is the standard deviation over {seeds} seeds" in before
    cells = re.findall(r"(?<=\|)[^|\n]+(?=\|)", tables)
    for cell in cells:
        # no number that is none, and no interval that claims certainty
        assert not re.search(r"\b(inf|nan|None)\b", cell), cell
        assert not re.search(r"\b(0\.0 \(0\.0-0\.0|100\.0 \(100\.0-100\.0)\)", cell), cell
    heading, _, steps = text.partition("## Next\n```\n")
    assert heading
    assert steps.endswith("```\n")
    commands = [shlex.split(line, comments=True) for line in steps.splitlines()[:-1]]
    assert ["python", "-m", "train.evaluate", str(folder)] in commands
    for command in commands:
        assert command[:2] == ["python", "-m"]
        assert str(folder) in command
