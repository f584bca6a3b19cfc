from setuptools import setup

package_name = "emulators"

setup(
    name=package_name,
    version="0.1.0",
    packages=[package_name],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="Coxswain maintainers",
    maintainer_email="maintainers@coxswain.dev",
    description="What emulators of devices share.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": ["fault = emulators.fault:main"],
    },
)
