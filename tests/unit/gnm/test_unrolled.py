"""A loop in ONNX: the steps of a loop in torch, and each weight once."""

import onnx
import onnxruntime
import pytest
import torch
from policy_training.gnm.bundle_writer import StageExport, trace_onnx
from policy_training.gnm.unrolled import unroll
from torch import nn


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x, context, scale):
        return torch.tanh(self.layer(x)) * scale + context


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("times", [1, 2, 7])
def test_an_unrolled_loop_equals_the_loop(seed, times):
    torch.manual_seed(seed)
    step, last = Step(), Last()
    scales = torch.rand(times, 1)
    x, context = torch.randn(2, 6), torch.randn(2, 6)
    free = frozenset({"x", "context", "y"})
    inputs = {"x": x, "context": context, "scale": scales[0]}
    model = unroll(
        trace_onnx(StageExport("step", step, inputs, ("y",), free)),
        ("x", "y"),
        [{"scale": scale.numpy()} for scale in scales],
        trace_onnx(StageExport("last", last, {"x": x}, ("end",), frozenset({"x", "end"}))),
        "start",
    )
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["start", "context"]
    assert sum(list(weight.dims) == [6, 6] for weight in model.graph.initializer) == 1
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for count in (1, 5):
        x, context = torch.randn(count, 6), torch.randn(count, 6)
        (found,) = session.run(None, {"start": x.numpy(), "context": context.numpy()})
        with torch.no_grad():
            for scale in scales:
                x = step(x, context, scale)
            expected = last(x)
        assert found == pytest.approx(expected.numpy(), abs=1e-5)
