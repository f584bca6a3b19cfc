#!/usr/bin/env bash
# OpenVINO 2026.4.1 on the CPU: Relu and Clip make numbers of not-a-numbers, also of those that come
# from a weight; ONNX Runtime 1.31.1 keeps them, as ONNX and IEEE 754 arithmetic do. A check of a network's
# output for finite numbers is therefore blind with OpenVINO.
# Valid input: two networks of ONNX opset 18, checked by onnx.checker.
# Behaviour and output seen, one line per network:
#   relu(x · w), one w is NaN: ONNX Runtime [nan], OpenVINO [0.]
#   clip(x, -1, 1), x is NaN:  ONNX Runtime [nan], OpenVINO [-1.]
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    openvino==2026.4.1 onnxruntime==1.31.1 onnx==1.23.2
venv/bin/python - <<'EOF'
import sys

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import openvino

HEADER = '<ir_version: 9, opset_import: ["": 18]>\n'
RELU = HEADER + "net (float[1,2] x) => (float[1,1] y) { p = MatMul(x, w)  y = Relu(p) }"
CLIP = HEADER + """net (float[1,1] x) => (float[1,1] y) {
  low = Constant<value = float {-1.0}>()
  high = Constant<value = float {1.0}>()
  y = Clip(x, low, high)
}"""
weight = onnx.numpy_helper.from_array(np.array([[1.0], [np.nan]], np.float32), "w")
cases = (
    ("relu(x · w), one w is NaN", RELU, [weight], np.ones((1, 2), np.float32), 0.0),
    ("clip(x, -1, 1), x is NaN", CLIP, [], np.full((1, 1), np.nan, np.float32), -1.0),
)
as_seen = True
for name, text, weights, x, seen in cases:
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(weights)
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    reference = onnxruntime.InferenceSession(content).run(None, {"x": x})[0][0]
    compiled = openvino.compile_model(openvino.Core().read_model(content), "CPU")
    found = compiled([x])[0][0]
    print(f"{name}: ONNX Runtime {reference}, OpenVINO {found}")
    as_seen &= bool(np.isnan(reference).all() and found == seen)
sys.exit(0 if as_seen else "changed: expected [nan] of ONNX Runtime, and 0 and -1 of OpenVINO")
EOF
