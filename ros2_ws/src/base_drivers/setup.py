from pathlib import Path

from setuptools import find_packages, setup

package_name = "base_drivers"


def files(directory, pattern):
    return [str(path) for path in sorted(Path(directory).glob(pattern))]


setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        (f"share/{package_name}/launch", files("launch", "*.launch.py")),
        (f"share/{package_name}/config", files("config", "*.yaml")),
        (f"share/{package_name}/config/robots", files("config/robots", "*.yaml")),
        (f"share/{package_name}/udev", files("udev", "*.rules")),
    ],
    install_requires=["setuptools", "numpy", "pyserial"],
    zip_safe=False,
    maintainer="Coxswain maintainers",
    maintainer_email="maintainers@coxswain.dev",
    description="Drivers of mobile bases (Kobuki, Unitree Go2) and the guard before them.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "cmd_vel_guard = base_drivers.cmd_vel_guard:main",
            "fault = emulators.fault:main",
            "go2_driver = base_drivers.go2_driver:main",
            "go2_emulator = base_drivers.go2_emulator:main",
            "go2_stop_keeper = base_drivers.go2_stop_keeper:main",
            "kobuki_driver = base_drivers.kobuki_driver:main",
            "kobuki_emulator = base_drivers.kobuki_emulator.main:main",
        ]
    },
)
