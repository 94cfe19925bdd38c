"""Trained policies outside training: `load_policy` for Python, `python -m purerl.export` for everything else.

An exported policy is the greedy actor as a serialised `jax.export` artefact with its numbers inside and a symbolic
batch size, plus a small JSON text. It runs without this package, with jax, numpy and flatbuffers, which jax.export
reads it with and does not install: `notebooks/deploy_example.py`, which checks the checksums of file or folder, too.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from purerl.cli import Parser, checkpoint_name, run_command

if TYPE_CHECKING:
    from purerl.run.runs import CheckpointName

DESCRIPTION = """Write the greedy actor of a run as a file that runs with jax, numpy and flatbuffers alone."""

FORMAT = "purerl-policy-1"


class LoadedPolicy(NamedTuple):
    """The greedy actor of one seed. Single-agent: obs [B, d], action [B, k]; otherwise obs [B, A, d], ...

    d and k are flat: all axes in one, and the entries of a dict side by side in the order of their names.
    """

    initial_carry: Callable[[int], Any]
    """Memory at the start of B episodes."""
    act: Callable[..., tuple[Any, Any]]
    """`(obs, carry, mask=None) -> (action, carry)`; an action mask only where the environment has one."""
    obs_shape: tuple[int, ...]
    """Without the batch axis."""
    action_low: Any
    action_high: Any
    """Bounds of one action, None unless all of it is continuous and bounded."""
    meta: dict[str, Any]


def load_policy(
    run_dir: str | Path, checkpoint: "CheckpointName" = "best", seed_index: int | None = None
) -> LoadedPolicy:
    """The trained policy of a run directory.

    Args:
        checkpoint: `best`, `latest` or the number of an epoch.
        seed_index: which of the seeds trained at once; default: the one with the best evaluation, else the first.

    Raises:
        FileNotFoundError: not a run directory. ConfigError, CheckpointError: what is there does not fit.
    """
    import jax
    import numpy as np

    from envs_jax.spaces import Box
    from purerl.run import runs

    run_dir = Path(run_dir)
    run = runs.open_run(run_dir, without_data=True)
    stacked, meta = runs.read_policy(run_dir, run, checkpoint)
    policy, seed_index = runs.pick_seed(run, stacked, meta, seed_index)
    algorithm, env = run.algorithm, run.env
    single = env.num_agents == 1
    key = jax.random.key(0)  # greedy acting draws nothing

    def act(obs: Any, carry: Any, mask: Any = None) -> tuple[Any, Any]:
        if not single:
            return algorithm.act(policy, carry, obs, mask, key, True)
        mask = jax.tree.map(lambda legal: legal[:, None], mask)  # of mixed actions one for every part that has one
        action, carry = algorithm.act(policy, carry, obs[:, None], mask, key, True)
        return jax.tree.map(lambda x: x[:, 0], action), carry

    obs_shape = env.observation_space(env.default_params).shape
    space = env.action_space(env.default_params)
    low = high = None
    if isinstance(space, Box) and np.isfinite(space.low).all() and np.isfinite(space.high).all():
        bounds = (space.low, space.high)
        low, high = (np.broadcast_to(np.asarray(b, np.float32), space.shape)[0 if single else ...] for b in bounds)
    return LoadedPolicy(
        initial_carry=lambda batch: algorithm.initial_carry((batch,)),
        act=jax.jit(act),
        obs_shape=obs_shape[1:] if single else obs_shape,
        action_low=low,
        action_high=high,
        meta={
            **meta, "env": run.config.env, "algo": run.config.algo["name"], "seed": run.config.seed + seed_index,
            "mask_shapes": _mask_shapes(env, single),
        },
    )  # fmt: skip


def _mask_shapes(env: Any, single: bool) -> Any:
    """Shapes of one action mask as the environment gives it: a list, for mixed actions a tuple of lists; or None."""
    if env.action_mask is None:
        return None
    import jax

    def mask(key: Any) -> Any:
        return env.action_mask(env.reset_env(key, env.default_params)[1], env.default_params)

    shapes = jax.eval_shape(mask, jax.random.key(0))
    return jax.tree.map(lambda leaf: list(leaf.shape[1:] if single else leaf.shape), shapes)


class Exported(NamedTuple):
    artefact: bytes
    """`jax.export` of `(obs, *carry, *masks) -> (*actions, *carry)`."""
    metadata: dict[str, Any]


def export_policy(policy: LoadedPolicy) -> Exported:
    """Serialise a policy. The carry becomes a flat list of arrays, so that no class of ours is needed to run it."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax import export

    leaves, structure = jax.tree.flatten(policy.initial_carry(1))
    shapes = [_symbolic_shape(policy.initial_carry, index) for index in range(len(leaves))]
    is_shape = lambda node: isinstance(node, list)  # noqa: E731
    mask_shapes, mask_structure = jax.tree.flatten(policy.meta["mask_shapes"], is_leaf=is_shape)

    def flat_act(obs: Any, *rest: Any) -> tuple[Any, ...]:
        carry, mask = rest[: len(leaves)], jax.tree.unflatten(mask_structure, rest[len(leaves) :])
        action, carry = policy.act(obs, jax.tree.unflatten(structure, carry), mask)
        return (*jax.tree.leaves(action), *jax.tree.leaves(carry))

    scope = export.SymbolicScope()

    def argument(shape: Sequence[Any], dtype: Any) -> jax.ShapeDtypeStruct:
        text = ", ".join("batch" if size is None else str(size) for size in shape)
        return jax.ShapeDtypeStruct(export.symbolic_shape(text, scope=scope), dtype)

    arguments = [argument((None, *policy.obs_shape), jnp.float32)]
    arguments += [argument(shape, leaf.dtype) for shape, leaf in zip(shapes, leaves, strict=True)]
    arguments += [argument((None, *shape), jnp.bool_) for shape in mask_shapes]
    exported = export.export(jax.jit(flat_act), platforms=("cpu", "cuda"))(*arguments)
    carry = [
        {"shape": list(shape), "dtype": str(leaf.dtype), "initial": np.asarray(leaf).tolist()}
        for shape, leaf in zip(shapes, leaves, strict=True)
    ]
    metadata = {
        "format": FORMAT,
        "call": "(obs, *carry, *masks) -> (*actions, *carry); null in a shape is the batch size",
        "obs": {"shape": [None, *policy.obs_shape], "dtype": "float32"},
        "carry": carry,
        "masks": [{"shape": [None, *shape], "dtype": "bool"} for shape in mask_shapes],
        "action_low": None if policy.action_low is None else np.asarray(policy.action_low).tolist(),
        "action_high": None if policy.action_high is None else np.asarray(policy.action_high).tolist(),
        **{name: policy.meta.get(name) for name in ("env", "algo", "seed", "epoch", "config_hash")},
    }
    return Exported(bytes(exported.serialize()), metadata)


