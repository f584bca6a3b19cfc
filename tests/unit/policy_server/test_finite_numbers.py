"""What is not a number is refused wherever it can hide: in files, inputs, and what is computed."""

import hashlib
from dataclasses import replace

import bundle_builder
import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
import yaml
from navigation_bundle import write_navigation_bundle
from node_common.strict_yaml import BundleError
from onnx import TensorProto, helper, numpy_helper
from policy_server.bundle import load_bundle
from policy_server.engine import EngineOptions, InferenceError, Pipeline
from policy_server.navigation_model import create_navigation_model, load_navigation_model

PROVIDERS = ["cpu", "openvino", "openvino_bfloat16"]


@pytest.fixture(params=PROVIDERS)
def engine(request):
    if request.param != "cpu":
        pytest.importorskip("openvino")
    return EngineOptions(request.param, 1)


def layers(weights, dtype=TensorProto.FLOAT):
    """relu(state · weights), with the weights kept as `dtype`: Relu of OpenVINO hides NaN."""
    kept = weights.astype(helper.tensor_dtype_to_np_dtype(dtype))
    nodes = [
        helper.make_node("Cast", ["kept"], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["state", "weights"], ["product"]),
        helper.make_node("Relu", ["product"], ["action"]),
    ]
    return make_model(nodes, [numpy_helper.from_array(kept, "kept")])


def make_model(nodes, initializers=(), functions=(), **arguments):
    state, action = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 7])
        for name in ("state", "action")
    )
    graph = helper.make_graph(nodes, "policy", [state], [action], list(initializers), **arguments)
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9, functions=list(functions))


def write(directory, model, extra=None):
    section = bundle_builder.deployment(
        kind="chunked",
        observations=[bundle_builder.state_observation("policy/state")],
        stages={"policy": "policy"},
    )
    file = bundle_builder.write_bundle(directory, {"policy": model}, section)
    if extra:
        document = yaml.safe_load(file.read_text())
        for name, content in extra.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(content)
            document["deployment"]["files"][name] = hashlib.sha256(content).hexdigest()
        file = bundle_builder.write_yaml(directory, document)
    return file


def spoilt(value, shape=(7, 7)):
    weights = np.random.default_rng(2).normal(size=shape)
    weights[np.unravel_index(weights.size // 3, shape)] = value
    return weights


@pytest.mark.parametrize(
    "dtype",
    [
        TensorProto.FLOAT,
        TensorProto.DOUBLE,
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
        TensorProto.FLOAT8E5M2,
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_weight_that_is_no_number_refuses_the_bundle(tmp_path, dtype, value):
    load_bundle(write(tmp_path / "good", layers(spoilt(0.5), dtype)))
    expected = rf"policy.onnx: weights kept: found {value} at \[2, 2\], 1 of 49"
    with pytest.raises(BundleError, match=expected):
        load_bundle(write(tmp_path / "bad", layers(spoilt(value), dtype)))


def _add(constant):
    return [constant, helper.make_node("Add", ["state", constant.output[0]], ["action"])]


def _in_a_branch(tensor):
    branch = helper.make_graph(
        [helper.make_node("Add", ["state", "hidden"], ["sum"])],
        "branch",
        [],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1, 7])],
        [tensor],
    )
    condition = numpy_helper.from_array(np.array(True), "condition")
    node = helper.make_node("If", ["condition"], ["action"], then_branch=branch, else_branch=branch)
    return make_model([node], [condition])


def _in_a_function(tensor):
    function = helper.make_function(
        "own",
        "Shift",
        ["x"],
        ["y"],
        [
            helper.make_node("Constant", [], ["shift"], value=tensor),
            helper.make_node("Add", ["x", "shift"], ["y"]),
        ],
        [helper.make_opsetid("", 18)],
    )
    node = helper.make_node("Shift", ["state"], ["action"], domain="own")
    return make_model([node], functions=[function])


def _sparse(values):
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(values.astype(np.float32), "hidden"),
        numpy_helper.from_array(np.arange(values.size), "places"),
        [7],
    )
    node = helper.make_node("Add", ["state", "hidden"], ["action"])
    return make_model([node], sparse_initializer=[sparse])


PLACES = {
    "constant": lambda v: make_model(
        _add(helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(v, "t")))
    ),
    "float": lambda v: make_model(_add(helper.make_node("Constant", [], ["c"], value_float=v[3]))),
    "floats": lambda v: make_model(_add(helper.make_node("Constant", [], ["c"], value_floats=v))),
    "attribute": lambda v: make_model(
        [helper.make_node("LeakyRelu", ["state"], ["action"], alpha=float(v[3]))]
    ),
    "branch": lambda v: _in_a_branch(numpy_helper.from_array(v, "hidden")),
    "function": lambda v: _in_a_function(numpy_helper.from_array(v, "hidden")),
    "sparse": _sparse,
}


