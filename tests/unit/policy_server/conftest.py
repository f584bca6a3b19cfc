"""Makes the bundle builder importable and gives each test a fresh bundle."""

import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

import bundle_builder


@pytest.fixture
def ptr_file(tmp_path):
    """The YAML of a PTR bundle with a critic of batch 4."""
    return bundle_builder.write_ptr_bundle(tmp_path / "tiny_ptr", critic_batch=4)


@pytest.fixture
def mutate(ptr_file):
    """Change the YAML of `ptr_file`: mutate(function of the document) → path."""

    def apply(change):
        document = yaml.safe_load(ptr_file.read_text())
        change(document)
        return bundle_builder.write_yaml(ptr_file.parent, document)

    return apply
