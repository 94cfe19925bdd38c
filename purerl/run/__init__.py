"""A run: building and opening it, the compiled program, the host loop, checkpoints, logs, evaluation."""
