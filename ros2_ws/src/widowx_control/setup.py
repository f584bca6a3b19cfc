from setuptools import find_packages, setup

package_name = "widowx_control"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        (f"share/{package_name}/config", ["config/modes.yaml", "config/wx250s.yaml"]),
    ],
    zip_safe=False,
    maintainer="Coxswain maintainers",
    maintainer_email="maintainers@coxswain.dev",
    description="Arm controller of the WidowX 250 6DOF",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "arm_controller = widowx_control.arm_controller_node:main",
            "arm_guard = widowx_control.guard.node:main",
            "xs_driver = widowx_control.xs_driver.node:main",
        ],
    },
)
