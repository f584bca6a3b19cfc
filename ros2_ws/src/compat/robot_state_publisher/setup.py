from setuptools import find_packages, setup

package_name = "robot_state_publisher"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    install_requires=["setuptools", "numpy"],
    zip_safe=True,
    maintainer="Coxswain maintainers",
    maintainer_email="maintainers@coxswain.dev",
    description="Publishes the frames of a robot from its URDF and joint states.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "robot_state_publisher = robot_state_publisher.robot_state_publisher:main"
        ]
    },
)
