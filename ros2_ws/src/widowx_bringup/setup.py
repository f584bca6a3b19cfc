from pathlib import Path

from setuptools import find_packages, setup

package_name = "widowx_bringup"


def files_in(directory: str, pattern: str) -> tuple[str, list[str]]:
    return f"share/{package_name}/{directory}", sorted(map(str, Path(directory).glob(pattern)))


setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        files_in("launch", "*.launch.py"),
        files_in("config", "*.yaml"),
        files_in("rviz", "*.rviz"),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="Coxswain maintainers",
    maintainer_email="maintainers@coxswain.dev",
    description="Launch files and configuration that run a policy on a WidowX 250 6DOF.",
    license="Apache-2.0",
)
