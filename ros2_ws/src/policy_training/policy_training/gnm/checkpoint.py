"""Weights out of published navigation checkpoints, without running what is pickled in them.

A published GNM or ViNT file is a pickle of a training state whose `model` is a whole module object,
perhaps inside `DataParallel`; a NoMaD file is a bare state_dict. Every class that a file names is
replaced by an inert stand-in that only keeps its attributes, so that no code of the file runs and
none of its packages is needed.
"""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_MODEL_KEYS = ("model", "model_state_dict", "state_dict", "ema_model")
_PREFIX = "module."
UNUSED = ("num_batches_tracked", "_fc.weight", "_fc.bias")
"""Ends of the names of tensors that published files hold and no forward pass reads."""
_UNUSED_PART = "sa_layer."
_POSITIONS = "pos_enc"
_POSITION_TOLERANCE = 1e-5


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or whose weights are not those of the network."""


class _StandIn:
    """Keeps what a pickle gives an object; does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)

    def __call__(self, *args: Any, **kwargs: Any) -> _StandIn:
        return self

    # A pickled container (Sequential subclasses, defaultdict, …) may be filled item by item.
    def __setitem__(self, key: Any, value: Any) -> None:
        del key, value

    def append(self, value: Any) -> None:
        """See the class."""

    def extend(self, values: Any) -> None:
        """See the class."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Named tensors of the network in a checkpoint file.

    Args:
        path: File written by `torch.save`: a training state with a module object or a state_dict
            under `model`, a bare module, or a bare state_dict; with or without `DataParallel`.

    Returns:
        Name → tensor on the CPU, in the file's order, without the `module.` of `DataParallel`.

    Raises:
        CheckpointError: Not such a file.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path}: not a zip archive as torch writes since 1.6; load it with the code that "
            "wrote it and save its state_dict() with torch.save"
        )
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        stand_ins = [(type(name.rpartition(".")[2], (_StandIn,), {}), name) for name in names]
        with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged pickle raises
        raise CheckpointError(f"{path}: cannot be read as a checkpoint: {error}") from error
    weights = _weights_of(content)
    if not weights:
        found = sorted(content)[:8] if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(
            f"{path}: holds no network; found {found}, expected a state_dict, a module, or one of "
            f"them under {', '.join(_MODEL_KEYS)}"
        )
    return weights


def load_strictly(network: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Copy weights into a network; every one must be there, of its shape and finite.

    Args:
        network: Its parameters are replaced in place, or not at all.
        weights: As `read_weights` returns them.
        origin: Where they come from, for messages.

    Raises:
        CheckpointError: Names are missing or left over, shapes differ, values are not finite, or
            the position table is another one.
    """
    expected = {name: t for name, t in network.state_dict().items() if not _is_unused(name)}
    found = {name: t for name, t in weights.items() if not _is_unused(name)}
    missing = sorted(set(expected) - set(found))
    left_over = sorted(set(found) - set(expected))
    if missing or left_over:
        raise CheckpointError(
            f"{origin}: not the weights of a {type(network).__name__}: {len(missing)} tensors "
            f"missing {missing[:3]}, {len(left_over)} not expected {left_over[:3]}"
        )
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{origin}: {name} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(expected[name].shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{origin}: {name} holds values that are not finite")
        if name.endswith(_POSITIONS):
            error = float((tensor - expected[name]).abs().max())
            if error > _POSITION_TOLERANCE:
                raise CheckpointError(
                    f"{origin}: {name} differs from the sinusoidal table by {error:.2g}"
                )
    network.load_state_dict(found, strict=False)


def _is_unused(name: str) -> bool:
    return name.endswith(UNUSED) or _UNUSED_PART in name


def _weights_of(content: Any) -> dict[str, Tensor]:
    if isinstance(content, _StandIn):
        root = vars(content).get("_modules", {}).get("module", content)
        return dict(_tensors_below(root, ""))
    if not isinstance(content, Mapping):
        return {}
    for key in _MODEL_KEYS:
        if key in content:
            return _weights_of(content[key])
    weights = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if len(weights) != len(content):
        return {}
    if all(name.startswith(_PREFIX) for name in weights):
        weights = {name[len(_PREFIX) :]: tensor for name, tensor in weights.items()}
    return weights


def _tensors_below(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    attributes = vars(module)
    skipped = attributes.get("_non_persistent_buffers_set", set())
    for group in ("_parameters", "_buffers"):
        for name, tensor in (attributes.get(group) or OrderedDict()).items():
            if isinstance(tensor, Tensor) and name not in skipped:
                yield prefix + name, tensor.detach()
    for name, child in (attributes.get("_modules") or OrderedDict()).items():
        if isinstance(child, _StandIn | nn.Module):
            yield from _tensors_below(child, f"{prefix}{name}.")
