"""Random weights of published layouts, and the files that published training code would write."""

import csv
import json
import math
import sys
import types
from pathlib import Path

import torch
from torch import nn

LAYOUTS = Path(__file__).parent / "published_layouts"


def random_weights(kind, seed):
    """Tensors by name: of a scale that keeps every layer's output alive and input-dependent."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    with (LAYOUTS / f"{kind}.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            weights[row["key"]] = _random(row["key"], json.loads(row["shape"]), generator)
    return weights


def _random(name, shape, generator):
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    if name.endswith("pos_enc"):
        _, tokens, size = shape
        rate = torch.exp(-math.log(10000.0) * torch.arange(0, size, 2) / size)
        angle = torch.arange(tokens)[:, None] * rate
        return torch.stack([angle.sin(), angle.cos()], -1).reshape(1, tokens, size)
    noise = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        fan_in = math.prod(shape[1:])
        # Outputs of a few units, as trained networks have.
        gain = 0.3 if name.startswith(("action_predictor", "dist_predictor")) else 1.0
        return gain * noise * math.sqrt(2.0 / fan_in)
    if name.endswith("running_var"):
        return 0.6 + 0.3 * noise.abs()
    if name.endswith("weight"):
        return 1.0 + 0.2 * noise
    return 0.1 * noise


class Layer(nn.Module):
    """A node of the module tree; its real class does not matter to a reader of tensors."""


class TrainedNetwork(nn.Module):
    """The root; a file names its class."""


def as_module(weights, root_class):
    """The tree of modules that `weights` are the state_dict of."""
    root = root_class()
    for name, tensor in weights.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, Layer())
            module = module._modules[part]
        if last in ("running_mean", "running_var", "num_batches_tracked", "pos_enc"):
            module.register_buffer(last, tensor.clone())
        else:
            module.register_parameter(last, nn.Parameter(tensor.clone()))
    return root


def save_with_foreign_classes(content_of, path, module_name, others=()):
    """Write with classes of a package that is gone when the file is read.

    Args:
        content_of: Called with the root class, returns what to save.
        path: File to write.
        module_name: Of the package that the classes seem to be of.
        others: Further classes of that package.
    """
    package = types.ModuleType(module_name)
    root = type("Network", (nn.Module,), {"__module__": module_name})
    package.Network = root
    parts = module_name.split(".")
    parents = {".".join(parts[:n]): types.ModuleType(parts[0]) for n in range(1, len(parts))}
    sys.modules.update(parents | {module_name: package})
    homes = {kind: kind.__module__ for kind in (Layer, *others)}
    for kind in homes:
        kind.__module__ = module_name
        setattr(package, kind.__name__, kind)
    try:
        torch.save(content_of(root), path)
    finally:
        for kind, home in homes.items():
            kind.__module__ = home
        for name in (*parents, module_name):
            del sys.modules[name]
