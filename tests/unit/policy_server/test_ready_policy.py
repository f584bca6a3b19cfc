"""What is refused before a policy may run, and how settings change what the bundle says."""

import bundle_builder
import numpy as np
import pytest
from policy_server import registry
from policy_server.deployment import ChunkSpec
from policy_server.policy import ActionChunk
from policy_server.ready_policy import PolicySettings, prepare_policy

DEFAULTS = {
    "policy": "",
    "policy_parameters": "",
    "robot": "wx250s",
    "provider": "cpu",
    "threads": 1,
    "rate_hz": 0.0,
    "inference": "",
    "execute_steps": 0,
    "num_samples": 1,
    "task": "",
}


class Scripted:
    """A kind of policy with parameters: chunks of `steps` steps that are all `value`."""

    closed = 0

    def __init__(self, bundle, options, steps, value=0.0):
        self.spec = bundle.deployment
        self.steps, self.value = steps, value

    def reset(self, seed):
        pass

    def infer(self, observation, num_samples=1):
        return ActionChunk(np.full((num_samples, self.steps, 7), self.value, np.float32))

    def close(self):
        type(self).closed += 1


@pytest.fixture(autouse=True)
def scripted_kind(monkeypatch):
    monkeypatch.setattr(Scripted, "closed", 0)
    monkeypatch.setitem(registry.POLICIES._factories, "scripted", Scripted)


def prepare(file, tell=lambda text: None, warn=lambda text: None, **settings):
    return prepare_policy(
        PolicySettings(model=str(file), **{**DEFAULTS, **settings}), [], tell, warn
    )


def test_a_bundle_is_ready_as_it_says(ptr_file):
    told, warned = [], []
    ready = prepare(ptr_file, told.append, warned.append)
    assert (ready.rate_hz, ready.chunk, ready.sampling_problem) == (5.0, ChunkSpec(), "")
    assert "2 tasks" in told[0] and not warned
    ready = prepare(ptr_file, told.append, warned.append, rate_hz=8.0, task="push_left")
    assert ready.rate_hz == 8.0 and "made for 5 Hz" in warned[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "nowhere"}, "no such bundle"),
        ({"task": "push_lft"}, 'did you mean "push_left"'),
        ({"rate_hz": 15.0}, "the bundle was made for 5"),
        ({"rate_hz": 2.4}, "expected 0 or 2.5 to 10"),
        ({"policy": "rando"}, 'did you mean "random"'),
        ({"robot": "wx205s"}, 'did you mean "wx250s"'),
        ({"execute_steps": 2}, "found 2 steps to execute of a chunk of 1, expected at most 1"),
        ({"inference": "background"}, "at most 0 with inference in the background"),
        ({"execute_steps": 4}, "0.4 s, the bundle's max_observation_age_s, after their observ"),
        ({"policy_parameters": "{beta: 1}"}, 'parameters of the kind "ptr": []'),
        ({"policy_parameters": "[1, 2]"}, "expected a mapping"),
        ({"policy_parameters": "{1: 2}"}, "expected a mapping"),
        ({"policy_parameters": "{a: "}, "expected YAML"),
        ({"policy": "scripted"}, "steps: found nothing, expected a value"),
        (
            {"policy": "scripted", "policy_parameters": "{steps: 1, vlaue: 1}"},
            'did you mean "value"',
        ),
    ],
)
def test_what_does_not_fit_is_refused(ptr_file, settings, said):
    file = settings.get("model", ptr_file)
    with pytest.raises(ValueError) as refused:
        prepare(file, **{name: value for name, value in settings.items() if name != "model"})
    assert said in str(refused.value)


@pytest.mark.parametrize(("rate_hz", "said"), [(60.0, "60 Hz"), (0.4, "0.4 Hz")])
def test_a_rate_that_the_controller_does_not_execute_is_refused(ptr_file, rate_hz, said):
    ptr_file.write_text(ptr_file.read_text().replace("rate_hz: 5.0", f"rate_hz: {rate_hz}"))
    with pytest.raises(ValueError, match=f"{said}, expected 0.5 to 50"):
        prepare(ptr_file)


def test_chunks_are_executed_as_the_settings_say(ptr_file):
    bundle_builder.with_chunks(
        ptr_file, execute_steps=3, inference="background", ensemble_decay=0.1
    )
    scripted = {"policy": "scripted", "policy_parameters": "{steps: 6}"}
    assert prepare(ptr_file, **scripted).chunk == ChunkSpec(3, True, 0.1)
    assert prepare(ptr_file, execute_steps=5, **scripted).chunk == ChunkSpec(5, True, 0.1)
    # An average needs several chunks at a time.
    waiting = prepare(ptr_file, execute_steps=6, inference="between_steps", **scripted)
    assert waiting.chunk == ChunkSpec(6)
    with pytest.raises(ValueError, match=r"steps to execute of a chunk of 6, .* at most 5"):
        prepare(ptr_file, execute_steps=6, **scripted)
    assert Scripted.closed == 1
    waiting.close()
    assert Scripted.closed == 2


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("{steps: 2, value: .nan}", "steps of finite numbers"),
        ("{steps: 0}", "steps of finite numbers"),
    ],
)
def test_a_policy_whose_warm_up_fails_is_closed(ptr_file, parameters, said):
    with pytest.raises(ValueError, match=said):
        prepare(ptr_file, policy="scripted", policy_parameters=parameters)
    assert Scripted.closed == 1


def test_a_policy_that_cannot_sample_says_why(tmp_path):
    file = bundle_builder.write_recurrent_bundle(tmp_path / "sum")
    assert "found num_samples 2, expected 1" in prepare(file).sampling_problem
