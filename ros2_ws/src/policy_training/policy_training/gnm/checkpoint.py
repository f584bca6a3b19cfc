"""Weights out of published navigation checkpoints, without running what is pickled in them.

GNM's and ViNT's training writes a dictionary whose `model` is a whole module object, perhaps
inside `DataParallel`, beside a stepped optimizer and a scheduler; NoMaD's writes bare state_dicts.
Every class that a file names is replaced by an inert stand-in that only keeps what it is given: no
code of the file runs, and none of its packages is needed.
"""

from __future__ import annotations

import pickle
import types
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from policy_server.git_lfs import FETCH_ADVICE, is_pointer
from torch import Tensor, nn

_MODEL_KEYS = ("model", "model_state_dict", "state_dict")
_EMA_KEYS = ("ema_model", "averaged_model", "ema", "model_ema", "ema_state_dict")
_PREFIX = "module."
_ZIP_START = b"PK\x03\x04"
_ITEMS = " items"
"""Attribute of a stand-in for what is set by key; no pickled attribute has a space in its name."""
_OPTIMIZER_KEYS = {"state", "param_groups"}
UNUSED = ("num_batches_tracked", "_fc.weight", "_fc.bias")
"""Ends of the names of tensors that published files hold and no forward pass reads."""
_UNUSED_PART = "sa_layer."
_POSITIONS = "pos_enc"
_POSITION_TOLERANCE = 1e-5


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or whose weights are not those of the network."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds of a network.

    Attributes:
        weights: Name → tensor on the CPU, in the file's order, without the `module.` of
            `DataParallel`.
        averaged: Whether they are the moving average of the training; None where nothing in the
            file says so.
        settings: Of a pickled module: its plain attributes that weights do not show, by the names
            of the training's YAML (`context_size`, `learn_angle`, `len_traj_pred`, `late_fusion`,
            `mha_num_attention_heads`), as far as it has them.
    """

    weights: dict[str, Tensor]
    averaged: bool | None
    settings: dict[str, Any]


class _StandIn:
    """Keeps what a pickle gives an object; does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _StandIn:
        del args, kwargs
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs

    def __setstate__(self, state: Any) -> None:
        # With slots, the state is a pair of dictionaries.
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                vars(self).update({str(key): value for key, value in part.items()})

    def __call__(self, *args: Any, **kwargs: Any) -> _StandIn:
        return _StandIn()

    def __setitem__(self, key: Any, value: Any) -> None:
        vars(self).setdefault(_ITEMS, {})[key] = value

    def append(self, value: Any) -> None:
        """See the class."""

    def extend(self, values: Any) -> None:
        """See the class."""

    def add(self, value: Any) -> None:
        """See the class."""


def _plain_dict(*args: Any) -> dict[Any, Any]:
    """In place of a defaultdict, whose first argument is code."""
    del args
    return {}


def _parameter_without_state(data: Tensor, requires_grad: bool, *rest: Any) -> Tensor:
    del rest
    return nn.Parameter(data, requires_grad)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "Counter"): Counter,
    ("collections", "defaultdict"): _plain_dict,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter_without_state,
    ("torch", "Size"): torch.Size,
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (dict, list, tuple, set, frozenset, int, float, bool, complex, str, bytes)
    },
}
"""All that a file may have called: constructors of plain containers and of tensors."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module == "torch" and isinstance(kind := getattr(torch, name, None), torch.dtype):
            return kind
        return type(name.rpartition(".")[2], (_StandIn,), {})


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_RESTRICTED_PICKLE: Any = types.SimpleNamespace(
    __name__="restricted_pickle", Unpickler=_Unpickler, load=_load
)
"""What `torch.load` takes in place of the `pickle` module."""


def read_checkpoint(path: str | Path, averaged: bool | None = None) -> Checkpoint:
    """What a file holds of a network.

    Args:
        path: File written by `torch.save`: a training state with a module object or a state_dict
            under `model`, a bare module, or a bare state_dict; with or without `DataParallel`.
        averaged: Where a file holds both, whether to take the moving average or the weights of the
            last step; None for the average.

    Raises:
        CheckpointError: Not such a file, or it does not hold what `averaged` asks for.
    """
    path = Path(path)
    content = _content(path)
    weights, settings, found_averaged = _network_in(content, averaged)
    if weights:
        if averaged is not None and found_averaged not in (None, averaged):
            raise CheckpointError(
                f"{path}: holds {'averaged' if found_averaged else 'raw'} weights only, expected "
                f"{'averaged' if averaged else 'raw'} ones"
            )
        return Checkpoint(weights, found_averaged, settings)
    if isinstance(content, Mapping) and set(content) >= _OPTIMIZER_KEYS:
        raise CheckpointError(
            f"{path}: holds the state of an optimizer, not a network; the network is in the file "
            "without `optimizer_` in its name"
        )
    if isinstance(content, Mapping) and "shadow_params" in content:
        raise CheckpointError(
            f"{path}: holds averaged parameters without their names; save the averaged model's "
            "own state_dict() with torch.save"
        )
    found = (
        sorted(map(str, content))[:8] if isinstance(content, Mapping) else type(content).__name__
    )
    raise CheckpointError(
        f"{path}: holds no network; found {found}, expected a state_dict, a module, or one of "
        f"them under {', '.join(_MODEL_KEYS + _EMA_KEYS)}"
    )


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The weights of `read_checkpoint`."""
    return read_checkpoint(path).weights


