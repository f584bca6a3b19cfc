from setuptools import setup

package_name = "widowx_description"

setup(
    name=package_name,
    version="0.1.0",
    packages=[package_name],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        (f"share/{package_name}/urdf", ["urdf/wx250s.urdf.xacro"]),
        (f"share/{package_name}/config", ["config/wx250s.yaml"]),
    ],
    zip_safe=False,
    maintainer="Coxswain maintainers",
    maintainer_email="maintainers@coxswain.dev",
    description="URDF of the WidowX 250 6DOF, its numbers and named poses",
    license="Apache-2.0",
)