@pytest.mark.parametrize("place", PLACES)
def test_not_a_number_is_found_wherever_a_model_keeps_numbers(tmp_path, place):
    values = np.arange(7, dtype=np.float32)
    load_bundle(write(tmp_path / "good", PLACES[place](values)))
    values[3] = np.nan
    with pytest.raises(BundleError, match=r"policy.onnx: weights .*: found nan at .*export"):
        load_bundle(write(tmp_path / "bad", PLACES[place](values)))


def _beside(weights, location):
    model = layers(weights)
    tensor = model.graph.initializer[0]
    content = tensor.raw_data
    onnx.external_data_helper.set_external_data(tensor, location, offset=0, length=len(content))
    tensor.ClearField("raw_data")
    return model, content


def test_weights_beside_the_model_are_looked_at_too(tmp_path, engine):
    model, content = _beside(spoilt(np.nan), "weights/deep/policy.bin")
    with pytest.raises(BundleError, match=r"weights kept: found nan"):
        load_bundle(write(tmp_path / "bad", model, {"weights/deep/policy.bin": content}))
    weights = spoilt(0.5)
    model, content = _beside(weights, "weights/deep/policy.bin")
    bundle = load_bundle(write(tmp_path / "good", model, {"weights/deep/policy.bin": content}))
    state = np.ones((1, 7), np.float32)
    outputs = Pipeline(bundle, engine).run({"policy/state": state})
    expected = np.maximum(weights.sum(axis=0), 0)
    np.testing.assert_allclose(outputs["policy/action"][0], expected, rtol=0.02, atol=0.02)
    shorter = {"weights/deep/policy.bin": content[:-1]}
    with pytest.raises(BundleError, match=r"found bytes 0 to 196 of .*, expected bytes 0 to 195"):
        load_bundle(write(tmp_path / "short", model, shorter))


@pytest.mark.parametrize("location", ["weights/policy.bin", "/tmp/policy.bin", "../policy.bin"])
def test_a_file_of_weights_that_is_not_listed_is_named(tmp_path, location):
    model, _ = _beside(spoilt(0.5), location)
    with pytest.raises(BundleError, match=r"not listed.*list it in deployment.files") as caught:
        load_bundle(write(tmp_path / "sum", model))
    assert location in str(caught.value)


def test_infinities_pass_as_bounds_and_masks_and_not_as_weights(tmp_path):
    causal = np.where(np.tri(7) > 0, 0.0, -np.inf)
    slopes = np.where(np.tri(7) > 0, -np.abs(np.subtract.outer(range(7), range(7))), -np.inf)

    def added(values):
        rows = numpy_helper.from_array(values.astype(np.float32), "c")
        nodes = [
            helper.make_node("Add", ["state", "c"], ["sum"]),
            helper.make_node("ReduceMax", ["sum"], ["action"], keepdims=0),
        ]
        return make_model(nodes, [rows])

    for index, values in enumerate([causal, slopes, np.array(-np.inf), np.array([np.inf])]):
        load_bundle(write(tmp_path / f"mask{index}", added(values)))
    bounds = [numpy_helper.from_array(np.float32(v), n) for v, n in ((0, "low"), (np.inf, "high"))]
    clip = helper.make_node("Clip", ["state", "low", "high"], ["action"])
    load_bundle(write(tmp_path / "clip", make_model([clip], bounds)))
    with pytest.raises(BundleError, match=r"weights c: found -inf at \[16\], 1 of 49"):
        load_bundle(write(tmp_path / "bias", added(spoilt(-np.inf, (49,)))))
    product = helper.make_node("MatMul", ["state", "c"], ["action"])
    for values in (causal, np.full((7, 7), np.inf)):
        weights = numpy_helper.from_array(values.astype(np.float32), "c")
        with pytest.raises(BundleError, match=r"weights c: found -?inf"):
            load_bundle(write(tmp_path / "layer", make_model([product], [weights])))


