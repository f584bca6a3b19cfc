from policy_server.bundle import MODEL_PATH_VARIABLE, model_search_path


def test_finds_models_above_a_start_point_and_prefers_the_environment(tmp_path):
    installed = tmp_path / "repository" / "ws" / "install" / "package"
    installed.mkdir(parents=True)
    models = tmp_path / "repository" / "models"
    models.mkdir()
    assert model_search_path({}, [installed, installed.parent]).count(models) == 1
    chosen = model_search_path({MODEL_PATH_VARIABLE: "/a:/b"}, [installed])
    assert [str(path) for path in chosen] == ["/a", "/b"]
