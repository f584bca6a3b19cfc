"""A navigation network with a closed form, and pictures of a straight way that it understands.

The way's pictures have a pattern, and a red that grows from step to step. The network reads the
red: the distance to a goal picture is the difference in steps, three times as much behind.
"""

import numpy as np
from bundle_builder import HEADER, write_bundle

RED_PER_STEP = 4.0
STEPS = 50
"""Length of the way."""
FRAMES = 6
WIDTH, HEIGHT = 85, 64
_AXES = "int64[3] {1, 2, 3}"

OBSERVE = (
    HEADER
    + f"""observe (uint8[{FRAMES},{HEIGHT},{WIDTH},3] context) => (float[1,1] code) {{
  pixels = Cast<to = 1>(context)
  first = Constant<value = int64[1] {{0}}>()
  last = Constant<value = int64[1] {{{FRAMES - 1}}}>()
  newest = Gather<axis = 0>(pixels, last)
  red = Gather<axis = 3>(newest, first)
  axes = Constant<value = {_AXES}>()
  mean = ReduceMean<keepdims = 0>(red, axes)
  scale = Constant<value = float {{{RED_PER_STEP}}}>()
  steps = Div(mean, scale)
  column = Constant<value = int64[2] {{1, 1}}>()
  code = Reshape(steps, column)
}}"""
)
# Not a number beyond 62 steps, so that a test can make inference fail.
MATCH = (
    HEADER
    + f"""match (float[1,1] code, uint8[B,{HEIGHT},{WIDTH},3] goals)
  => (float[B,1] distance, float[B,5,4] waypoints) {{
  pixels = Cast<to = 1>(goals)
  first = Constant<value = int64[1] {{0}}>()
  red = Gather<axis = 3>(pixels, first)
  axes = Constant<value = {_AXES}>()
  mean = ReduceMean<keepdims = 0>(red, axes)
  scale = Constant<value = float {{{RED_PER_STEP}}}>()
  flat = Div(mean, scale)
  column = Constant<value = int64[2] {{-1, 1}}>()
  steps = Reshape(flat, column)
  gap = Sub(steps, code)
  ahead = Relu(gap)
  minus = Neg(gap)
  behind = Relu(minus)
  three = Constant<value = float {{3.0}}>()
  further = Mul(behind, three)
  sum = Add(ahead, further)
  most = Constant<value = float {{20.0}}>()
  distance = Min(sum, most)
  high = Constant<value = float {{62.0}}>()
  below = Sub(high, code)
  root = Sqrt(below)
  zero = Constant<value = float {{0.0}}>()
  check = Mul(root, zero)
  limited = Constant<value = float {{5.0}}>()
  reach = Min(ahead, limited)
  fifth = Constant<value = float {{0.2}}>()
  step = Mul(reach, fifth)
  paced = Add(step, check)
  cell = Constant<value = int64[3] {{-1, 1, 1}}>()
  pace = Reshape(paced, cell)
  forward = Constant<value = float[1,5,4] {{{", ".join(f"{k},0,0,0" for k in range(1, 6))}}}>()
  heading = Constant<value = float[1,5,4] {{{", ".join("0,0,1,0" for _ in range(5))}}}>()
  positions = Mul(pace, forward)
  waypoints = Add(positions, heading)
}}"""
)
EMBED = (
    HEADER
    + f"""embed (uint8[B,{HEIGHT},{WIDTH},3] images) => (float[B,2] embedding) {{
  pixels = Cast<to = 1>(images)
  first = Constant<value = int64[1] {{0}}>()
  red = Gather<axis = 3>(pixels, first)
  axes = Constant<value = {_AXES}>()
  mean = ReduceMean<keepdims = 0>(red, axes)
  scale = Constant<value = float {{80.0}}>()
  flat = Div(mean, scale)
  column = Constant<value = int64[2] {{-1, 1}}>()
  angle = Reshape(flat, column)
  x = Cos(angle)
  y = Sin(angle)
  embedding = Concat<axis = 1>(x, y)
}}"""
)


def write_navigation_bundle(directory):
    """Write the bundle; return its YAML file."""
    camera = {
        "kind": "camera",
        "camera": "main",
        "size": [WIDTH, HEIGHT],
        "channels": "rgb",
        "resize": "crop_4_3",
        "filter": "bicubic",
    }
    names = ["x", "y", "cos", "sin"]
    section = {
        "schema_version": 1,
        "policy": {"kind": "gnm", "version": "1", "licence": "Apache-2.0", "algorithm": "none"},
        "control": {"rate_hz": 4.0, "horizon": 5},
        "robot": "any",
        "action": {
            "tensor": "match/waypoints",
            "names": names,
            "units": ["1"] * 4,
            "low": [-100.0, -100.0, -1.0, -1.0],
            "high": [100.0, 100.0, 1.0, 1.0],
            "frame": "base_link",
            "space": "normalised_waypoints",
        },
        "observations": [
            {"name": "context", "tensor": "observe/context", **camera, "history": FRAMES},
            {"name": "goals", "tensor": "match/goals", **camera, "history": 1},
            {"name": "places", "tensor": "embed/images", **camera, "history": 1},
        ],
        "navigation": {
            "distance": "match/distance",
            "max_distance_steps": 20.0,
            "embedding": "embed/embedding",
            "can_explore": False,
        },
        "stages": {"observe": "observe", "match": "match", "embed": "embed"},
        "validation": {"passes": 3, "max_abs_error": 1e-7},
    }
    models = {"observe": OBSERVE, "match": MATCH, "embed": EMBED}
    return write_bundle(directory, models, section, [("observe/code", "match/code")])


def picture(steps, noise=None):
    """What the camera sees `steps` along the way: RGB (120, 160, 3) uint8.

    Args:
        steps: place on the way.
        noise: a random generator for the camera's noise, which leaves the mean red alone.
    """
    pattern = np.random.default_rng(5).integers(20, 230, (120, 160, 3))
    image = pattern.astype(np.float64)
    red = RED_PER_STEP * steps
    # A field of constant red dithers to any mean.
    rows = np.random.default_rng(6).random((120, 160))
    image[..., 0] = np.floor(red) + (rows < red - np.floor(red))
    if noise is not None:
        image[..., 1:] += noise.integers(-3, 4, (120, 160, 2))
    return np.clip(image, 0, 255).astype(np.uint8)
