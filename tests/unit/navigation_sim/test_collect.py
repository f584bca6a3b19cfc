"""The collection of drives, small, and read back."""

import hashlib
import json

import numpy as np
import pytest
from policy_training.gnm.collect import main, world_kind
from policy_training.gnm.labels import RouteTable, label
from safetensors.numpy import load_file


def test_a_small_collection_is_complete_and_can_be_labelled(tmp_path):
    out = tmp_path / "drives"
    command = ["--out", str(out), "--worlds", "1", "--seed", "31", "--robots", "rc_car"]
    command += ["--routes", "2", "--drives", "2", "--max-length-m", "9"]
    assert main(command) == 0
    index = json.loads((out / "dataset.json").read_text())
    assert index["complete"]
    (shard,) = index["shards"]
    assert shard["world"] == {"kind": world_kind(31), "seed": 31}
    data = (out / shard["file"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == shard["sha256"]
    tensors = load_file(out / shard["file"])
    n = shard["frames"]
    assert tensors["image"].shape == (n, 64, 85, 3)
    assert tensors["image"].dtype == np.uint8
    assert [d["length"] for d in shard["drives"]] == np.bincount(tensors["drive"]).tolist()
    assert len(shard["drives"]) == 4
    table = RouteTable(
        tensors["route_points_m"].astype(float), tensors["route_offsets"], index["route_step_m"]
    )
    route = tensors["route"].astype(int)
    on_route = table.at(route, tensors["arc_m"].astype(float))
    assert np.hypot(*(on_route - tensors["pose"][:, :2]).T).max() < 1.0
    # Six steps later in the same drive is six steps away, give or take the disturbances.
    frames = np.flatnonzero(tensors["drive"][6:] == tensors["drive"][:-6])
    distance, waypoints = label(
        tensors["pose"][frames],
        tensors["arc_m"][frames],
        route[frames],
        tensors["arc_m"][frames + 6],
        shard["spacing_m"],
        table,
        shard["max_turn_rad"],
        shard["turns_on_the_spot"],
    )
    assert 4.0 < np.median(distance) < 7.0
    assert np.isfinite(waypoints).all()

    with pytest.raises(SystemExit):
        main(command)
    assert main([*command, "--resume"]) == 0


def test_worlds_for_tests_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--seed", "9990", "--worlds", "20"])
    assert "0 .. 9999" in capsys.readouterr().err
