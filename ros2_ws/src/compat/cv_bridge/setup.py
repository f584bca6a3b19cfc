from setuptools import find_packages, setup

package_name = "cv_bridge"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    install_requires=["setuptools", "numpy", "opencv-python-headless"],
    zip_safe=True,
    maintainer="Coxswain maintainers",
    maintainer_email="maintainers@coxswain.dev",
    description="Converts between ROS images and OpenCV arrays.",
    license="Apache-2.0",
)
