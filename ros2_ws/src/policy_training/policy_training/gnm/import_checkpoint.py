"""Make a bundle of a published GNM, ViNT or NoMaD checkpoint.

    python -m policy_training.gnm.import_checkpoint --kind gnm --checkpoint gnm.pth --out models/gnm

The file's tensors must be exactly those of the published network; see `checkpoint` for the forms
that are read. Published weights have their own licence, which `--licence` puts into the bundle.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from policy_training.gnm.bundle_writer import ExportError
from policy_training.gnm.checkpoint import CheckpointError, load_strictly, read_weights
from policy_training.gnm.export import export_gnm
from policy_training.gnm.export_tokens import export_token_network
from policy_training.gnm.networks import Gnm
from policy_training.gnm.nomad import Nomad
from policy_training.gnm.vint import Vint, VintConfig

KINDS = ("gnm", "vint", "vint_late_fusion", "nomad")


def import_checkpoint(
    kind: str, checkpoint: str | Path, out: str | Path, licence: str = "unknown"
) -> dict[str, Any]:
    """Read a published file and write the bundle.

    Args:
        kind: One of `KINDS`.
        checkpoint: The `.pth` file.
        out: Bundle directory; replaced only when everything is right.
        licence: Of the weights.

    Returns:
        The bundle's deployment section.

    Raises:
        CheckpointError: The file cannot be read, or holds the weights of another network.
        ExportError: The exported graphs differ from the network.
    """
    network = _network(kind)
    checkpoint = Path(checkpoint)
    load_strictly(network, read_weights(checkpoint), str(checkpoint))
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    policy = {
        "licence": licence,
        "algorithm": "imported",
        "trained_on": f"{checkpoint.name}, sha256 {digest}",
        "command": f"python -m policy_training.gnm.import_checkpoint --kind {kind} "
        f"--checkpoint {checkpoint.name}",
    }
    if isinstance(network, Gnm):
        return export_gnm(network, str(out), policy)
    assert isinstance(network, Vint | Nomad)
    return export_token_network(network, str(out), policy)


def _network(kind: str) -> nn.Module:
    if kind == "gnm":
        return Gnm()
    if kind == "vint":
        return Vint()
    if kind == "vint_late_fusion":
        return Vint(VintConfig(context_size=0, late_fusion=True))
    if kind == "nomad":
        return Nomad()
    raise CheckpointError(f"found the kind {kind!r}, expected one of {KINDS}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Make a bundle of a published checkpoint.")
    parser.add_argument("--kind", required=True, choices=KINDS)
    parser.add_argument("--checkpoint", required=True, help=".pth file")
    parser.add_argument("--out", required=True, help="bundle directory, e.g. models/gnm")
    parser.add_argument("--licence", default="unknown", help="of the weights")
    options = parser.parse_args(arguments)
    try:
        deployment = import_checkpoint(
            options.kind, options.checkpoint, options.out, options.licence
        )
    except (CheckpointError, ExportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    difference = deployment["validation"]["max_abs_error"]
    print(f"{options.out}: largest difference between ONNX Runtime and torch {difference:.1e}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
