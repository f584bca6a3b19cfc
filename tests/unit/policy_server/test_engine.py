"""LEAPP's run rules on models whose outputs are known in closed form."""

import hashlib
import importlib
import subprocess
import sys
from dataclasses import replace

import bundle_builder
import numpy as np
import onnx
import onnx.parser
import pytest
import yaml
from policy_server.bundle import BundleError, load_bundle
from policy_server.engine import (
    PROVIDER_NAMES,
    EngineOptions,
    InferenceError,
    Pipeline,
    ProviderWarning,
    choose_provider,
    resolve,
)

CPU = EngineOptions("cpu", 1)


@pytest.fixture(params=["cpu", "openvino"])
def engine(request):
    """Options of each engine that is installed."""
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return EngineOptions(request.param, 1)


@pytest.mark.parametrize("io_binding", [False, True])
def test_feedback_takes_effect_in_the_next_tick_and_reset_restores_it(tmp_path, engine, io_binding):
    start = np.arange(7, dtype=np.float32)[None] * 100
    file = bundle_builder.write_recurrent_bundle(tmp_path / "sum", {"add/total_in": start})
    pipeline = Pipeline(load_bundle(file), replace(engine, io_binding=io_binding))
    states = np.random.default_rng(3).normal(size=(6, 1, 7)).astype(np.float32)
    for _ in range(2):
        for index, state in enumerate(states):
            outputs = pipeline.run({"add/state": state})
            total = start + states[: index + 1].sum(axis=0)
            np.testing.assert_allclose(outputs["add/total_out"], total, rtol=1e-5)
            expected = total[:, None] * np.array([1, 2, 3], np.float32)[None, :, None]
            np.testing.assert_allclose(outputs["chunk/actions"], expected, rtol=1e-5)
        pipeline.reset()


def test_feedback_without_stored_values_starts_at_zero(tmp_path):
    file = bundle_builder.write_recurrent_bundle(tmp_path / "sum")
    state = np.full((1, 7), 2.0, np.float32)
    outputs = Pipeline(load_bundle(file), CPU).run({"add/state": state})
    np.testing.assert_array_equal(outputs["add/total_out"], state)


def test_a_tick_with_bad_inputs_fails_and_leaves_the_memory_alone(tmp_path, engine):
    file = bundle_builder.write_recurrent_bundle(tmp_path / "sum")
    pipeline = Pipeline(load_bundle(file), engine)
    state = np.ones((1, 7), np.float32)
    pipeline.run({"add/state": state})
    for bad, part in [
        ({}, "no value for the input add/state"),
        ({"add/state": state, "add/stat": state}, "add/stat"),
        ({"add/state": np.ones((1, 6), np.float32)}, "add"),
        ({"add/state": state.astype(np.float64)}, "add"),
    ]:
        with pytest.raises(InferenceError, match=part):
            pipeline.run(bad)
    outputs = pipeline.run({"add/state": state})
    np.testing.assert_array_equal(outputs["add/total_out"], 2 * state)


def test_actions_may_be_in_half_precision_and_states_may_not(tmp_path, engine):
    section = bundle_builder.deployment(
        kind="chunked",
        observations=[bundle_builder.state_observation("policy/state")],
        stages={"policy": "policy"},
    )
    half = "policy (float[1,7] state) => (float16[1,7] action) { action = Cast<to = 10>(state) }"
    file = bundle_builder.write_bundle(
        tmp_path / "half", {"policy": bundle_builder.HEADER + half}, section
    )
    state = np.random.default_rng(5).normal(size=(1, 7)).astype(np.float32)
    action = Pipeline(load_bundle(file), engine).run({"policy/state": state})["policy/action"]
    assert action.dtype == np.float16
    np.testing.assert_array_equal(action, state.astype(np.float16))
    half = "policy (float16[1,7] state) => (float16[1,7] action) { action = Neg(state) }"
    file = bundle_builder.write_bundle(
        tmp_path / "halved", {"policy": bundle_builder.HEADER + half}, section
    )
    with pytest.raises(BundleError, match=r"found float16 .*expected float32"):
        load_bundle(file)


