"""What algorithms share: roll-outs, replay, estimators, minibatches, losses, devices."""
