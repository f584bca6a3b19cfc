#!/bin/bash
# torch 2.13.0 (CPU), Python 3.11: the safe reader of torch.load(weights_only=True) and a training state
# that holds a whole module and its optimizer, as GNM's and ViNT's training saves it.
# 1. Before its first step an optimizer's state is an empty collections.defaultdict: with stand-in classes
#    registered for all names that get_unsafe_globals_in_checkpoint() lists, the file loads.
# 2. After one step the same stand-ins fail: "Can only SETITEMS for dict, collections.OrderedDict,
#    collections.Counter". A check with an optimizer that was never stepped does not see it.
# 3. collections.defaultdict registered as itself fails too; as a function that returns a dict, it loads.
# Exit status 0: all three behave so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$work/check.py" <<'PYTHON'
import collections
import sys

import torch
from torch import nn


class Net(nn.Sequential):
    pass


class StandIn:
    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        self.__dict__.update(state)

    def __setitem__(self, key, value):
        pass


def load(path, **replaced):
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    known = [(replaced.get(n.rpartition(".")[2], type("S", (StandIn,), {})), n) for n in names]
    try:
        with torch.serialization.safe_globals(known):
            return sorted(torch.load(path, weights_only=True)), names
    except Exception as error:
        return str(error), names


network = Net(nn.Linear(2, 2))
optimizer = torch.optim.Adam(network.parameters())
path = sys.argv[1]
ok = True
for steps in (0, 1):
    for _ in range(steps):
        network(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    torch.save({"model": network, "optimizer": optimizer, "scheduler": None}, path)
    found, names = load(path)
    print(torch.__version__, f"{steps} steps, stand-ins:", str(found).replace("\n", " ")[:60], "…")
    ok &= "collections.defaultdict" in names
    ok &= ("Can only SETITEMS for dict" in str(found)) == (steps == 1)
itself, _ = load(path, defaultdict=collections.defaultdict)
print("1 step, defaultdict itself:", str(itself).replace("\n", " ")[:60], "…")
as_dict, _ = load(path, defaultdict=lambda *args: {})
print("1 step, as a function that returns a dict:", as_dict)
ok &= isinstance(itself, str) and isinstance(as_dict, list)
sys.exit(not ok)
PYTHON
"$work/venv/bin/python" "$work/check.py" "$work/latest.pth"
