"""What a GPU needs and a machine lacks, told once and by name."""

import shutil
import subprocess
import warnings

import onnxruntime
import pytest
from policy_server import gpu_libraries
from policy_server.bundle import load_bundle
from policy_server.engine import EngineOptions, Pipeline, ProviderWarning

GPU = ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture(autouse=True)
def forget():
    gpu_libraries.problem.cache_clear()
    yield
    gpu_libraries.problem.cache_clear()


def _compile(folder, name, *needed):
    folder.mkdir(exist_ok=True)
    source = folder / "source.c"
    source.write_text(f"int {name}_value(void) {{ return 1; }}\n")
    library = folder / f"lib{name}.so.1"
    flags = ["-shared", "-fPIC", "-Wl,--no-as-needed", f"-Wl,-soname,{library.name}"]
    command = ["gcc", *flags, "-o", str(library), str(source), *map(str, needed)]
    subprocess.run(command, check=True, timeout=60)
    return library


@pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("ldd")), reason="no gcc or ldd")
def test_only_libraries_that_are_nowhere_are_missing(tmp_path):
    driver = _compile(tmp_path / "driver", "driver")
    wheel = _compile(tmp_path / "wheel", "wheel")
    provider = _compile(tmp_path / "capi", "provider", driver, wheel)
    assert gpu_libraries.not_found(provider, []) == [driver.name, wheel.name]
    assert gpu_libraries.not_found(provider, [wheel.parent]) == [driver.name]
    assert gpu_libraries.not_found(provider, [wheel.parent, driver.parent]) == []


@pytest.mark.parametrize(
    ("missing", "parts"),
    [
        (["libcuda.so.1"], ["no NVIDIA driver on this machine: libcuda.so.1 is missing"]),
        (["libcublasLt.so.13", "libcuda.so.1"], ["no NVIDIA driver", "libcublasLt.so.13 too"]),
        (["libcublasLt.so.13"], ["missing libraries: libcublasLt.so.13; ./run setup gpu"]),
    ],
)
@pytest.mark.parametrize("provider", ["auto", "fastest", "cuda"])
def test_without_a_driver_one_line_is_told_and_no_model_tries(
    ptr_file, monkeypatch, capfd, missing, parts, provider
):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: GPU)
    monkeypatch.setattr(gpu_libraries, "missing_libraries", lambda _: missing)
    monkeypatch.setattr("policy_server.openvino_session.has_bfloat16", lambda: False)
    made = []
    session = onnxruntime.InferenceSession

    def make(content, settings, providers):
        made.append(providers)
        return session(content, settings, providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", make)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipeline = Pipeline(load_bundle(ptr_file), EngineOptions(provider, 1))
    assert len(pipeline.stages) > 1
    assert pipeline.provider == "CPUExecutionProvider"
    assert all(providers == ["CPUExecutionProvider"] for providers in made)
    (told,) = [str(warning.message) for warning in caught]
    assert all(part in told for part in (*parts, "running on the CPU"))
    assert "\n" not in told
    assert "".join(capfd.readouterr()) == ""


def test_a_provider_that_does_not_start_is_tried_once(ptr_file, monkeypatch):
    """The libraries are there, and yet ONNX Runtime computes on the CPU."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: GPU)
    monkeypatch.setattr(gpu_libraries, "problem", lambda _: "")
    asked = []
    session = onnxruntime.InferenceSession

    def falls_back(content, settings, providers):
        asked.append(providers[0])
        return session(content, settings, ["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", falls_back)
    with pytest.warns(ProviderWarning, match="could not start") as caught:
        pipeline = Pipeline(load_bundle(ptr_file), EngineOptions("cuda", 1))
    assert len(caught) == 1
    assert asked == ["CUDAExecutionProvider", *["CPUExecutionProvider"] * (len(asked) - 1)]
    assert pipeline.provider == "CPUExecutionProvider"


def test_tensorrt_is_used_only_when_asked_for(ptr_file, monkeypatch):
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider", *GPU]
    )
    asked = []
    monkeypatch.setattr(gpu_libraries, "problem", lambda name: asked.append(name) or "not here")
    monkeypatch.setattr("policy_server.openvino_session.has_bfloat16", lambda: False)
    for provider in ("auto", "fastest"):
        with pytest.warns(ProviderWarning, match='"cuda" cannot be used'):
            Pipeline(load_bundle(ptr_file), EngineOptions(provider, 1))
    assert set(asked) == {"cuda"}
    with pytest.warns(ProviderWarning, match=r'"tensorrt" cannot be used \(not here\)'):
        Pipeline(load_bundle(ptr_file), EngineOptions("tensorrt", 1))


def test_with_the_wheels_only_the_driver_may_be_missing():
    """`./run setup gpu` brings everything but the driver."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime is for CPUs; ./run setup gpu brings the other")
    assert set(gpu_libraries.missing_libraries("cuda")) <= {gpu_libraries.DRIVER}
