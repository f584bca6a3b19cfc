"""Where a benchmark writes what it measured: beside the committed results, unless asked."""

from __future__ import annotations

import argparse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = ROOT / "bench" / "results"
"""Tracked by git; the README's figures come from here."""
OWN = ROOT / "runs" / "bench"
"""Ignored by git."""


def add_results_option(parser: argparse.ArgumentParser) -> None:
    """Add `--update-results` to a benchmark's options."""
    parser.add_argument(
        "--update-results",
        action="store_true",
        help=f"replace the committed files in {COMMITTED.relative_to(ROOT)}; otherwise results go "
        f"to {OWN.relative_to(ROOT)}",
    )


def write_result(name: str, text: str, update: bool) -> Path:
    """Write a result file and say where.

    Args:
        name: File name.
        text: Content.
        update: The value of `--update-results`.

    Returns:
        The file.
    """
    folder = COMMITTED if update else OWN
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text, encoding="utf-8")
    print(f"results: {file.relative_to(ROOT)}")
    return file
