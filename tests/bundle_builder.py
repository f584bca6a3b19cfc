"""Small bundles with closed-form models, written as LEAPP writes them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx.parser
import yaml

NAMES = ["dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"]
LOW = np.array([-0.05, -0.05, -0.05, -0.25, -0.25, -0.25, 0.0])
HIGH = np.array([0.05, 0.05, 0.05, 0.25, 0.25, 0.25, 1.0])
UNITS = ["m", "m", "m", "rad", "rad", "rad", "opening"]
STATE_NAMES = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
TASKS = {"push_left": 0, "push_right": 1}
IMAGE_SIZE = 16
LOG_STD = -1.0
CRITIC_TARGET = 0.3
HEADER = '<ir_version: 9, opset_import: ["": 18]>\n'
DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool"}
DTYPES |= {10: "float16", 11: "float64"}

ENCODER = (
    HEADER
    + f"""encoder (uint8[1,{IMAGE_SIZE},{IMAGE_SIZE},3] image) => (float[1,3] embedding) {{
  pixels = Cast<to = 1>(image)
  axes = Constant<value = int64[2] {{1, 2}}>()
  mean = ReduceMean<keepdims = 0>(pixels, axes)
  scale = Constant<value = float {{255.0}}>()
  embedding = Div(mean, scale)
}}"""
)
# Not a number when z > 10 m, so that a test can ask for a bad action.
POLICY = (
    HEADER
    + f"""policy (float[1,3] embedding, float[1,7] state, float[1,2] task)
  => (float[1,7] action, float[1,7] action_mean, float[1,7] action_log_std) {{
  nothing = Constant<value = float[1,2] {{0.0, 0.0}}>()
  context = Concat<axis = 1>(embedding, task, nothing)
  z_index = Constant<value = int64[1] {{2}}>()
  z = Gather<axis = 1>(state, z_index)
  ten = Constant<value = float {{10.0}}>()
  below = Sub(ten, z)
  root = Sqrt(below)
  zero = Constant<value = float {{0.0}}>()
  check = Mul(root, zero)
  sum = Add(context, state)
  action_mean = Add(sum, check)
  squashed = Tanh(action_mean)
  one = Constant<value = float {{1.0}}>()
  low = Constant<value = float[7] {{{", ".join(map(str, LOW))}}}>()
  half = Constant<value = float[7] {{{", ".join(map(str, (HIGH - LOW) / 2))}}}>()
  shifted = Add(squashed, one)
  scaled = Mul(shifted, half)
  action = Add(scaled, low)
  action_log_std = Constant<value = float[1,7] {{{", ".join([str(LOG_STD)] * 7)}}}>()
}}"""
)


def critic(batch):
    """The model text of a critic that likes actions near CRITIC_TARGET; batch: a size or "B"."""
    embeddings = batch if batch == "B" else 1
    return (
        HEADER
        + f"""critic (float[{batch},7] action, float[{embeddings},3] embedding)
  => (float[2,{batch}] q) {{
  target = Constant<value = float {{{CRITIC_TARGET}}}>()
  error = Sub(action, target)
  square = Mul(error, error)
  axes = Constant<value = int64[1] {{1}}>()
  cost = ReduceSum<keepdims = 0>(square, axes)
  first = Neg(cost)
  one = Constant<value = float {{1.0}}>()
  second = Add(first, one)
  front = Constant<value = int64[1] {{0}}>()
  first_row = Unsqueeze(first, front)
  second_row = Unsqueeze(second, front)
  q = Concat<axis = 0>(first_row, second_row)
}}"""
    )


def _records(values, batch):
    return [
        {
            "name": value.name,
            "dtype": DTYPES[value.type.tensor_type.elem_type],
            "shape": [d.dim_value or batch for d in value.type.tensor_type.shape.dim],
            "type": "tensor",
        }
        for value in values
    ]


def safetensors(tensors):
    """The bytes of a safetensors file with float32 tensors."""
    header, data = {}, b""
    for name, array in tensors.items():
        content = np.asarray(array, np.float32).tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(np.shape(array)),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def write_bundle(directory, models, deployment, flow=(), feedback=(), initial=None, batch=1):
    """Write a bundle.

    Args:
        directory: where; its name is the bundle's.
        models: node → ONNX model or its text.
        deployment: the section without `files`.
        flow, feedback: pairs (source, destination) of `node/tensor`.
        initial: initial values of fed-back inputs.
        batch: what the YAML says where the model has a symbolic size.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    document = {"models": {}, "pipeline": {}, "system information": {}}
    files = {}
    for node, model in models.items():
        if isinstance(model, str):
            model = onnx.parser.parse_model(model)
        content = model.SerializeToString()
        files[f"{node}.onnx"] = content
        document["models"][node] = {
            "inputs": _records(model.graph.input, batch),
            "outputs": _records(model.graph.output, batch),
            "parameters": {
                "model_path": f"{node}.onnx",
                "md5sum": hashlib.md5(content).hexdigest(),
                "sha256sum": hashlib.sha256(content).hexdigest(),
                "backend": "onnx",
                "warp_segments": 0,
                "opset_version": 18,
            },
        }
    pipeline = document["pipeline"]
    for key, pairs in (("data_flow", flow), ("feedback_flow", feedback)):
        pipeline[key] = {}
        for source, destination in pairs:
            pipeline[key].setdefault(source, []).append(destination)
    fed = {destination for _, destination in (*flow, *feedback)}
    for side in ("inputs", "outputs"):
        pipeline[side] = {}
        for node, record in document["models"].items():
            names = [t["name"] for t in record[side] if f"{node}/{t['name']}" not in fed]
            if names:
                pipeline[side][node] = names
    pipeline["configs"] = {"frequency": 5.0}
    if initial is not None:
        pipeline["initial_values"] = "initial_values.safetensors"
        files["initial_values.safetensors"] = safetensors(initial)
    document["system information"] = {
        "leapp version": "0.7.2",
        "leapp config version": "1.3",
    }
    for name, content in files.items():
        (directory / name).write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    document["deployment"] = {**deployment, "files": digests}
    return write_yaml(directory, document)


