"""Run a policy written by `python -m purerl.export --run DIR --out policy.npz` with jax and numpy alone.

Call it with the file: `python notebooks/deploy_example.py policy.npz`.
"""

import json
import sys

import jax.export
import numpy as np

with np.load(sys.argv[1]) as file:
    policy = jax.export.deserialize(bytearray(file["artefact"].tobytes()))
    layout = json.loads(str(file["metadata"]))

batch = 3  # episodes played side by side; any number works
carry = [np.repeat(np.array(c["initial"], c["dtype"]), batch, axis=c["shape"].index(None)) for c in layout["carry"]]
obs = np.zeros([batch if size is None else size for size in layout["obs"]["shape"]], np.float32)
for step in range(3):
    action, *carry = policy.call(obs, *carry)
    print(f"step {step}: action {np.asarray(action).round(4).tolist()}")  # act on the plant, then read the next obs
