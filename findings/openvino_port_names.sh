#!/usr/bin/env bash
# OpenVINO 2026.4.1: compiling a model changes what `get_any_name()` of its inputs and outputs returns. An
# Identity behind an input or before an output is removed, and the port then has the names of both
# tensors, of which the inner one may come first; so has one of two outputs of one value; an input that
# nothing reads is no port at all. ONNX Runtime 1.31.1 keeps the graph's names.
# Valid input: four networks of ONNX opset 18, checked by onnx.checker.
# Behaviour and output seen:
#   Identity behind the input: ONNX Runtime ['state'] -> ['action'], OpenVINO ['s'] -> ['action']
#   Identity before the output: ONNX Runtime ['state'] -> ['action'], OpenVINO ['state'] -> ['a']
#   one value under two names: ONNX Runtime ['state'] -> ['action', 'copy'], OpenVINO ['state'] -> ['action', 'a']
#   an input that nothing reads: ONNX Runtime ['z', 'state'] -> ['action'], OpenVINO ['state'] -> ['action']
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

import onnx
import onnx.parser
import onnxruntime
import openvino

HEADER = '<ir_version: 9, opset_import: ["": 18]>\n'
IN = "float[1,7] state"
CASES = {
    "Identity behind the input": (
        f"net ({IN}) => (float[1,7] action) {{ s = Identity(state)  action = Relu(s) }}",
        (["state"], ["action"]),
        (["s"], ["action"]),
    ),
    "Identity before the output": (
        f"net ({IN}) => (float[1,7] action) {{ a = Relu(state)  action = Identity(a) }}",
        (["state"], ["action"]),
        (["state"], ["a"]),
    ),
    "one value under two names": (
        f"net ({IN}) => (float[1,7] action, float[1,7] copy)"
        " { a = Relu(state)  action = Identity(a)  copy = Identity(a) }",
        (["state"], ["action", "copy"]),
        (["state"], ["action", "a"]),
    ),
    "an input that nothing reads": (
        f"net (float[1,7] z, {IN}) => (float[1,7] action) {{ action = Relu(state) }}",
        (["z", "state"], ["action"]),
        (["state"], ["action"]),
    ),
}
as_seen = True
for name, (text, wanted, seen) in CASES.items():
    model = onnx.parser.parse_model(HEADER + text)
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content)
    reference = tuple([p.name for p in s] for s in (session.get_inputs(), session.get_outputs()))
    compiled = openvino.compile_model(openvino.Core().read_model(content), "CPU")
    found = tuple([p.get_any_name() for p in s] for s in (compiled.inputs, compiled.outputs))
    print(
        f"{name}: ONNX Runtime {reference[0]} -> {reference[1]}, "
        f"OpenVINO {found[0]} -> {found[1]}"
    )
    if (reference, found) != (wanted, seen):
        print(f"  changed: expected {wanted} and {seen}")
        as_seen = False
sys.exit(0 if as_seen else 1)
EOF