def write_yaml(directory, document):
    """Write the bundle's YAML; return its path."""
    file = Path(directory) / f"{Path(directory).name}.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return file


def deployment(kind="ptr", action_tensor="policy/action", **changes):
    """A deployment section without observations and stages of its own."""
    return {
        "schema_version": 1,
        "policy": {"kind": kind, "version": "1", "licence": "Apache-2.0", "algorithm": "none"},
        "control": {"rate_hz": 5.0, "horizon": 40},
        "robot": "wx250s",
        "action": {
            "tensor": action_tensor,
            "names": list(NAMES),
            "units": list(UNITS),
            "low": LOW.tolist(),
            "high": HIGH.tolist(),
            "frame": "base_link",
            "space": "end_effector_delta",
            "gripper": {"closed": 0.0, "open": 1.0},
        },
        "validation": {"passes": 3, "max_abs_error": 1e-7},
        **changes,
    }


def with_chunks(file, max_observation_age_s=1.9, **chunk):
    """Give a bundle schema 2 and say how its chunks are executed; return its path."""
    document = yaml.safe_load(file.read_text())
    document["deployment"]["schema_version"] = 2
    action = document["deployment"]["action"]
    action.pop("execute_steps", None)
    action.pop("chunk", None)
    action["max_observation_age_s"] = max_observation_age_s
    if chunk:
        action["chunk"] = chunk
    return write_yaml(file.parent, document)


def state_observation(tensor):
    """The binding of the end effector's state."""
    return {
        "name": "state",
        "tensor": tensor,
        "kind": "end_effector_state",
        "names": list(STATE_NAMES),
        "units": list(UNITS),
        "history": 1,
    }


def write_ptr_bundle(directory, critic_batch=None):
    """Write a PTR bundle: mean action = mean colour, one-hot task and state, entry by entry.

    Args:
        directory: where.
        critic_batch: None: no critic; a number: its fixed batch; "B": a symbolic one.
    """
    models = {"encoder": ENCODER, "policy": POLICY}
    stages = {"encoder": "encoder", "policy": "policy"}
    flow = [("encoder/embedding", "policy/embedding")]
    image_tensors = ["encoder/image"]
    if critic_batch is not None:
        models |= {"critic_encoder": ENCODER.replace("encoder (", "critic_encoder (")}
        models |= {"critic": critic(critic_batch)}
        stages |= {"critic_encoder": "critic_encoder", "critic": "critic"}
        flow += [("critic_encoder/embedding", "critic/embedding")]
        image_tensors += ["critic_encoder/image"]
    observations = [
        {
            "name": "image",
            "tensors": image_tensors,
            "kind": "camera",
            "camera": "main",
            "size": [IMAGE_SIZE, IMAGE_SIZE],
            "channels": "rgb",
            "resize": "squash",
            "filter": "area",
            "history": 1,
        },
        state_observation("policy/state"),
        {"name": "task", "tensor": "policy/task", "kind": "task_one_hot"},
    ]
    section = deployment(
        observations=observations,
        tasks={"names": dict(TASKS), "instructions": {"push_left": "push it to the left"}},
        stages=stages,
    )
    return write_bundle(directory, models, section, flow)


RECURRENT_SUM = (
    HEADER
    + """add (float[1,7] state, float[1,7] total_in) => (float[1,7] total_out, float[1,7] total) {
  total_out = Add(state, total_in)
  total = Identity(total_out)
}"""
)
CHUNK = (
    HEADER
    + """chunk (float[1,7] total) => (float[1,3,7] actions) {
  axis = Constant<value = int64[1] {1}>()
  row = Unsqueeze(total, axis)
  factors = Constant<value = float[1,3,1] {1.0, 2.0, 3.0}>()
  actions = Mul(row, factors)
}"""
)


