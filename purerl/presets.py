"""Named hyper-parameters: `preset: NAME` in a configuration stands for these keys, and keys beside it win over them.

`small` has the values of published tables for air-traffic policies on a CPU, batches of a few thousand steps; `wide` is
for thousands of environments at once; `ppo_tuned` follows the schedule that the same source ended with. A resolved
configuration holds the keys and no longer the name.
"""

from typing import Any

_TANH_256 = {"hidden_sizes": [256, 256], "activation": "tanh"}
_RELU_256 = {"hidden_sizes": [256, 256], "activation": "relu"}
_RELU_128 = {"hidden_sizes": [128, 128], "activation": "relu"}
_TANH_64 = {"hidden_sizes": [64, 64], "activation": "tanh"}

PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("ppo", "small"): {
        "algo": {
            "num_envs": 20, "steps_per_update": 200, "epochs": 8, "minibatches": 16, "lr": 3e-4, "gamma": 0.995,
            "gae_lambda": 0.95, "clip": 0.1, "max_grad_norm": 1.0, "entropy_coef": 0.01, "kl_coef": 0.2,
            "kl_target": 0.01, "value_coef": 1.0, "value_clip": None, "actor": _TANH_256, "critic": _TANH_256,
        }
    },
    ("ppo", "wide"): {
        "reward_scale": 0.1,
        "algo": {
            "num_envs": 2048, "steps_per_update": 32, "epochs": 4, "minibatches": 8, "lr": 7e-4,
            "lr_schedule": {"type": "linear", "final_factor": 1 / 7}, "gamma": 0.995, "gae_lambda": 0.95, "clip": 0.2,
            "value_clip": None, "max_grad_norm": 0.5, "entropy_coef": 0.002, "value_coef": 0.5,
            "initial_log_std": -0.5, "actor": _TANH_64, "critic": _TANH_64,
        },
    },
    ("ppo", "ppo_tuned"): {
        "algo": {
            "num_envs": 60, "steps_per_update": 200, "epochs": 8, "minibatches": 48, "lr": 3e-4,
            "lr_schedule": {"type": "piecewise", "points": [[0.0, 1.0], [0.6, 1 / 3], [1.0, 1 / 6]]}, "gamma": 0.995,
            "gae_lambda": 0.95, "clip": 0.1, "max_grad_norm": 1.0, "entropy_coef": 0.01,
            "entropy_schedule": {"type": "piecewise", "points": [[0.0, 1.0], [0.3, 0.0]]}, "kl_coef": 0.1,
            "kl_target": 0.02, "value_coef": 1.0, "value_clip": 50.0, "actor": _TANH_256, "critic": _TANH_256,
        }
    },
    ("sac", "small"): {
        "algo": {
            "actor_lr": 3e-4, "critic_lr": 3e-4, "alpha_lr": 3e-4, "batch_size": 4096, "buffer_size": 500_000,
            "gamma": 0.995, "tau": 0.01, "initial_alpha": 0.1, "target_entropy": "auto", "warmup_steps": 5000,
            "max_grad_norm": 5.0, "n_step": 1, "actor": _RELU_256, "critic": _RELU_256,
        }
    },
    ("impala", "small"): {
        "algo": {
            "num_envs": 80, "steps_per_update": 50, "minibatches": 16, "lr": 3e-4, "vtrace_clip_rho": 1.0,
            "vtrace_clip_pg_rho": 1.0, "entropy_coef": 0.01, "value_coef": 0.5, "gamma": 0.995, "max_grad_norm": 5.0,
            "actor": _TANH_256, "critic": _TANH_256,
        }
    },
    ("appo", "small"): {
        "algo": {
            "num_envs": 20, "steps_per_update": 100, "minibatches": 4, "lr": 3e-4, "clip": 0.1, "entropy_coef": 0.001,
            "gamma": 0.995, "max_grad_norm": 5.0, "actor": _RELU_128, "critic": _RELU_128,
        }
    },
    ("cql", "small"): {
        "algo": {
            "actor_lr": 3e-4, "critic_lr": 3e-4, "batch_size": 4096, "min_q_weight": 5.0, "tau": 0.005,
            "initial_alpha": 0.1, "target_entropy": "auto", "bc_updates": 5000, "actor": _RELU_256, "critic": _RELU_256,
        }
    },
}  # fmt: skip
"""(algorithm, name) -> sections of a configuration."""