def test_initial_values_that_are_no_numbers_are_refused(tmp_path):
    start = np.zeros((1, 7))
    start[0, 4] = np.nan
    file = bundle_builder.write_recurrent_bundle(tmp_path / "sum", {"add/total_in": start})
    with pytest.raises(BundleError, match=r"add/total_in: found .*nan.*, expected finite numbers"):
        load_bundle(file)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_no_numbers_are_refused_and_not_remembered(tmp_path, engine, value):
    file = bundle_builder.write_recurrent_bundle(tmp_path / "sum")
    pipeline = Pipeline(load_bundle(file), engine)
    state = np.ones((1, 7), np.float32)
    pipeline.run({"add/state": state})
    bad = state.copy()
    bad[0, 5] = value
    with pytest.raises(
        InferenceError, match=rf"add/state: found {value} at \[0, 5\], expected fin"
    ):
        pipeline.run({"add/state": bad})
    np.testing.assert_allclose(pipeline.run({"add/state": state})["add/total_out"], 2 * state)


def test_what_goes_on_to_another_model_is_finite(tmp_path, engine):
    root = bundle_builder.HEADER + (
        "first (float[1,7] state) => (float[1,7] root) { root = Sqrt(state) }"
    )
    relu = bundle_builder.HEADER + (
        "policy (float[1,7] root) => (float[1,7] action) { action = Relu(root) }"
    )
    section = bundle_builder.deployment(
        kind="chunked",
        observations=[bundle_builder.state_observation("first/state")],
        stages={"policy": "policy"},
    )
    file = bundle_builder.write_bundle(
        tmp_path / "root", {"first": root, "policy": relu}, section, [("first/root", "policy/root")]
    )
    pipeline = Pipeline(load_bundle(file), engine)
    good = pipeline.run({"first/state": np.full((1, 7), 4.0, np.float32)})
    np.testing.assert_allclose(good["policy/action"], 2.0, rtol=0.01)
    with pytest.raises(InferenceError, match=r"policy/root: found nan"):
        pipeline.run({"first/state": np.full((1, 7), -4.0, np.float32)})


def _with_content(bundle, node, change):
    """The bundle with another content of a model, past the checks of reading."""
    models = []
    for model in bundle.models:
        if model.name == node:
            proto = onnx.load_model_from_string(model.content)
            change(proto.graph)
            model = replace(model, content=proto.SerializeToString())
        models.append(model)
    return replace(bundle, models=tuple(models))


def test_the_first_run_of_every_provider_is_compared_with_onnx_runtime(tmp_path, engine):
    """A provider that turns what is not a number into one is found out by its first run."""

    def spoil(graph):
        graph.initializer[0].CopyFrom(
            numpy_helper.from_array(spoilt(np.nan).astype(np.float32), "kept")
        )

    good = load_bundle(write(tmp_path / "sum", layers(spoilt(0.5))))
    state = {"policy/state": np.full((1, 7), 0.3, np.float32)}
    pipeline = Pipeline(good, engine)
    for _ in range(2):
        assert np.isfinite(pipeline.run(state)["policy/action"]).all()
    pipeline = Pipeline(_with_content(good, "policy", spoil), engine)
    if engine.provider == "cpu":
        assert np.isnan(pipeline.run(state)["policy/action"]).any()
    else:
        expected = "policy/action: found a difference of nan between OpenVINO and ONNX Runtime"
        with pytest.raises(InferenceError, match=expected):
            pipeline.run(state)


def test_what_a_model_draws_by_chance_is_not_compared(tmp_path, engine):
    nodes = [
        helper.make_node("RandomNormalLike", ["state"], ["noise"]),
        helper.make_node("Add", ["state", "noise"], ["action"]),
    ]
    pipeline = Pipeline(load_bundle(write(tmp_path / "noise", make_model(nodes))), engine)
    pipeline.run({"policy/state": np.zeros((1, 7), np.float32)})


def test_a_navigation_model_is_warmed_up_when_it_is_loaded(tmp_path, engine):
    file = write_navigation_bundle(tmp_path / "way")
    load_navigation_model(file, 1, engine.provider)
    bundle = load_bundle(file)

    def spoil(graph):
        (scale,) = [n for n in graph.node if list(n.output) == ["scale"]]
        scale.attribute[0].t.CopyFrom(numpy_helper.from_array(np.float32(np.nan), "t"))

    for node in ("observe", "match", "embed"):
        with pytest.raises(BundleError, match=r"warm-up: found .*(nan|difference)"):
            create_navigation_model(_with_content(bundle, node, spoil), replace(engine, fuse=True))


def test_small_types_hold_what_is_checked():
    """Their not-a-numbers must survive the conversion to float32."""
    for dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, np.float16):
        assert np.isnan(np.array([np.nan]).astype(dtype).astype(np.float32)).all()