def _content(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        compiled = False
        with path.open("rb") as file:
            start = file.read(24)
            if is_pointer(start):
                raise CheckpointError(f"{path}: expected a checkpoint, found {FETCH_ADVICE}")
            if start.startswith(_ZIP_START):
                names = zipfile.ZipFile(file).namelist()
                compiled = any(name.endswith("constants.pkl") for name in names)
        if compiled:  # torch.load would hand it to the interpreter of such programs
            raise CheckpointError(
                f"{path}: holds a compiled TorchScript program, not weights; save the network's "
                "state_dict() with torch.save"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(
                path, map_location="cpu", weights_only=False, pickle_module=_RESTRICTED_PICKLE
            )
    except CheckpointError:
        raise
    except Exception as error:  # whatever a damaged pickle raises
        raise CheckpointError(
            f"{path}: not a checkpoint that torch.save has written, or a damaged one ({error}); "
            "compare its size with the original's"
        ) from error


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
                f"{tuple(expected[name].shape)}; if it was trained with other settings than the "
                "published ones, give the training's YAML with --config"
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


def _network_in(
    content: Any, averaged: bool | None
) -> tuple[dict[str, Tensor], dict[str, Any], bool | None]:
    """Weights, settings and whether they are averaged; no weights where there is no network."""
    if isinstance(content, _StandIn) and "_modules" in vars(content):
        root = vars(content)["_modules"].get("module", content)
        return dict(_tensors_below(root, "")), _settings_of(root), None
    if isinstance(content, _StandIn):
        # A dictionary of a class of its own, or an object that has the network as an attribute.
        content = {**vars(content), **vars(content).get(_ITEMS, {})}
    if not isinstance(content, Mapping):
        return {}, {}, None
    groups = [(_EMA_KEYS, True), (_MODEL_KEYS, False)]
    both = all(any(key in content for key in keys) for keys, _ in groups)
    for keys, is_average in groups if averaged is not False else reversed(groups):
        for key in keys:
            if key in content:
                weights, settings, inner = _network_in(content[key], averaged)
                if weights:
                    known = is_average if is_average or both else inner
                    return weights, settings, known
    weights = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if len(weights) != len(content):
        return {}, {}, None
    if all(name.startswith(_PREFIX) for name in weights):
        weights = {name[len(_PREFIX) :]: tensor for name, tensor in weights.items()}
    return weights, {}, None


def _settings_of(root: Any) -> dict[str, Any]:
    names = {
        "context_size": "context_size",
        "learn_angle": "learn_angle",
        "len_trajectory_pred": "len_traj_pred",
        "late_fusion": "late_fusion",
    }
    settings = {
        setting: value
        for name, setting in names.items()
        if isinstance(value := vars(root).get(name), int)
    }
    heads = {
        vars(module)["num_heads"]
        for module in _modules_below(root)
        if isinstance(vars(module).get("num_heads"), int)
    }
    if len(heads) == 1:
        settings["mha_num_attention_heads"] = heads.pop()
    return settings


def _modules_below(module: Any) -> Iterator[Any]:
    yield module
    for child in (vars(module).get("_modules") or {}).values():
        if isinstance(child, _StandIn):
            yield from _modules_below(child)


def _tensors_below(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    attributes = vars(module)
    skipped = attributes.get("_non_persistent_buffers_set", set())
    for group in ("_parameters", "_buffers"):
        for name, tensor in (attributes.get(group) or OrderedDict()).items():
            if isinstance(tensor, Tensor) and name not in skipped:
                yield prefix + name, tensor.detach()
    for name, child in (attributes.get("_modules") or OrderedDict()).items():
        if isinstance(child, _StandIn):
            yield from _tensors_below(child, f"{prefix}{name}.")