def test_models_can_be_run_one_by_one(ptr_file):
    pipeline = Pipeline(load_bundle(ptr_file), CPU)
    size = bundle_builder.IMAGE_SIZE
    image = np.full((1, size, size, 3), 51, np.uint8)
    outputs = pipeline.run({"encoder/image": image}, ("encoder",))
    assert list(outputs) == ["encoder/embedding"]
    np.testing.assert_allclose(outputs["encoder/embedding"], 0.2, rtol=1e-6)
    assert pipeline.stage_times_s["encoder"] > 0.0
    assert np.isnan(pipeline.stage_times_s["policy"])


def test_models_made_elsewhere_are_bound_by_position(tmp_path):
    file = bundle_builder.write_recurrent_bundle(tmp_path / "sum")
    document = yaml.safe_load(file.read_text())
    record = document["models"]["chunk"]
    del record["parameters"]["opset_version"]
    record["inputs"][0]["name"] = "running_total"
    document["pipeline"]["data_flow"] = {"add/total": ["chunk/running_total"]}
    file = bundle_builder.write_yaml(file.parent, document)
    state = np.ones((1, 7), np.float32)
    outputs = Pipeline(load_bundle(file), CPU).run({"add/state": state})
    assert outputs["chunk/actions"][0, 2, 0] == 3.0


def test_a_provider_that_is_not_installed_is_replaced_with_a_warning(ptr_file, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    assert choose_provider("auto") == "CPUExecutionProvider"
    with pytest.warns(ProviderWarning, match=r'"tensorrt" cannot be used .*running on the CPU'):
        pipeline = Pipeline(load_bundle(ptr_file), EngineOptions("tensorrt", 1))
    assert pipeline.provider == "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("provider", "tolerance"), [("openvino", 1e-6), ("openvino_bfloat16", 0.01)]
)
def test_openvino_computes_what_onnx_runtime_does(ptr_file, provider, tolerance):
    pytest.importorskip("openvino")
    pipeline = Pipeline(load_bundle(ptr_file), EngineOptions(provider, 1))
    assert pipeline.provider == "OpenVINO"
    size = bundle_builder.IMAGE_SIZE
    image = np.full((1, size, size, 3), 51, np.uint8)
    outputs = pipeline.run({"encoder/image": image}, ("encoder",))
    assert outputs["encoder/embedding"].dtype == np.float32
    np.testing.assert_allclose(outputs["encoder/embedding"], 0.2, rtol=tolerance)


def test_openvino_computes_batches_of_any_size_however_often_they_come(tmp_path):
    """A size that comes often gets a model of its own; its results must stay those of its input."""
    pytest.importorskip("openvino")
    bundle = load_bundle(bundle_builder.write_ptr_bundle(tmp_path / "ptr", "B"))
    pipelines = [Pipeline(bundle, EngineOptions(name, 1)) for name in ("openvino", "cpu")]
    rng = np.random.default_rng(5)
    kept = []
    for size in [*rng.integers(1, 12, 40).tolist(), *[3] * 6]:
        inputs = {
            "critic/action": rng.normal(size=(size, 7)).astype(np.float32),
            "critic/embedding": rng.normal(size=(size, 3)).astype(np.float32),
        }
        kept.append([pipeline.run(inputs, ("critic",))["critic/q"] for pipeline in pipelines])
    for found, expected in kept:
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    wrong = {**inputs, "critic/action": inputs["critic/action"][:, :1]}
    for _ in range(6):
        with pytest.raises(InferenceError):
            pipelines[0].run(wrong, ("critic",))


PORTS = {
    "Identity behind the input": """policy (float[1,7] state) => (float[1,7] action) {
  s = Identity(state)
  action = Neg(s)
}""",
    "Identity before the output": """policy (float[1,7] state) => (float[1,7] action) {
  a = Neg(state)
  action = Identity(a)
}""",
    "one value under two names": """policy (float[1,7] state)
  => (float[1,7] copy, float[1,7] action) {
  a = Neg(state)
  copy = Identity(a)
  action = Identity(a)
}""",
    "one value under two names, one of them its own": """policy (float[1,7] state)
  => (float[1,7] action, float[1,7] copy) {
  action = Neg(state)
  copy = Identity(action)
}""",
    "an input that nothing reads": """policy (float[1,7] first, float[1,7] state)
  => (float[1,7] action) { action = Neg(state) }""",
    "an input that is an output": """policy (float[1,7] first, float[1,7] state)
  => (float[1,7] same, float[1,7] action) {
  same = Identity(first)
  action = Neg(state)
}""",
}


