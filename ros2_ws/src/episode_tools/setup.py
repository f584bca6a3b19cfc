from setuptools import find_packages, setup

package_name = "episode_tools"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(),
    package_data={package_name: ["monitor_page.html"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    install_requires=["setuptools", "numpy", "opencv-python-headless"],
    zip_safe=False,
    maintainer="Coxswain maintainers",
    maintainer_email="maintainers@coxswain.dev",
    description="Runs, judges, reports and shows policy episodes.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "episode_runner = episode_tools.episode_runner:main",
            "monitor = episode_tools.monitor:main",
            "policy_markers = episode_tools.policy_markers:main",
        ],
    },
)
