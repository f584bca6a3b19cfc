from setuptools import find_packages, setup

package_name = "camera_drivers"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        (f"share/{package_name}/launch", ["launch/camera.launch.py"]),
    ],
    install_requires=["setuptools", "numpy", "opencv-python-headless", "pyyaml"],
    zip_safe=False,
    maintainer="Coxswain maintainers",
    maintainer_email="maintainers@coxswain.dev",
    description="One camera node for V4L2, RTSP, HTTP, RealSense, video files and image folders.",
    license="Apache-2.0",
    entry_points={"console_scripts": ["camera_driver = camera_drivers.camera_driver:main"]},
)
