"""purerl beside its peers, in turns in one run on one machine; the same networks, numbers and work for all.

    python benchmarks/peers.py lstm_td3 [--torch-python PYTHON] [--obs base20] [--seeds 8]
    python benchmarks/peers.py ppo [--rejax-python PYTHON] [--sb3-python PYTHON]
        [--purejaxrl-path CHECKOUT --purejaxrl-python PYTHON] [--seeds 1 8 64 256]
    python benchmarks/peers.py td3|sac [--rejax-python PYTHON] [--sbx-python PYTHON] [--seeds 1 8 64 256]
    python benchmarks/peers.py qmix|vdn --jaxmarl-path CHECKOUT [--jaxmarl-python PYTHON] [--repeats 3]

`lstm_td3` is one gradient update on a plant against PyTorch's fused LSTM; the others are whole trainings on CartPole
(`ppo`), Pendulum (`td3`, `sac`) and MPE's simple_spread (`qmix`, `vdn`: with JaxMARL's settings, and with what final
policies reach). Peers may live in environments of their own, because their requirements clash: name their interpreters.
Without one that peer is not measured, and the output says so. The script of each peer is in `peer/`.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import record
from peer import lstm_td3, training

from purerl.learn import sharding

CONFIGS = Path(__file__).parents[1] / "configs"
TASKS = {
    "ppo": "cartpole_ppo",
    "td3": "pendulum_td3",
    "sac": "pendulum_sac",
    "qmix": "mpe_spread_qmix",
    "vdn": "mpe_spread_vdn",
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    works = top.add_subparsers(dest="work", required=True)
    lstm = works.add_parser("lstm_td3", help="one LSTM-TD3 gradient update")
    lstm.add_argument("--torch-python", default=sys.executable, help="interpreter of an environment with torch")
    lstm.add_argument("--obs", default="base20", help="observation layout of the plant")
    lstm.add_argument("--batch", type=int, default=128, help="days per update")
    lstm.add_argument("--seeds", type=int, default=8, help="trained at once")
    lstm.add_argument("--updates", type=int, default=24, help="per repetition")
    for work, config in TASKS.items():
        whole = works.add_parser(work, help=f"whole trainings as in configs/{config}.yaml")
        whole.add_argument("--config", default=str(CONFIGS / f"{config}.yaml"))
        team = work in training.TEAMS
        seeds = [1] if team else [1, 8, 64, 256]
        whole.add_argument("--seeds", type=int, nargs="+", default=seeds, help="trained at once")
        whole.add_argument("--env-steps", type=int, help="of one seed (default: the configuration's)")
        whole.add_argument("--full-seeds", type=int, default=8, help="above, steps shrink as seeds grow")
        whole.add_argument("--least-steps", type=int, default=5000, help="but not below")
        whole.add_argument("--slow-repeats", type=int, default=3, help="of Stable-Baselines3 and SBX")
        whole.add_argument("--torch-threads", type=int, default=1, help="of Stable-Baselines3")
        whole.add_argument("--without", nargs="*", default=[], help="sides to leave out, by name")
        if team:
            whole.add_argument("--jaxmarl-path", help="checkout of FLAIROx/JaxMARL")
            whole.add_argument("--jaxmarl-python", default=sys.executable, help="interpreter with it and flashbax")
            whole.add_argument("--final-episodes", type=int, default=512, help="that final policies play")
            continue
        whole.add_argument("--rejax-python", help="interpreter with rejax")
        if work == "ppo":
            whole.add_argument("--sb3-python", default=sys.executable, help="interpreter with stable-baselines3")
            whole.add_argument("--purejaxrl-path", help="checkout of luchris429/purejaxrl")
            whole.add_argument("--purejaxrl-python", help="interpreter with its requirements")
        else:
            whole.add_argument("--sbx-python", help="interpreter with sbx-rl")
    for work in works.choices.values():
        work.add_argument("--devices", type=int, default=os.cpu_count(), help="CPU cores that work as devices")
        work.add_argument("--repeats", type=int, default=11, help="each with a seed of its own")
        work.add_argument("--name", help="of the record")
    return top


def main() -> None:
    args = parser().parse_args()
    before = record.machine()
    values: dict[str, Any]
    if args.work == "lstm_td3":
        sharding.provide_cpu_devices(args.devices)
        values, name = lstm_td3.lstm_td3_update(args), "lstm_td3_update"
        lstm_td3.report(values)
    else:
        if not Path(args.config).exists():
            sys.exit(f"{args.config}: no such configuration")
        values, name = training.measure(args), f"{args.work}_training"
    print(record.write(args.name or f"peers_{name}", {name: values}, before))


if __name__ == "__main__":
    main()
