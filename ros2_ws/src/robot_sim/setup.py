from setuptools import find_packages, setup

setup(
    name="robot_sim",
    version="0.1.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/robot_sim"]),
        ("share/robot_sim", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="Coxswain maintainers",
    maintainer_email="maintainers@coxswain.dev",
    description="MuJoCo toy kitchen with a WidowX 250 behind the arm's own ROS interface",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "robot_sim = robot_sim.robot_sim_node:main",
            "navigation_sim_node = robot_sim.navigation_sim_node:main",
        ]
    },
)
