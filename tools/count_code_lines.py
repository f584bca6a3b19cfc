"""Count the product's lines of Python code: no blank lines, comments or docstrings.

    ./run python tools/count_code_lines.py

Counted are packages, launch files, tools and benchmarks, not tests. A line counts when a token of
code begins or goes on in it; a string below an attribute, which describes it, counts too.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("ros2_ws/src", "launch", "tools", "bench")
_BUILT = {"build", "install", "log"}
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}


def code_lines(source: str) -> int:
    """Number of lines with code in a Python file's text.

    Raises:
        SyntaxError: it is not Python.
    """
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            docstrings.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def main() -> int:
    """Print the lines of each package and of the whole; the last line is `code_lines=N`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="a checkout")
    root = parser.parse_args().root
    counts: Counter[str] = Counter()
    for folder in PRODUCT:
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).parts
            if _BUILT & set(parts[:2]):
                continue
            name = "/".join(parts[: 3 if folder == "ros2_ws/src" else 1])
            counts[name] += code_lines(path.read_text(encoding="utf-8"))
    for name, count in counts.most_common():
        print(f"{count:7d}  {name}")
    print(f"code_lines={sum(counts.values())}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
