"""What the bundle verifier accepts, and every refusal with a really broken bundle."""

import hashlib
import os

import bundle_builder
import numpy as np
import onnx
import pytest
import yaml
from node_common.strict_yaml import BundleError
from policy_server.bundle import find_bundle, load_bundle
from policy_server.deployment import ChunkSpec
from policy_server.engine import EngineOptions, Pipeline
from policy_server.registry import create_policy
from policy_server.robots import check_robot, load_robot


def set_at(*path_and_value):
    *path, value = path_and_value

    def change(document):
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


def drop(*path):
    def change(document):
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return change


def load_fully(file):
    """What `configure` does up to the warm-up."""
    bundle = load_bundle(file)
    check_robot(file, bundle.deployment, ROBOT)
    return create_policy(bundle, EngineOptions("cpu", 1))


def test_a_good_bundle_loads(ptr_file):
    policy = load_fully(ptr_file)
    assert list(policy.spec.tasks) == ["push_left", "push_right"]
    assert policy.spec.rate_hz == 5.0


ROBOT = load_robot("wx250s")
D = "deployment"
REFUSALS = {
    "unknown top-level key": (set_at("deploymnt", {}), "deploymnt", 'did you mean "deployment"'),
    "no deployment": (drop(D), D, "found nothing"),
    "schema version": (
        set_at(D, "schema_version", 3),
        "schema_version",
        "found 3, expected one of",
    ),
    "schema version of another type": (
        set_at(D, "schema_version", True),
        "schema_version",
        "[1, 2]",
    ),
    "chunk of schema 2": (set_at(D, "action", "chunk", {}), "action.chunk", "unknown key"),
    "unknown deployment key": (set_at(D, "rate", 5), "deployment.rate", "unknown key"),
    "unknown nested key": (set_at(D, "control", "hz", 5), "control.hz", "unknown key"),
    "config version": (
        set_at("system information", "leapp config version", "2.0"),
        "leapp config version",
        "found 2.0",
    ),
    "unknown role": (set_at(D, "stages", "actor", "policy"), "stages.actor", "one of ['encoder'"),
    "role of no model": (set_at(D, "stages", "policy", "polcy"), "stages.policy", "polcy"),
    "missing role": (drop(D, "stages", "policy"), "stages.policy", "role policy"),
    "kind": (set_at(D, "policy", "kind", "ptrr"), "policy.kind", "available: ['chunked', 'ptr'"),
    "backend": (
        set_at("models", "policy", "parameters", "backend", "jit"),
        "parameters.backend",
        '"onnx"',
    ),
    "warp": (
        set_at("models", "policy", "parameters", "warp_segments", 2),
        "parameters.warp_segments",
        "found 2, expected 0",
    ),
    "LEAPP hash": (
        set_at("models", "policy", "parameters", "sha256sum", "0" * 64),
        "parameters.sha256sum",
        "the hash of policy.onnx",
    ),
    "listed hash": (set_at(D, "files", "policy.onnx", "0" * 64), "SHA-256", "0" * 64),
    "malformed hash": (set_at(D, "files", "policy.onnx", "abc"), "files.policy.onnx", "64"),
    "unlisted model": (drop(D, "files", "policy.onnx"), "model_path", "deployment.files"),
    "path outside": (set_at(D, "files", "../outside.onnx", "0" * 64), "outside.onnx", "inside"),
    "absolute path": (set_at(D, "files", "/etc/hostname", "0" * 64), "/etc/hostname", "inside"),
    "missing file": (set_at(D, "files", "gone.onnx", "0" * 64), "gone.onnx", "No such file"),
    "shape against the graph": (
        set_at("models", "critic", "outputs", 0, "shape", [2, 5]),
        "critic.outputs.q.shape",
        "found [2, 4], expected [2, 5]",
    ),
    "dtype against the graph": (
        set_at("models", "critic", "outputs", 0, "dtype", "float64"),
        "critic.outputs.q.dtype",
        "found float32, expected float64",
    ),
    "name against the graph": (
        set_at("models", "policy", "outputs", 2, "name", "log_std"),
        "policy",
        "action_log_std",
    ),
    "image size": (set_at(D, "observations", 0, "size", [32, 16]), "encoder/image", "[1, 16, 32"),
    "observation kind": (
        set_at(D, "observations", 1, "kind", "joint_state"),
        "observations[1].kind",
        "end_effector_state",
    ),
    "history": (set_at(D, "observations", 0, "history", 4), "observations[0].history", "found 4"),
    "resize": (set_at(D, "observations", 0, "resize", "crop"), "resize", "squash"),
    "observation of no tensor": (
        set_at(D, "observations", 1, "tensor", "policy/stat"),
        "observations state",
        "policy/state",
    ),
    "observation of a fed tensor": (
        set_at(D, "observations", 1, "tensor", "policy/embedding"),
        "observations state",
        "nothing else feeds",
    ),
    "unbound input": (
        lambda d: d[D]["observations"].pop(1),
        "deployment.observations",
        "nothing for policy/state",
    ),
    "action tensor": (set_at(D, "action", "tensor", "policy/act"), "action.tensor", "policy/act"),
    "action names": (
        lambda d: [d[D]["action"][k].pop(0) for k in ("names", "units", "low", "high")],
        "action.names",
        "found 6 names",
    ),
    "bounds swapped": (set_at(D, "action", "low", 0, 0.06), "action.high", "below"),
    "NaN bound": (set_at(D, "action", "high", 2, float("nan")), "action.high", "finite"),
    "too few bounds": (lambda d: d[D]["action"]["low"].pop(), "action.low", "7 numbers"),
    "unit": (set_at(D, "action", "units", 0, "mm"), "action.units", "out of"),
    "unit the robot has not": (set_at(D, "action", "units", 0, "rad"), "units of dx", "found rad"),
    "bounds the robot has not": (set_at(D, "action", "high", 0, 0.5), "bounds of dx", "[-0.05, 0"),
    "action space": (set_at(D, "action", "space", "joint_delta"), "action.space", "joint_delta"),
    "frame": (set_at(D, "action", "frame", "camera"), "action.frame", "base_link"),
    "axes the robot has not": (
        set_at(D, "action", "names", 0, "forward"),
        "action.names",
        "forward",
    ),
    "gripper convention": (
        set_at(D, "action", "gripper", {"closed": 1.0, "open": 0.0}),
        "action.gripper",
        "(0.0, 1.0)",
    ),
    "another robot": (set_at(D, "robot", "ur5e"), "deployment.robot", "found ur5e"),
    "state the robot has not": (
        set_at(D, "observations", 1, "names", 0, "force"),
        "observations state.names",
        "found force",
    ),
    "rate": (set_at(D, "control", "rate_hz", 0), "control.rate_hz", "found 0"),
    "horizon": (set_at(D, "control", "horizon", 2.5), "control.horizon", "integer"),
    "task ids": (set_at(D, "tasks", "names", "push_right", 5), "tasks.names", "0, 1, 2"),
    "instruction of no task": (
        set_at(D, "tasks", "instructions", "pull", "pull it"),
        "instructions.pull",
        "without id",
    ),
    "data flow to nowhere": (
        set_at("pipeline", "data_flow", {"encoder/embedding": ["policy/embeding"]}),
        "data_flow.encoder/embedding",
        "policy/embeding",
    ),
    "data flow between shapes": (
        set_at("pipeline", "data_flow", "encoder/embedding", ["policy/embedding", "policy/state"]),
        "data_flow.encoder/embedding",
        "found float32 [1, 3], expected float32 [1, 7]",
    ),
    "input without source": (
        lambda d: d["pipeline"]["inputs"]["policy"].remove("state"),
        "pipeline",
        "0 sources for the input policy/state",
    ),
    "order of models": (
        lambda d: d.update(models={k: d["models"][k] for k in reversed(d["models"])}),
        "data_flow",
        "later in `models`",
    ),
    "initial values without recurrence": (
        set_at("pipeline", "initial_values", "encoder.onnx"),
        "encoder.onnx",
        "safetensors",
    ),
    "no validation": (drop(D, "validation"), "deployment.validation", "found nothing"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_broken_bundle_is_refused(case, mutate):
    change, field, part = REFUSALS[case]
    file = mutate(change)
    with pytest.raises(BundleError) as refusal:
        load_fully(file)
    message = str(refusal.value)
    assert field in message
    assert part in message
    assert refusal.value.found
    assert refusal.value.expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: !!python/object/apply:os.system ['true']", "python/object"),
        ("models: {}\nmodels: {}", "twice"),
        ("[1, 2]", "expected a mapping"),
        ("models: [", "plain YAML"),
    ],
)
def test_yaml_that_is_not_plain_is_refused(text, part, ptr_file):
    ptr_file.write_text(text)
    with pytest.raises(BundleError, match=r"tiny_ptr\.yaml") as refusal:
        load_bundle(ptr_file)
    assert part in str(refusal.value)