@pytest.mark.parametrize("opset_version", [18, None], ids=["by name", "by position"])
@pytest.mark.parametrize("ports", PORTS)
def test_tensors_are_found_whatever_an_engine_calls_them(tmp_path, engine, ports, opset_version):
    names = ["state", "first"] if "first" in PORTS[ports] else ["state"]
    observations = []
    for name in names:
        observation = bundle_builder.state_observation(f"policy/{name}")
        observations.append({**observation, "name": name})
    section = bundle_builder.deployment(
        kind="chunked", observations=observations, stages={"policy": "policy"}
    )
    model = bundle_builder.HEADER + PORTS[ports]
    file = bundle_builder.write_bundle(tmp_path / "ports", {"policy": model}, section)
    if opset_version is None:
        document = yaml.safe_load(file.read_text())
        del document["models"]["policy"]["parameters"]["opset_version"]
        bundle_builder.write_yaml(file.parent, document)
    pipeline = Pipeline(load_bundle(file), engine)
    rng = np.random.default_rng(4)
    for _ in range(3):
        feed = {f"policy/{name}": rng.normal(size=(1, 7)).astype(np.float32) for name in names}
        outputs = pipeline.run(feed)
        np.testing.assert_allclose(outputs["policy/action"], -feed["policy/state"], rtol=1e-6)
        if "policy/copy" in outputs:
            np.testing.assert_array_equal(outputs["policy/copy"], outputs["policy/action"])
        if "policy/same" in outputs:
            np.testing.assert_array_equal(outputs["policy/same"], feed["policy/first"])


def test_a_model_in_a_folder_finds_the_weights_beside_it(tmp_path, engine):
    weights = onnx.numpy_helper.from_array(np.arange(7, dtype=np.float32), "w")
    content = weights.raw_data
    onnx.external_data_helper.set_external_data(weights, "policy.bin")
    weights.ClearField("raw_data")
    model = onnx.parser.parse_model(
        bundle_builder.HEADER
        + "policy (float[1,7] state) => (float[1,7] action) { action = Mul(state, w) }"
    )
    model.graph.initializer.append(weights)
    section = bundle_builder.deployment(
        kind="chunked",
        observations=[bundle_builder.state_observation("policy/state")],
        stages={"policy": "policy"},
    )
    file = bundle_builder.write_bundle(tmp_path / "folders", {"policy": model}, section)
    folder = file.parent / "nets"
    folder.mkdir()
    (file.parent / "policy.onnx").rename(folder / "policy.onnx")
    (folder / "policy.bin").write_bytes(content)
    document = yaml.safe_load(file.read_text())
    document["models"]["policy"]["parameters"]["model_path"] = "nets/policy.onnx"
    document["deployment"]["files"] = {
        f"nets/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
    }
    pipeline = Pipeline(load_bundle(bundle_builder.write_yaml(file.parent, document)), engine)
    outputs = pipeline.run({"policy/state": np.full((1, 7), 2.0, np.float32)})
    assert outputs["policy/action"][0].tolist() == [0, 2, 4, 6, 8, 10, 12]


