"""Run a policy written by `python -m purerl.export --run DIR --out policy.npz` with jax, numpy and flatbuffers.

Call it with the file or folder: `python notebooks/deploy_example.py policy.npz`.
"""

import hashlib
import json
import sys
from pathlib import Path

import jax.export
import numpy as np


def read(path):
    """The serialised policy and its layout; raises an error where the file or a part of the folder was altered."""
    if path.is_file():
        with np.load(path) as file:  # NumPy checks what it reads against the CRC-32 of the zip format
            return file["artefact"].tobytes(), json.loads(str(file["metadata"]))
    parts = {name: (path / name).read_bytes() for name in ("policy.jaxexport", "policy.json")}
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in parts.items())
    if (path / "SHA256SUMS").read_bytes() != sums.encode():
        raise ValueError(f"{path}: a file does not fit SHA256SUMS; export the policy again")
    return parts["policy.jaxexport"], json.loads(parts["policy.json"])


def main():
    artefact, layout = read(Path(sys.argv[1]))
    policy = jax.export.deserialize(bytearray(artefact))  # this is what needs flatbuffers
    batch = 3  # episodes played side by side; any number works
    carry = [np.repeat(np.array(c["initial"], c["dtype"]), batch, axis=c["shape"].index(None)) for c in layout["carry"]]
    obs = np.zeros([batch if size is None else size for size in layout["obs"]["shape"]], np.float32)
    for step in range(3):
        action, *carry = policy.call(obs, *carry)
        print(f"step {step}: action {np.asarray(action).round(4).tolist()}")  # act on the plant, then read the next obs


if __name__ == "__main__":
    main()
