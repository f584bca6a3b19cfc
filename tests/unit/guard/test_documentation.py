"""The README's table of codes is the one in the code."""

from pathlib import Path

from widowx_control.guard.checks import CHECKS, checks_markdown

README = Path(__file__).parents[3] / "ros2_ws" / "src" / "widowx_control" / "README.md"
BEGIN, END = "<!-- checks -->\n", "\n<!-- /checks -->"


def test_the_table_in_the_readme_is_generated():
    """To renew it: put the output of `python -m widowx_control.guard.checks` between the marks."""
    text = README.read_text()
    shown = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    assert shown == checks_markdown()
    assert all(f"`{code}`" in shown for code in CHECKS)