def test_a_changed_model_file_is_refused(ptr_file):
    model = ptr_file.parent / "policy.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(BundleError, match=r"policy\.onnx: SHA-256: found .* expected"):
        load_bundle(ptr_file)


def test_a_pointer_of_git_lfs_is_called_so(ptr_file):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 412345\n"
    (ptr_file.parent / "policy.onnx").write_text(pointer)
    with pytest.raises(BundleError, match=r"policy\.onnx: .* found a pointer .*`git lfs pull`"):
        load_bundle(ptr_file)


def test_a_symbolic_link_out_of_the_bundle_is_refused(ptr_file, tmp_path):
    outside = tmp_path / "outside.onnx"
    model = ptr_file.parent / "policy.onnx"
    outside.write_bytes(model.read_bytes())
    model.unlink()
    model.symlink_to(os.path.relpath(outside, model.parent))
    with pytest.raises(BundleError, match="expected a file inside"):
        load_bundle(ptr_file)


def test_a_file_that_is_no_model_is_refused(ptr_file, mutate):
    content = b"not a model"
    (ptr_file.parent / "policy.onnx").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()

    def relabel(document):
        document["deployment"]["files"]["policy.onnx"] = digest
        document["models"]["policy"]["parameters"]["sha256sum"] = digest

    with pytest.raises(BundleError, match=r"policy\.onnx: found .*expected a model"):
        load_fully(mutate(relabel))


