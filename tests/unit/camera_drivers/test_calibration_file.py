"""Calibration files of the standard form."""

import numpy as np
import pytest
import yaml
from camera_drivers.calibration_file import (
    Calibration,
    CalibrationError,
    UnknownDistortionError,
    load_calibration,
    resolve_url,
    save_calibration,
)

# As camera_calibration writes it.
STANDARD_FILE = """\
image_width: 640
image_height: 480
camera_name: c920
camera_matrix:
  rows: 3
  cols: 3
  data: [ 615.21, 0. , 322.17, 0. , 615.97, 244.62, 0. , 0. , 1. ]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.109, -0.2007, 0.0014, -0.0006, 0.0]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1., 0., 0., 0., 1., 0., 0., 0., 1.]
projection_matrix:
  rows: 3
  cols: 4
  data: [621.3, 0., 321.6, 0., 0., 622.8, 244.9, 0., 0., 0., 1., 0.]
"""


def test_standard_file_is_read(tmp_path):
    path = tmp_path / "c920.yaml"
    path.write_text(STANDARD_FILE)
    calibration = load_calibration(path)
    assert (calibration.width, calibration.height) == (640, 480)
    assert calibration.camera_matrix[0, 2] == 322.17
    assert calibration.projection[1, 1] == 622.8
    assert calibration.distortion.shape == (5,)


def test_saved_calibration_is_read_back_exactly(tmp_path):
    rng = np.random.default_rng(5)
    camera_matrix = rng.uniform(1.0, 900.0, (3, 3))
    saved = Calibration(
        camera_name="fisheye",
        width=1280,
        height=720,
        distortion_model="rational_polynomial",
        distortion=rng.normal(size=8),
        camera_matrix=camera_matrix,
        rectification=rng.normal(size=(3, 3)),
        projection=rng.normal(size=(3, 4)),
    )
    path = tmp_path / "new" / "fisheye.yaml"
    save_calibration(path, saved)
    loaded = load_calibration(path)
    for name in ("distortion", "camera_matrix", "rectification", "projection"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
    assert (loaded.camera_name, loaded.distortion_model) == ("fisheye", "rational_polynomial")
    assert [entry.name for entry in path.parent.iterdir()] == ["fisheye.yaml"]


@pytest.mark.parametrize(
    ("found", "replacement", "message"),
    [
        ("image_width: 640", "image_width: 640.5", "image_width is 640.5"),
        ("camera_name: c920", "", "'camera_name' is missing"),
        ("plumb_bob", "fov", "distortion_model is 'fov'"),
        ("0.0014, -0.0006, 0.0]", "0.0014, -0.0006]", "distortion_coefficients.data"),
        ("  cols: 4", "  cols: 3", "projection_matrix.data"),
        ("615.21", ".nan", "camera_matrix has values that are not finite"),
        ("615.21", "-615.21", "focal lengths"),
        ("rows: 3", "rows: [", "cannot be read"),
        ("[621.3", "[wide", "not a number"),
    ],
)
def test_bad_file_is_refused_by_name(tmp_path, found, replacement, message):
    path = tmp_path / "bad.yaml"
    path.write_text(STANDARD_FILE.replace(found, replacement, 1))
    with pytest.raises(CalibrationError, match=r"bad\.yaml") as error:
        load_calibration(path)
    assert message in str(error.value)


CASES = [
    # model as found, other lines, coefficients, model told, whether it is remarked on
    ("plumb_bob", "", 5, "plumb_bob", False),
    ("plumb_bob", "", 4, "plumb_bob", True),
    ("plumb_bob", "", 8, "plumb_bob", True),
    ("plumb_bob", "", 14, "plumb_bob", True),
    ("rational_polynomial", "", 8, "rational_polynomial", False),
    ("rational_polynomial", "", 12, "rational_polynomial", True),
    ("rational_polynomial", "", 14, "rational_polynomial", True),
    ("thin_prism", "", 12, "thin_prism", False),
    ("equidistant", "", 4, "equidistant", False),
    ("fisheye", "", 4, "equidistant", False),
    ("", "camera_model: fisheye", 4, "equidistant", False),
    ("", "camera_model: pinhole", 5, "plumb_bob", False),
    ("", "", 8, "rational_polynomial", False),
    ("plumb_bob", "camera_model: pinhole", 0, "plumb_bob", False),
    ("none", "", 0, "plumb_bob", False),
    ("", "", None, "plumb_bob", False),
]


def file_with(model, other, count):
    """The standard file with another distortion; None: without the coefficients' field."""
    data = yaml.safe_load(STANDARD_FILE + other)
    data["distortion_model"] = model
    if not model:
        del data["distortion_model"]
    values = [0.01 * n for n in range(count or 0)]
    data["distortion_coefficients"] = {"rows": 1, "cols": len(values), "data": values}
    if count is None:
        del data["distortion_coefficients"]
    return yaml.safe_dump(data)


@pytest.mark.parametrize(("model", "other", "count", "told", "remarked"), CASES)
def test_every_common_distortion_is_passed_on(tmp_path, model, other, count, told, remarked):
    path = tmp_path / "camera.yaml"
    path.write_text(file_with(model, other, count))
    calibration = load_calibration(path)
    assert calibration.distortion_model == told
    assert calibration.distortion.tolist() == [0.01 * n for n in range(count or 0)]
    assert bool(calibration.remark) is remarked
    save_calibration(path, calibration)
    again = load_calibration(path)
    assert (again.distortion_model, again.distortion.size) == (told, count or 0)


@pytest.mark.parametrize(
    ("model", "count"), [("fov", 1), ("ds", 6), ("plumb_bob", 3), ("fisheye", 5)]
)
def test_other_distortions_are_told_apart_from_broken_files(tmp_path, model, count):
    path = tmp_path / "camera.yaml"
    path.write_text(file_with(model, "", count))
    with pytest.raises(UnknownDistortionError, match=r"camera\.yaml: distortion_"):
        load_calibration(path)


def test_urls_are_resolved_as_camera_info_manager_does(monkeypatch, tmp_path):
    monkeypatch.setenv("ROS_HOME", str(tmp_path))

    def share(package):
        if package != "my_cameras":
            raise LookupError(package)
        return "/opt/share/my_cameras"

    default = resolve_url("file://${ROS_HOME}/camera_info/${NAME}.yaml", "wrist", share)
    assert default == tmp_path / "camera_info" / "wrist.yaml"
    packaged = resolve_url("package://my_cameras/config/${NAME}.yaml", "wrist", share)
    assert str(packaged) == "/opt/share/my_cameras/config/wrist.yaml"
    for bad in ("package://nowhere/a.yaml", "wrist.yaml", "http://host/wrist.yaml"):
        with pytest.raises(CalibrationError, match="camera_info_url"):
            resolve_url(bad, "wrist", share)
