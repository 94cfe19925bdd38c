"""What tests of mixers and of their learner share: layers and QPLEX by hand, in NumPy."""

import numpy as np


def dense_by_hand(layers, x):
    for layer in layers[:-1]:
        x = np.maximum(x @ layer["kernel"] + layer["bias"], 0.0)
    return x @ layers[-1]["kernel"] + layers[-1]["bias"]


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def qplex_by_hand(params, state, chosen, best, actions, from_zero=False):
    """`(value, importance [N])` of one joint action, in the dueling form of the paper.

    Args:
        chosen, best: [N]; `actions` one-hot [N, A].
    """
    weight = np.abs(dense_by_hand(params["transformation"]["weight"], state)) + 1e-10
    bias = dense_by_hand(params["transformation"]["bias"], state)
    both = np.concatenate([state, actions.reshape(-1)])
    importance = np.zeros(len(chosen))
    kernels = params["importance"]
    for k in range(len(kernels["key"][0]["bias"])):
        key, agent, action = ([{n: x[k] for n, x in layer.items()} for layer in kernels[part]] for part in
                              ("key", "agent", "action"))  # fmt: skip
        importance += (
            (np.abs(dense_by_hand(key, state)) + 1e-10)
            * sigmoid(dense_by_hand(agent, state))
            * sigmoid(dense_by_hand(action, both))
        )
    value = (weight * best + bias).sum() + ((importance + from_zero) * weight * (chosen - best)).sum()
    return value, importance
