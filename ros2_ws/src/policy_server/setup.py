from pathlib import Path

from setuptools import setup

package_name = "policy_server"

setup(
    name=package_name,
    version="0.1.0",
    packages=[package_name],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        (
            f"share/{package_name}/config/robots",
            [str(path) for path in sorted(Path("config/robots").glob("*.yaml"))],
        ),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="Coxswain maintainers",
    maintainer_email="maintainers@coxswain.dev",
    description="Runs policy bundles on a robot.",
    license="Apache-2.0",
    entry_points={"console_scripts": ["policy_node = policy_server.policy_node:main"]},
)
