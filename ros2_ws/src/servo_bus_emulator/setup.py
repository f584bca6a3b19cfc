from setuptools import find_packages, setup

package_name = "servo_bus_emulator"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="Coxswain maintainers",
    maintainer_email="maintainers@coxswain.dev",
    description="Emulated DYNAMIXEL servo bus of a WidowX 250 6DOF on a pseudo-terminal.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "fault = emulators.fault:main",
            "servo_bus_emulator = servo_bus_emulator.main:main",
        ]
    },
)
