import pytest
from widowx_bringup.bundle_path import BundleNotFoundError, find_bundle


@pytest.fixture
def repository(tmp_path):
    for name in ("ptr_small", "ptr_large"):
        bundle = tmp_path / "models" / name
        bundle.mkdir(parents=True)
        (bundle / f"{name}.yaml").write_text("")
    (tmp_path / "ws" / "install" / "package").mkdir(parents=True)
    return tmp_path


def test_finds_by_name_above_the_installation_and_by_path(repository):
    start = [repository / "ws" / "install" / "package"]
    bundle = repository / "models" / "ptr_small"
    assert find_bundle("ptr_small", start) == bundle
    assert find_bundle(str(bundle), []) == bundle


def test_missing_bundles_are_named(repository):
    with pytest.raises(BundleNotFoundError, match="known bundles: ptr_large, ptr_small"):
        find_bundle("ptr_smal", [repository / "ws"])
    with pytest.raises(BundleNotFoundError, match="no such directory"):
        find_bundle("models/nothing", [repository / "ws"])
