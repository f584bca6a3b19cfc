#!/usr/bin/env bash
# colcon-core 0.21.3, `colcon build --symlink-install` of a Python package (as ament_python packages
# are): a data file that is taken out of the package breaks every later build of it. The first build
# leaves a link to the file in the build folder; the second one keeps the link, which leads nowhere
# now, and setuptools, whose setup.py lists the folder with glob as ROS 2's tutorials do, fails to copy
# it. Without --symlink-install, and after the build folder was removed, the package builds.
# Valid input: a package with setup.py, setup.cfg and two YAML files, of which one is deleted.
# Output seen:
#   first build: 0, after the removal: 1
#   error: can't copy '…/build/arm/config/old.yaml': doesn't exist or not a regular file
#   without the old build folder: 0
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH AMENT_PREFIX_PATH COLCON_PREFIX_PATH
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    colcon-core==0.21.3 colcon-python-setup-py==0.2.9 setuptools==79.0.1
PATH=$folder/venv/bin:$PATH
mkdir -p src/arm/arm src/arm/config
touch src/arm/arm/__init__.py src/arm/config/{new,old}.yaml
cat >src/arm/setup.cfg <<'EOF'
[metadata]
name = arm
version = 0.1.0
EOF
cat >src/arm/setup.py <<'EOF'
from glob import glob

from setuptools import setup

setup(packages=["arm"], data_files=[("share/arm/config", glob("config/*.yaml"))])
EOF
build() {
    local status=0
    colcon build --symlink-install --paths src/arm >build.txt 2>&1 || status=$?
    echo $status
}
first=$(build)
rm src/arm/config/old.yaml
second=$(build)
echo "first build: $first, after the removal: $second"
message=$(grep -o "can't copy '.*old.yaml'.*" build.txt | head -1 || true)
echo "error: ${message//$folder/…}"
rm -r build
third=$(build)
echo "without the old build folder: $third"
[ "$first $second $third" = "0 1 0" ] && [ -n "$message" ]