def write_recurrent_bundle(directory, initial=None, execute_steps=2):
    """Write a bundle of two models: a running sum of the state, and a chunk 1×, 2×, 3× of it."""
    section = deployment(
        kind="chunked",
        action_tensor="chunk/actions",
        observations=[state_observation("add/state")],
        stages={"policy": "chunk"},
    )
    section["action"]["execute_steps"] = execute_steps
    return write_bundle(
        directory,
        {"add": RECURRENT_SUM, "chunk": CHUNK},
        section,
        flow=[("add/total", "chunk/total")],
        feedback=[("add/total_out", "add/total_in")],
        initial=initial,
    )


ALL_KINDS_SCALE = (0.0001, 0.0001, 0.0001, 0.01, 0.1, 0.1, 0.01)
ALL_KINDS = (
    (
        HEADER
        + """policy (uint8[2,4,4,3] image, uint8[1,4,4,3] wrist, uint8[1,4,4,3] goal_image,
  float[3,7] state, float[1,2] joints, float[1,2] last, float[1,5] words) => (float[1,7] action)
{
  axes = Constant<value = int64[2] {0, 1}>()
  first = Constant<value = int64[1] {0}>()
  pixels = Cast<to = 1>(image)
  seen = ReduceMean<axes = [0, 1, 2, 3], keepdims = 0>(pixels)
  wrist_pixels = Cast<to = 1>(wrist)
  seen_by_wrist = ReduceMean<axes = [0, 1, 2, 3], keepdims = 0>(wrist_pixels)
  goal_pixels = Cast<to = 1>(goal_image)
  wanted = ReduceMean<axes = [0, 1, 2, 3], keepdims = 0>(goal_pixels)
  moved = ReduceSum<keepdims = 0>(state, axes)
  bent = ReduceSum<keepdims = 0>(joints, axes)
  acted = ReduceSum<keepdims = 0>(last, axes)
  told = ReduceSum<keepdims = 0>(words, axes)
  a = Unsqueeze(seen, first)
  b = Unsqueeze(seen_by_wrist, first)
  c = Unsqueeze(wanted, first)
  d = Unsqueeze(moved, first)
  e = Unsqueeze(bent, first)
  f = Unsqueeze(acted, first)
  g = Unsqueeze(told, first)
  row = Concat<axis = 0>(a, b, c, d, e, f, g)
  scale = Constant<value = float[7] {SCALE}>()
  scaled = Mul(row, scale)
  action = Unsqueeze(scaled, first)
}"""
    )
    .replace("18", "13")
    .replace("SCALE", ", ".join(map(str, ALL_KINDS_SCALE)))
)


def _camera(name, camera_name, history=1):
    return {
        "name": name,
        "tensor": f"policy/{name}",
        "kind": "camera",
        "camera": camera_name,
        "size": [4, 4],
        "channels": "rgb",
        "resize": "squash",
        "filter": "area",
        "history": history,
    }


def _all_kinds():
    goal = _camera("goal_image", "")
    del goal["camera"], goal["history"]
    state = state_observation("policy/state")
    return [
        _camera("image", "main", history=2),
        _camera("wrist", "wrist_camera"),
        {**goal, "kind": "goal_image"},
        {**state, "history": 3},
        {
            "name": "joints",
            "tensor": "policy/joints",
            "kind": "joint_state",
            "quantity": "velocity",
            "names": ["waist", "elbow"],
            "units": ["rad/s", "rad/s"],
            "history": 1,
        },
        {
            "name": "last",
            "tensor": "policy/last",
            "kind": "last_action",
            "names": ["dx", "gripper"],
            "units": ["m", "opening"],
            "history": 1,
        },
        {
            "name": "words",
            "tensor": "policy/words",
            "kind": "language_embedding",
            "size": 5,
            "encoder": "minilm",
        },
    ]


def write_all_kinds_bundle(directory, change=lambda deployment: None):
    """Write a bundle with an observation of every kind that an arm has.

    Its action: the mean of two images of `main`, of the one of `wrist_camera`, of the goal image,
    the sums over three end-effector states, two joint velocities, two entries of the last action
    and the five numbers of the embedding; times `ALL_KINDS_SCALE`.
    """
    section = deployment(
        kind="chunked", observations=_all_kinds(), stages={"policy": "policy"}, schema_version=2
    )
    section["action"]["max_observation_age_s"] = 0.4
    file = write_bundle(directory, {"policy": ALL_KINDS}, section)
    document = yaml.safe_load(file.read_text())
    change(document["deployment"])
    return write_yaml(file.parent, document)