def _symbolic_shape(initial_carry: Callable[[int], Any], index: int) -> tuple[int | None, ...]:
    """Shape of a leaf of the carry with None for the batch axis, found by comparing two batch sizes."""
    import jax

    def shape(batch: int) -> tuple[int, ...]:
        return jax.tree.leaves(jax.eval_shape(lambda: initial_carry(batch)))[index].shape

    return tuple(a if a == b else None for a, b in zip(shape(2), shape(3), strict=True))


def check_out(out: Path) -> None:
    """Refuse what would be overwritten, or a name that promises another format.

    Raises:
        ConfigError: see above.
    """
    from purerl.errors import ConfigError

    if out.suffix not in ("", ".npz"):
        raise ConfigError(f"--out {out}: write a .npz file, or a folder, whose name has no suffix")
    if out.exists() and (out.suffix or not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}: exists already and is not overwritten; delete it or choose another name")


def write_exported(exported: Exported, out: Path) -> None:
    """One `.npz` file, whose zip format has a CRC-32 of all that is in it, or a folder with `policy.jaxexport`,
    `policy.json` and their digests in `SHA256SUMS`, as `sha256sum --check` reads it.

    Raises:
        ConfigError: see `check_out`.
    """
    import hashlib
    import io

    import numpy as np

    from purerl.run import files

    check_out(out)
    text = files.json_text(exported.metadata)
    if out.suffix == ".npz":
        out.parent.mkdir(parents=True, exist_ok=True)
        packed = io.BytesIO()
        np.savez(packed, artefact=np.frombuffer(exported.artefact, np.uint8), metadata=np.array(text))
        files.write_bytes(out, packed.getvalue())
        return
    out.mkdir(parents=True, exist_ok=True)
    parts = {"policy.jaxexport": exported.artefact, "policy.json": text.encode()}
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in parts.items())
    for name, data in {**parts, "SHA256SUMS": sums.encode()}.items():
        files.write_bytes(out / name, data)


def parser() -> argparse.ArgumentParser:
    parser = Parser("python -m purerl.export", DESCRIPTION)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="directory of a run")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="a new .npz file or folder")
    parser.add_argument(
        "--checkpoint", type=checkpoint_name, default="best", metavar="best|latest|EPOCH", help="default: best"
    )
    parser.add_argument("--seed-index", type=int, metavar="I", help="which seed of several (default: best)")
    return parser


def command(argv: Sequence[str] | None) -> int:
    args = parser().parse_args(argv)
    check_out(args.out)  # before the seconds that the rest takes
    exported = export_policy(load_policy(args.run, args.checkpoint, args.seed_index))
    write_exported(exported, args.out)
    print(f"{args.out}: {len(exported.artefact):,} bytes, obs {exported.metadata['obs']['shape']}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv)


if __name__ == "__main__":
    sys.exit(main())
