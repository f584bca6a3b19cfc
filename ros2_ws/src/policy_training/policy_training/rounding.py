"""How far single precision alone may take the outputs of a network, whatever processor computes.

An export, a split or a folded layer computes the same function in another order, so its outputs
differ from the network's by rounding. By how much depends on the network (a heading is the
direction of a vector, and rounding leaves little of a short one's) and on the processor. So there
is no fixed tolerance here: outputs are compared with the network in double precision, and each
element may be off by a multiple of what rounding does to it. That is its spread when results of
all operations are disturbed at random by relative errors of the size of a rounding (Monte Carlo
arithmetic: Parker, "Monte Carlo Arithmetic: exploiting randomness in floating-point arithmetic",
1997), and the terms of sums of products by what summing them one after the other leaves.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

ROUNDING = 2.0**-24
"""Largest relative error of one rounding to float32."""
MARGIN = 32.0
"""Accepted error as a multiple of the spread.

The largest of some thousand elements lies 4 spreads out, and a spread from a few draws may be half
of the true one. Exports reach 7 with AVX2 and AVX-512, 11 with neither; a factor of 1.0001 on the
weights of one layer, or an epsilon of 3e-5 in place of 1e-5, is at 400 and more.
"""
_DISTURBANCE = 64 * ROUNDING
"""What is applied: as rounding comes on top of it, it has to be larger, and still be small enough
that outputs follow it linearly. The spread is scaled back."""
_PASSES = 4
_TABLE = 1 << 20


class ExportError(RuntimeError):
    """What was exported is not the network it was made from."""


@dataclass(frozen=True)
class Expected:
    """One output of a network in double precision.

    Attributes:
        value: float64.
        spread: float64 of the same shape: what rounding to float32 makes of it (one sigma). At
            least half of what it makes of most elements of the output, as a few draws may say too
            little of one element, and at least one rounding of the largest.
    """

    value: NDArray[np.float64]
    spread: NDArray[np.float64]


def expected_outputs(module: nn.Module, inputs: Sequence[Tensor], seed: int = 0) -> list[Expected]:
    """What a module returns, and how well float32 can know it.

    Args:
        module: Returns a tensor or a tuple of them; run in evaluation mode.
        inputs: Its arguments. Pictures are integers and stay so.
        seed: Of the disturbances.

    Returns:
        One entry per output.
    """
    module = copy.deepcopy(module).eval()
    single = _run(module, inputs)
    generator = torch.Generator().manual_seed(seed)
    squares = [torch.zeros_like(value) for value in single]
    with _Disturbing(generator):
        for _ in range(_PASSES):
            for square, value, disturbed in zip(squares, single, _run(module, inputs), strict=True):
                square += (disturbed - value) ** 2
    exact = [value.double() if value.is_floating_point() else value for value in inputs]
    with _double_precision(), _DepthwiseBySums():
        values = _run(module.double(), exact)
    expected = []
    for value, square in zip(values, squares, strict=True):
        spread = (square.double() / _PASSES).sqrt() * (ROUNDING / _DISTURBANCE)
        floor = max(ROUNDING * float(value.abs().max()), 0.5 * float(spread.median()))
        expected.append(Expected(value.numpy(), spread.clamp(min=floor).numpy()))
    return expected


def check_outputs(
    where: str, found: Mapping[str, NDArray[Any] | Tensor], expected: Sequence[Expected]
) -> dict[str, float]:
    """Compare outputs with what `expected_outputs` said of the network.

    Args:
        where: Start of a message, e.g. "match: ONNX Runtime".
        found: Output name → value, in the network's order.
        expected: One entry per name.

    Returns:
        Name → largest absolute difference.

    Raises:
        ExportError: An output differs by more than `MARGIN` spreads, or is not finite.
    """
    worst = {}
    for (name, value), wanted in zip(found.items(), expected, strict=True):
        error = np.abs(np.asarray(value, np.float64) - wanted.value)
        excess = float((error / np.maximum(wanted.spread, np.finfo(np.float64).tiny)).max())
        if not excess <= MARGIN:
            raise ExportError(
                f"{where}: {name} differs from the network in double precision by "
                f"{float(error.max()):.2e}, {excess:.3g} times what rounding to float32 explains, "
                f"expected at most {MARGIN:g} times"
            )
        worst[name] = float(error.max())
    return worst


def _run(module: nn.Module, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    # The fused kernel of the attention is one operation: nothing could be disturbed within.
    fastpath = torch.backends.mha.get_fastpath_enabled()
    threads = torch.get_num_threads()
    torch.backends.mha.set_fastpath_enabled(False)
    # Threads wait for each other after each operation: on a busy computer, ten times as long.
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            outputs = module(*inputs)
    finally:
        torch.set_num_threads(threads)
        torch.backends.mha.set_fastpath_enabled(fastpath)
    return outputs if isinstance(outputs, tuple) else (outputs,)


@contextmanager
def _double_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class _Disturbing(TorchDispatchMode):
    """Multiplies results of operations by 1 + disturbance · noise, and the terms of sums too."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator
        # Uniform noise of unit variance; drawing it anew for every tensor would take longer than
        # the network.
        noise = (torch.rand(_TABLE, generator=generator) - 0.5) * 12**0.5
        self._noise = (_DISTURBANCE * noise).repeat(2)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        terms = _terms(func, args)
        if terms:
            # Partial sums grow with the root of their length, so do n roundings of them: a
            # relative error of sqrt(n / 6), half of it for each operand.
            size = (1 + terms / 12) ** 0.5
            args = torch.utils._pytree.tree_map(lambda value: self._disturbed(value, size), args)
        result = func(*args, **(kwargs or {}))
        # What works in place returns an operand of the caller's.
        if func.is_view or func._schema.is_mutable:
            return result
        return torch.utils._pytree.tree_map(self._disturbed, result)

    def _disturbed(self, value: Any, size: float = 1.0) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32 or not value.numel():
            return value
        count = value.numel()
        start = int(torch.randint(_TABLE, (1,), generator=self._generator))
        noise = self._noise[start : start + min(count, _TABLE)]
        if count > _TABLE:
            noise = noise.repeat(-(-count // _TABLE))[:count]
        return torch.addcmul(value, value, noise.reshape(value.shape), value=size)


def _terms(func: Any, args: tuple[Any, ...]) -> int:
    """How many products an operation sums up; 0 for other operations."""
    aten = torch.ops.aten
    if func is aten.convolution.default:
        return int(args[1].numel() // args[1].shape[1 if args[6] else 0])
    if func in (aten.mm.default, aten.bmm.default):
        return int(args[0].shape[-1])
    return int(args[1].shape[-1]) if func is aten.addmm.default else 0


class _DepthwiseBySums(TorchDispatchMode):
    """Depthwise convolutions as sums of shifted pictures: torch has no fast ones for float64."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        if func is torch.ops.aten.convolution.default:
            images, weight, bias, stride, padding, dilation, transposed, _, groups = args
            plain = not transposed and list(dilation) == [1, 1]
            if plain and groups == images.shape[1] == weight.shape[0]:
                return _depthwise(images, weight, bias, stride, padding)
        return func(*args, **(kwargs or {}))


def _depthwise(
    images: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int]
) -> Tensor:
    down, right = padding
    padded = nn.functional.pad(images, (right, right, down, down))
    height, width = weight.shape[2:]
    rows = (padded.shape[2] - height) // stride[0] + 1
    columns = (padded.shape[3] - width) // stride[1] + 1
    total = torch.zeros(*images.shape[:2], rows, columns, dtype=images.dtype)
    for y in range(height):
        for x in range(width):
            part = padded[:, :, y :: stride[0], x :: stride[1]][:, :, :rows, :columns]
            total += part * weight[:, 0, y, x, None, None]
    return total if bias is None else total + bias[:, None, None]