def test_openvino_looks_at_the_cpu_only(ptr_file):
    """Its plug-in for GPUs would look for drivers, and print what it misses."""
    pytest.importorskip("openvino")
    program = """
import pathlib, sys
from policy_server.bundle import BundleError, load_bundle
from policy_server.engine import EngineOptions, Pipeline, resolve
resolve(EngineOptions("fastest"))
Pipeline(load_bundle(pathlib.Path(sys.argv[1])), EngineOptions("openvino", 1))
print(sum("libopenvino_intel_cpu" in line for line in open("/proc/self/maps")) > 0)
print(sum("libopenvino_intel_gpu" in line for line in open("/proc/self/maps")) > 0)
"""
    command = [sys.executable, "-c", program, str(ptr_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("True\nFalse\n", "")


def test_openvino_leaves_no_signal_stack_that_it_will_free(ptr_file):
    """On a freed one, the handler of the next interruption ends the process."""
    pytest.importorskip("openvino")
    program = """
import ctypes, pathlib, sys
from policy_server.bundle import BundleError, load_bundle
from policy_server.engine import EngineOptions, Pipeline
class Stack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
pipeline = Pipeline(load_bundle(pathlib.Path(sys.argv[1])), EngineOptions("fastest", 1))
found = Stack()
ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
print(found.start)
"""
    command = [sys.executable, "-c", program, str(ptr_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "None\n", done.stderr


@pytest.mark.parametrize(
    ("providers", "problem", "bfloat16", "found"),
    [
        (["CPUExecutionProvider"], "", True, "openvino_bfloat16"),
        (["CPUExecutionProvider"], "", False, "auto"),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], "", True, "auto"),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], "no driver", True, "openvino_bfloat16"),
    ],
    ids=["bfloat16", "plain CPU", "GPU", "GPU build without a GPU"],
)
def test_the_fastest_provider_is_what_the_machine_has(
    monkeypatch, providers, problem, bfloat16, found
):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: providers)
    monkeypatch.setattr("policy_server.openvino_session.has_bfloat16", lambda: bfloat16)
    monkeypatch.setattr("policy_server.gpu_libraries.problem", lambda _: problem)
    assert resolve(EngineOptions("fastest", 2)) == EngineOptions(found, 2)
    assert resolve(CPU) == CPU


@pytest.mark.parametrize("node", ["policy_server.policy_node", "gnm_nav.navigator_node"])
def test_the_nodes_take_every_provider(node):
    parameters = importlib.import_module(node).PARAMETERS
    (provider,) = [entry for entry in parameters if entry.name == "provider"]
    assert provider.choices == PROVIDER_NAMES


def test_unknown_providers_and_thread_counts_are_refused():
    with pytest.raises(ValueError, match=r"found the provider 'cudaa'.*did you mean \"cuda\""):
        EngineOptions("cudaa")
    with pytest.raises(ValueError, match="found -1 threads"):
        EngineOptions("cpu", -1)
    assert EngineOptions().thread_count >= 1


@pytest.mark.training
def test_a_recurrent_bundle_written_by_leapp_itself_runs_as_leapp_runs_it(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    leapp = pytest.importorskip("leapp")
    annotate = leapp.annotate
    monkeypatch.chdir(tmp_path)
    weight = torch.randn(7, 7, generator=torch.Generator().manual_seed(5)) * 0.1
    leapp.start("foreign", save_path=str(tmp_path))
    memory = torch.zeros(1, 7)
    for seed in range(3):
        state = torch.randn(1, 7, generator=torch.Generator().manual_seed(seed))
        state = annotate.input_tensors("core", {"state": state})
        memory = annotate.state_tensors("core", {"memory": memory})
        memory = torch.tanh(memory + state @ weight)
        action = memory * 0.05
        annotate.update_state("core", {"memory": memory})
        annotate.output_tensors("core", {"action": action}, export_with="onnx")
    leapp.stop()
    leapp.compile_graph(visualize=False, validate=True, strict=True)
    file = tmp_path / "foreign" / "foreign.yaml"
    document = yaml.safe_load(file.read_text())
    section = bundle_builder.deployment(
        kind="chunked",
        action_tensor="core/action",
        observations=[bundle_builder.state_observation("core/state")],
        stages={"policy": "core"},
    )
    names = [document["models"]["core"]["parameters"]["model_path"]]
    if document["pipeline"].get("initial_values"):
        names.append(document["pipeline"]["initial_values"])
    section["files"] = {
        name: hashlib.sha256((file.parent / name).read_bytes()).hexdigest() for name in names
    }
    document["deployment"] = section
    pipeline = Pipeline(load_bundle(bundle_builder.write_yaml(file.parent, document)), CPU)
    memory = np.zeros((1, 7))
    for state in np.random.default_rng(1).normal(size=(5, 1, 7)).astype(np.float32):
        memory = np.tanh(memory + state @ weight.numpy())
        outputs = pipeline.run({"core/state": state})
        np.testing.assert_allclose(outputs["core/action"], memory * 0.05, atol=1e-6)
