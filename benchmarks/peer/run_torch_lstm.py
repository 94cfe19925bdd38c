"""The LSTM-TD3 gradient update of `purerl.algos.td3`, written with PyTorch's fused LSTM. Needs torch alone.

Run by `lstm_td3.py`, in an interpreter that has torch: sizes as one JSON argument; every line on standard input asks
for one repetition, answered by the seconds of one update.

The mathematics is that of `td3.gradient_block` with `policy_delay` 1: targets for all steps from one unroll of the
target networks, `history` critics whose LSTM reads (o_t, a_{t-1}), actor and critic gradients at the same parameters,
clipping by global norm, Adam, Polyak averaging. It is written as PyTorch likes it: `nn.LSTM`, gradients asked only for
the parameters that need them, fused Adam, one `foreach` operation for the averaging.
"""

import copy
import json
import sys
import time
from itertools import pairwise

import torch
from torch import nn

ACTION_DIM = 1
TARGET_NOISE, NOISE_CLIP, LEARNING_RATE, MAX_GRAD_NORM, TAU = 0.5, 0.4, 5e-5, 1.0, 0.01


class Network(nn.Module):
    """LSTM and a perceptron on its outputs, which critics show the action beside them."""

    def __init__(self, in_dim: int, hidden: int, head: list[int], action_dim: int):
        super().__init__()
        self.core = nn.LSTM(in_dim, hidden)
        widths = [hidden + action_dim, *head]
        layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.head = nn.Sequential(*layers, nn.Linear(widths[-1], 1))


class Learner:
    def __init__(self, obs_dim: int, steps: int, batch: int, hidden: int, head: list[int], days: int):
        self.batch = batch
        self.actor = Network(obs_dim, hidden, head, 0)
        self.critics = nn.ModuleList(Network(obs_dim + ACTION_DIM, hidden, head, ACTION_DIM) for _ in range(2))
        self.target_actor, self.target_critics = copy.deepcopy(self.actor), copy.deepcopy(self.critics)
        self.families = [
            (parameters, torch.optim.Adam(parameters, LEARNING_RATE, fused=True))
            for parameters in (list(self.critics.parameters()), list(self.actor.parameters()))
        ]
        self.online = [p for parameters, _ in self.families for p in parameters]
        self.targets = [*self.target_critics.parameters(), *self.target_actor.parameters()]
        self.replay = (
            torch.randn(steps + 1, days, obs_dim),
            torch.rand(steps, days, ACTION_DIM) * 2 - 1,
            torch.randn(steps, days),
            torch.zeros(steps, days).index_fill_(0, torch.tensor([steps - 1]), 1.0),
        )

    def update(self) -> None:
        index = torch.randint(self.replay[0].shape[1], (self.batch,))
        obs, action, reward, done = (leaf[:, index] for leaf in self.replay)
        target = self.bootstrapped(obs, action, reward, done)
        history = remember(self.critics, obs[:-1], action)
        loss = sum(((value - target) ** 2).mean() for value in judge(self.critics, history, action)) / 2
        chosen = torch.tanh(self.actor.head(self.actor.core(obs[:-1])[0]))
        values = judge(self.critics, [h.detach() for h in history], chosen)
        for (parameters, _), objective in zip(self.families, (loss, -torch.min(*values).mean()), strict=True):
            gradients = torch.autograd.grad(objective, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
        for parameters, adam in self.families:
            nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
            adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.targets, self.online, TAU)

    @torch.no_grad()
    def bootstrapped(self, obs, action, reward, done):
        chosen = torch.tanh(self.target_actor.head(self.target_actor.core(obs)[0][1:]))
        noise = (TARGET_NOISE * torch.randn_like(chosen)).clamp(-NOISE_CLIP, NOISE_CLIP)
        history = [h[1:] for h in remember(self.target_critics, obs, action)]
        values = judge(self.target_critics, history, (chosen + noise).clamp(-1, 1))
        return reward + (1 - done) * torch.min(*values)


def remember(critics, obs, action):
    """What each critic knows before each action."""
    previous = torch.cat([torch.zeros_like(action[:1]), action])[: obs.shape[0]]
    inputs = torch.cat([obs, previous], dim=-1)
    return [critic.core(inputs)[0] for critic in critics]


def judge(critics, history, action):
    return [c.head(torch.cat([h, action], dim=-1))[..., 0] for c, h in zip(critics, history, strict=True)]


def main() -> None:
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    torch.manual_seed(0)
    learner = Learner(**request["sizes"])
    for _ in range(3):
        learner.update()
    print(json.dumps(torch.__version__), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(request["updates"]):
            learner.update()
        print((time.perf_counter() - start) / request["updates"], flush=True)


if __name__ == "__main__":
    main()
