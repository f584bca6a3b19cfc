"""Make a bundle of a published GNM, ViNT or NoMaD checkpoint.

    python -m policy_training.gnm.import_checkpoint --config vint.yaml --checkpoint vint.pth \\
        --out models/vint

The file's tensors must be exactly those of the network; see `checkpoint` for the forms that are
read. `--config` takes the YAML of the training; settings that nobody told are those of the
published networks, and are printed and stored. Published weights have their own licence, which
`--licence` puts into the bundle.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from policy_training.gnm.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_strictly,
    read_checkpoint,
)
from policy_training.gnm.export import export_gnm
from policy_training.gnm.export_tokens import export_token_network
from policy_training.gnm.networks import Gnm
from policy_training.gnm.training_config import KINDS, TrainingSettings, read_settings
from policy_training.rounding import ExportError


def import_checkpoint(
    kind: str | None,
    checkpoint: str | Path,
    out: str | Path,
    licence: str = "unknown",
    config: Sequence[str | Path] = (),
    data_config: str | Path | None = None,
    averaged: bool | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Read a published file and write the bundle.

    Args:
        kind: One of `KINDS`; None for the `model_type` of `config`.
        checkpoint: The `.pth` file.
        out: Bundle directory; replaced only when everything is right.
        licence: Of the weights.
        config: YAML files of the training, see `read_settings`.
        data_config: Its `data_config.yaml`.
        averaged: Whether the weights are the moving average of the training (NoMaD writes both);
            None for what the file or its name says.
        report: Told what is done, and what is assumed.

    Returns:
        The bundle's deployment section.

    Raises:
        CheckpointError: A file cannot be read, a setting is not supported, or the weights are
            those of another network.
        ExportError: The exported graphs differ from the network.
    """
    path = Path(checkpoint)
    report(f"reading {path}")
    content = read_checkpoint(path, averaged)
    settings = read_settings(kind, config, data_config, content)
    weights = _which_weights(settings.kind, path, content, averaged)
    for name in settings.assumed:
        report(f"assumed, as published: {name} {settings.values[name]}")
    report(f"weights: {weights}")
    network = settings.network()
    load_strictly(network, content.weights, str(path))
    policy = {
        "licence": licence,
        "algorithm": "imported",
        "trained_on": f"{path.name}, sha256 {_sha256(path)}",
        "command": _command(settings, path, config, data_config),
        "settings": {
            **settings.values,
            "weights": weights,
            "assumed": list(settings.assumed),
        },
    }
    if isinstance(network, Gnm):
        return export_gnm(network, str(out), policy, settings.max_distance_steps, report)
    return export_token_network(network, str(out), policy, settings.max_distance_steps, report)


def _which_weights(kind: str, path: Path, content: Checkpoint, averaged: bool | None) -> str:
    """Of the last step or averaged; NoMaD's files are told apart by their names alone."""
    if kind != "nomad":
        return "of the last step"
    stem = path.stem.lower()
    named = True if "ema" in re.split(r"[^a-z]+", stem) else None
    if named is None and (stem == "latest" or stem.isdigit()):
        named = False
    if averaged is not None and named not in (None, averaged) and content.averaged is None:
        raise CheckpointError(
            f"{path}: by its name holds {'averaged (ema)' if named else 'raw'} weights, expected "
            f"{'averaged (ema)' if averaged else 'raw'} ones, as --weights says"
        )
    known = next((v for v in (content.averaged, averaged, named) if v is not None), None)
    if known is None:
        return "not known whether raw or averaged (ema); --weights stores it"
    return "moving average (ema)" if known else "of the last step (raw)"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _command(
    settings: TrainingSettings,
    path: Path,
    config: Sequence[str | Path],
    data_config: str | Path | None,
) -> str:
    late = settings.values.get("late_fusion")
    words = ["python -m policy_training.gnm.import_checkpoint"]
    words.append(f"--kind {settings.kind}{'_late_fusion' if late else ''}")
    words += [f"--config {Path(file).name}" for file in config]
    words += [f"--data-config {Path(data_config).name}"] if data_config else []
    return " ".join([*words, f"--checkpoint {path.name}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Make a bundle of a published checkpoint.")
    parser.add_argument("--kind", choices=KINDS, help="default: what --config says")
    parser.add_argument("--checkpoint", required=True, help=".pth file")
    parser.add_argument("--out", required=True, help="bundle directory, e.g. models/gnm")
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        help="YAML of the training, e.g. gnm.yaml; may be given again, later files win",
    )
    parser.add_argument("--data-config", help="data_config.yaml, for NoMaD's action_stats")
    parser.add_argument(
        "--weights",
        choices=("raw", "ema"),
        help="NoMaD: which of the two the file holds, or which to take where it holds both",
    )
    parser.add_argument("--licence", default="unknown", help="of the weights")
    options = parser.parse_args(arguments)
    if options.kind is None and not options.config:
        parser.error("expected --kind, --config or both")
    start = time.monotonic()

    def report(text: str) -> None:
        print(f"{time.monotonic() - start:5.0f} s  {text}", file=sys.stderr, flush=True)

    try:
        deployment = import_checkpoint(
            options.kind,
            options.checkpoint,
            options.out,
            options.licence,
            options.config,
            options.data_config,
            {"raw": False, "ema": True, None: None}[options.weights],
            report,
        )
    except (CheckpointError, ExportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    difference = deployment["validation"]["max_abs_error"]
    print(
        f"{options.out}: largest difference between ONNX Runtime and the network {difference:.1e}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
