from pathlib import Path

from setuptools import find_packages, setup

package_name = "policy_training"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        (
            f"share/{package_name}/configs",
            [str(path) for path in sorted(Path("configs").glob("*.yaml"))],
        ),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="Coxswain maintainers",
    maintainer_email="maintainers@coxswain.dev",
    description="Networks, losses, datasets, training, evaluation and export of robot policies",
    license="Apache-2.0",
    tests_require=["pytest"],
    entry_points={
        "console_scripts": [
            "collect = policy_training.collect:main",
            "train = policy_training.train:main",
            "evaluate = policy_training.evaluate:main",
            "export = policy_training.export:main",
        ],
    },
)
