"""Kinds of navigation models: our own, and those of other packages."""

import pytest
import yaml
from bundle_builder import write_yaml
from navigation_bundle import write_navigation_bundle
from node_common.strict_yaml import BundleError
from policy_server.gnm import GnmModel
from policy_server.navigation_model import NAVIGATION_MODELS, load_navigation_model
from policy_server.registry import load_policy


def write_kind(directory, kind):
    file = write_navigation_bundle(directory)
    document = yaml.safe_load(file.read_text())
    document["deployment"]["policy"]["kind"] = kind
    return write_yaml(file.parent, document)


def test_a_navigation_model_of_another_package(tmp_path, monkeypatch):
    class Foreign(GnmModel):
        pass

    monkeypatch.setitem(NAVIGATION_MODELS._factories, "foreign", Foreign)
    assert {"gnm", "vint", "nomad", "foreign"} <= set(NAVIGATION_MODELS.all())
    file = write_kind(tmp_path / "way", "foreign")
    assert isinstance(load_navigation_model(file), Foreign)


def test_kinds_of_another_interface_are_not_mixed_up(tmp_path):
    file = write_kind(tmp_path / "way", "nomd")
    with pytest.raises(BundleError, match=r'available: .*did you mean "nomad"'):
        load_navigation_model(file)
    file = write_kind(tmp_path / "other", "ptr")
    with pytest.raises(BundleError, match=r"policy\.kind: found ptr"):
        load_navigation_model(file)
    file = write_navigation_bundle(tmp_path / "third")
    with pytest.raises(BundleError, match=r"policy\.kind: found gnm"):
        load_policy(file)