def test_initial_values_of_the_wrong_shape_are_refused(tmp_path):
    file = bundle_builder.write_recurrent_bundle(
        tmp_path / "sum", initial={"add/total_in": np.zeros((1, 8))}
    )
    with pytest.raises(BundleError, match=r"found float32 \[1, 8\], expected float32 \[1, 7\]"):
        load_bundle(file)


def test_truncated_initial_values_are_refused(tmp_path):
    file = bundle_builder.write_recurrent_bundle(
        tmp_path / "sum", initial={"add/total_in": np.zeros((1, 7))}
    )
    values = file.parent / "initial_values.safetensors"
    values.write_bytes(values.read_bytes()[:-4])
    document = yaml.safe_load(file.read_text())
    digest = hashlib.sha256(values.read_bytes()).hexdigest()
    document["deployment"]["files"][values.name] = digest
    with pytest.raises(BundleError, match="a safetensors file"):
        load_bundle(bundle_builder.write_yaml(file.parent, document))


def test_weights_beside_the_model_are_used_only_when_listed(tmp_path):
    model = onnx.parser.parse_model(
        bundle_builder.HEADER
        + "hold (float[1,7] state) => (float[1,7] action)"
        + " <float[7] w = {1,2,3,4,5,6,7}> { action = Mul(state, w) }"
    )
    weights = model.graph.initializer[0]
    weights.raw_data = np.arange(1, 8, dtype=np.float32).tobytes()
    del weights.float_data[:]
    onnx.external_data_helper.set_external_data(weights, location="hold.onnx.data")
    content = weights.raw_data
    weights.ClearField("raw_data")
    section = bundle_builder.deployment(
        kind="chunked",
        action_tensor="hold/action",
        observations=[bundle_builder.state_observation("hold/state")],
        stages={"policy": "hold"},
    )
    file = bundle_builder.write_bundle(tmp_path / "hold", {"hold": model}, section)
    (file.parent / "hold.onnx.data").write_bytes(content)
    with pytest.raises(BundleError):
        Pipeline(load_bundle(file))
    document = yaml.safe_load(file.read_text())
    digest = hashlib.sha256(content).hexdigest()
    document["deployment"]["files"]["hold.onnx.data"] = digest
    pipeline = Pipeline(load_bundle(bundle_builder.write_yaml(file.parent, document)))
    outputs = pipeline.run({"hold/state": np.ones((1, 7), np.float32)})
    assert outputs["hold/action"].tolist() == [[1, 2, 3, 4, 5, 6, 7]]


