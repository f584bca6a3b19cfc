"""The camera calibration YAML that camera_calibration writes and camera_info_manager reads."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

# Numbers of coefficients: those that REP 104 or the model's users expect first, then what else
# OpenCV takes.
DISTORTION_COEFFICIENTS = {
    "plumb_bob": (5, 4, 8, 12, 14),
    "rational_polynomial": (8, 4, 5, 12, 14),
    "thin_prism": (12, 14),
    "equidistant": (4,),
}
_OTHER_NAMES = {"fisheye": "equidistant", "radtan": "plumb_bob"}
_NO_DISTORTION = ("", "none")
DEFAULT_URL = "file://${ROS_HOME}/camera_info/${NAME}.yaml"


class CalibrationError(ValueError):
    """A calibration that cannot be read, is not of the standard form, or makes no sense."""


class UnknownDistortionError(CalibrationError):
    """A calibration whose distortion cannot be told to others."""


@dataclass(frozen=True)
class Calibration:
    """Pinhole calibration of one camera at one image size.

    Attributes:
        camera_name: the name it was made for.
        width, height: image size it was made for [px].
        distortion_model: a key of DISTORTION_COEFFICIENTS.
        distortion: (N,) coefficients; (0,) where the file has none.
        camera_matrix: (3, 3) intrinsics [px].
        rectification: (3, 3) rotation.
        projection: (3, 4) of the rectified image [px].
    """

    camera_name: str
    width: int
    height: int
    distortion_model: str
    distortion: NDArray[np.float64]
    camera_matrix: NDArray[np.float64]
    rectification: NDArray[np.float64]
    projection: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise CalibrationError(
                f"image size is {self.width}x{self.height}; expected positive numbers"
            )
        expected = DISTORTION_COEFFICIENTS.get(self.distortion_model)
        if expected is None:
            raise UnknownDistortionError(
                f"distortion_model is '{self.distortion_model}'; expected one of "
                + ", ".join([*DISTORTION_COEFFICIENTS, *_OTHER_NAMES])
            )
        if len(self.distortion) not in (0, *expected):
            raise UnknownDistortionError(
                f"distortion_coefficients has {len(self.distortion)} numbers; "
                f"{self.distortion_model} has {', '.join(map(str, expected))}"
            )
        for name, value, shape in (
            ("distortion_coefficients", self.distortion, self.distortion.shape),
            ("camera_matrix", self.camera_matrix, (3, 3)),
            ("rectification_matrix", self.rectification, (3, 3)),
            ("projection_matrix", self.projection, (3, 4)),
        ):
            if value.shape != shape:
                raise CalibrationError(f"{name} has the shape {value.shape}; expected {shape}")
            if not np.isfinite(value).all():
                raise CalibrationError(f"{name} has values that are not finite")
        if not (self.camera_matrix[0, 0] > 0 and self.camera_matrix[1, 1] > 0):
            raise CalibrationError(
                f"camera_matrix has the focal lengths {self.camera_matrix[0, 0]} and "
                f"{self.camera_matrix[1, 1]} px; expected positive numbers"
            )

    @property
    def remark(self) -> str:
        """What readers of the calibration may stumble over; empty: nothing."""
        expected, count = DISTORTION_COEFFICIENTS[self.distortion_model][0], len(self.distortion)
        if count in (0, expected):
            return ""
        return (
            f"{self.distortion_model} has {count} coefficients, REP 104 wants {expected}; they are "
            "passed on as they are"
        )


def distortion_model(name: str, coefficients: int, camera_model: str = "") -> str:
    """The name that CameraInfo has for a distortion model.

    Args:
        name: as found; empty or "none" where the source names none.
        coefficients: how many there are.
        camera_model: "pinhole" or "fisheye", as some tools write beside or instead.
    """
    if name.lower() not in _NO_DISTORTION:
        return _OTHER_NAMES.get(name.lower(), name)
    if camera_model in _OTHER_NAMES:
        return _OTHER_NAMES[camera_model]
    return "rational_polynomial" if coefficients > 5 else "plumb_bob"


def resolve_url(url: str, camera_name: str, package_share: Callable[[str], str]) -> Path:
    """The file that a `camera_info_url` means, as camera_info_manager resolves it.

    Args:
        url: `file:///…` or `package://PACKAGE/…`, with ${NAME} and ${ROS_HOME} replaced.
        camera_name: value of ${NAME}.
        package_share: gives a package's share directory, raises LookupError for an unknown one.

    Raises:
        CalibrationError: another form, or an unknown package.
    """
    ros_home = os.environ.get("ROS_HOME") or str(Path("~/.ros").expanduser())
    text = url.replace("${NAME}", camera_name).replace("${ROS_HOME}", ros_home)
    if text.startswith("file:///"):
        return Path(text[len("file://") :])
    if text.startswith("package://"):
        package, _, path = text[len("package://") :].partition("/")
        try:
            return Path(package_share(package)) / path
        except LookupError:
            raise CalibrationError(
                f"camera_info_url '{url}' names the package '{package}', which is not installed"
            ) from None
    raise CalibrationError(
        f"camera_info_url is '{url}'; expected file:///PATH or package://PACKAGE/PATH"
    )


def load_calibration(path: Path) -> Calibration:
    """Reads a calibration file.

    Raises:
        CalibrationError: naming the file, the field, what was found and what was expected.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CalibrationError(f"{path} cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise CalibrationError(f"{path} holds {type(data).__name__}; expected a YAML mapping")
    try:
        distortion = np.empty(0)
        if data.get("distortion_coefficients") is not None:
            distortion = _matrix(data, "distortion_coefficients").reshape(-1)
        return Calibration(
            camera_name=str(_field(data, "camera_name")),
            width=_integer(data, "image_width"),
            height=_integer(data, "image_height"),
            distortion_model=distortion_model(
                str(data.get("distortion_model") or ""),
                distortion.size,
                str(data.get("camera_model") or ""),
            ),
            distortion=distortion,
            camera_matrix=_matrix(data, "camera_matrix"),
            rectification=_matrix(data, "rectification_matrix"),
            projection=_matrix(data, "projection_matrix"),
        )
    except CalibrationError as error:
        raise type(error)(f"{path}: {error}") from None


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Writes a calibration file; an existing one is replaced in one step.

    Raises:
        OSError: the directory cannot be made or written.
    """
    data = {
        "image_width": calibration.width,
        "image_height": calibration.height,
        "camera_name": calibration.camera_name,
        "camera_matrix": _as_yaml(calibration.camera_matrix),
        "distortion_model": calibration.distortion_model,
        "distortion_coefficients": _as_yaml(calibration.distortion[np.newaxis]),
        "rectification_matrix": _as_yaml(calibration.rectification),
        "projection_matrix": _as_yaml(calibration.projection),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=path.name, delete=False
    ) as file:
        yaml.safe_dump(data, file, sort_keys=False, default_flow_style=None)
    Path(file.name).replace(path)


def _as_yaml(matrix: NDArray[np.float64]) -> dict[str, Any]:
    rows, columns = matrix.shape
    return {"rows": rows, "cols": columns, "data": [float(value) for value in matrix.ravel()]}


def _field(data: dict[str, Any], name: str) -> Any:
    if data.get(name) is None:
        raise CalibrationError(f"the field '{name}' is missing")
    return data[name]


def _integer(data: dict[str, Any], name: str) -> int:
    value = _field(data, name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise CalibrationError(f"{name} is {value!r}; expected a whole number")
    return value


def _matrix(data: dict[str, Any], name: str) -> NDArray[np.float64]:
    entry = _field(data, name)
    if not isinstance(entry, dict):
        raise CalibrationError(f"{name} is {entry!r}; expected rows, cols and data")
    rows, columns = _integer(entry, "rows"), _integer(entry, "cols")
    values = _field(entry, "data")
    if not isinstance(values, list) or len(values) != rows * columns:
        raise CalibrationError(f"{name}.data does not hold {rows} x {columns} numbers")
    try:
        return np.array([float(value) for value in values]).reshape(rows, columns)
    except (TypeError, ValueError):
        raise CalibrationError(f"{name}.data holds something that is not a number") from None
