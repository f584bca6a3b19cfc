from pathlib import Path

from setuptools import find_packages, setup

package_name = "gnm_nav"


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
        files_in("rviz", "*.rviz"),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="Coxswain maintainers",
    maintainer_email="maintainers@coxswain.dev",
    description="Drives any robot over a topological map of images, by camera alone.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "navigator_node = gnm_nav.navigator_node:main",
            "path_follower_node = gnm_nav.path_follower_node:main",
            "map_builder = gnm_nav.map_builder_node:main",
            "build_map = gnm_nav.build_map:main",
            "edit_map = gnm_nav.edit_map:main",
            "import_images = gnm_nav.import_images:main",
            "send_goal = gnm_nav.send_goal:main",
        ],
    },
)