def test_bundles_are_found_by_path_and_by_name(ptr_file, tmp_path):
    directory = ptr_file.parent
    for model in (str(ptr_file), str(directory)):
        assert find_bundle(model, []) == ptr_file
    assert find_bundle("tiny_ptr", [tmp_path]) == ptr_file
    with pytest.raises(BundleError, match=r"one of \['tiny_ptr'\], did you mean \"tiny_ptr\""):
        find_bundle("tiny_prt", [tmp_path])
    with pytest.raises(BundleError, match="no such bundle"):
        find_bundle("", [tmp_path])


def test_the_start_state_is_that_of_the_named_pose():
    kinematics = pytest.importorskip("widowx_control.kinematics")
    spaces = pytest.importorskip("widowx_control.bridge_spaces")
    pose = kinematics.ArmKinematics().forward(kinematics.NAMED_POSES["start"])
    start = [ROBOT.start_state[name] for name in spaces.STATE_NAMES]
    np.testing.assert_allclose(start, spaces.state_from_pose(pose, 1.0), atol=1e-6)


def test_chunks_of_both_schemas_are_read(tmp_path):
    first = load_bundle(bundle_builder.write_recurrent_bundle(tmp_path / "first")).deployment
    assert first.action.chunk == ChunkSpec(execute_steps=2)
    # The second step is executed a period later.
    assert first.action.max_observation_age_s == pytest.approx(0.4 + 0.2)
    file = bundle_builder.write_recurrent_bundle(tmp_path / "second")
    chunk = {"execute_steps": 2, "inference": "background", "ensemble_decay": 0.01}
    second = load_bundle(bundle_builder.with_chunks(file, 0.5, **chunk)).deployment
    assert second.action.chunk == ChunkSpec(2, in_background=True, ensemble_decay=0.01)
    assert second.action.max_observation_age_s == 0.5
    plain = load_bundle(bundle_builder.with_chunks(file, 0.5)).deployment
    assert plain.action.chunk == ChunkSpec()


@pytest.mark.parametrize(
    ("age_s", "chunk", "said"),
    [
        (0.2, {"execute_steps": 2, "inference": "between_steps"}, "expected more than 0.2: step 2"),
        (float("nan"), {}, "max_observation_age_s"),
        (0.0, {}, "max_observation_age_s"),
        (0.5, {"execute_steps": 0, "inference": "background"}, "execute_steps"),
        (0.5, {"execute_steps": 1, "inference": "backgrund"}, 'did you mean "background"'),
        (
            0.5,
            {"execute_steps": 1, "inference": "between_steps", "ensemble_decay": 0.1},
            "inference: background beside it",
        ),
        (0.5, {"execute_steps": 1, "inference": "background", "decay": 1}, "unknown key"),
    ],
)
def test_chunks_that_cannot_be_executed_are_refused(tmp_path, age_s, chunk, said):
    file = bundle_builder.write_recurrent_bundle(tmp_path / "second")
    with pytest.raises(BundleError) as refused:
        load_bundle(bundle_builder.with_chunks(file, age_s, **chunk))
    assert said in str(refused.value)


def test_a_robot_caps_the_age_of_observations(ptr_file):
    deployment = load_bundle(bundle_builder.with_chunks(ptr_file, 2.0)).deployment
    check_robot(ptr_file, deployment, ROBOT)
    deployment = load_bundle(bundle_builder.with_chunks(ptr_file, 2.01)).deployment
    with pytest.raises(BundleError, match=r"found 2\.01, expected at most 2"):
        check_robot(ptr_file, deployment, ROBOT)
