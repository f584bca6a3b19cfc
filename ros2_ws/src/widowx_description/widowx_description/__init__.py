"""Description of the WidowX 250 6DOF (wx250s): URDF, numbers and named poses. Needs no ROS.

The files are read from the installed package (``share/widowx_description``) or, in a source
checkout that was never built, from beside this module.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import xacro
import yaml

__all__ = ["load_numbers", "mesh_uri", "share_path", "urdf_text"]

_MESH_PACKAGE = "interbotix_xsarm_descriptions"


@lru_cache(maxsize=1)
def share_path() -> Path:
    """Return the directory that holds ``urdf/`` and ``config/``.

    Raises:
        FileNotFoundError: the package is neither in a source tree nor in the ament index.
    """
    source = Path(__file__).resolve().parents[1]
    if (source / "urdf" / "wx250s.urdf.xacro").is_file():
        return source
    share = _package_share("widowx_description")
    if share is None:
        raise FileNotFoundError(
            f"widowx_description: no urdf/wx250s.urdf.xacro in {source} and no such package in "
            "AMENT_PREFIX_PATH; build the workspace and source its setup file"
        )
    return share


@lru_cache(maxsize=1)
def load_numbers() -> dict[str, Any]:
    """Return ``config/wx250s.yaml``: joints, gripper linkage, inertials, named poses (SI units)."""
    numbers: dict[str, Any] = yaml.safe_load((share_path() / "config" / "wx250s.yaml").read_text())
    return numbers


def mesh_uri() -> str:
    """Return the URI of Interbotix's wx250s meshes, or "" when that package is not installed."""
    share = _package_share(_MESH_PACKAGE)
    if share is None or not (share / "meshes" / "wx250s_meshes" / "base.stl").is_file():
        return ""
    return f"package://{_MESH_PACKAGE}/meshes/wx250s_meshes"


@lru_cache(maxsize=8)
def urdf_text(prefix: str = "", meshes: str = "") -> str:
    """Expand the xacro and return the URDF as XML text.

    Args:
        prefix: put before every link name, e.g. ``"wx250s/"``; joint names have no prefix.
        meshes: URI of a folder with Interbotix's STL files (see `mesh_uri`) for the visual
            geometry; empty: primitive shapes. Collision geometry is always primitive.
    """
    path = share_path() / "urdf" / "wx250s.urdf.xacro"
    document = xacro.process_file(str(path), mappings={"prefix": prefix, "meshes": meshes})
    text: str = document.toxml()
    return text


def _package_share(package: str) -> Path | None:
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
    except ImportError:
        return None
    try:
        return Path(get_package_share_directory(package))
    except (PackageNotFoundError, KeyError):  # KeyError: AMENT_PREFIX_PATH is not set
        return None
