"""`python driver.py MOMENT CACHE_DIR ARGUMENT...`: `purerl.train` with the probe, killing itself at a chosen moment."""

import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
from helpers import keep_compiled_programs, register_fakes

from purerl import train
from purerl.run import checkpoint, display, logs


def die(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def on_call(number: int, original, instead=die):
    """`original`, but the call of this number runs `instead` with the same arguments and then the process dies."""
    calls = []

    def patched(*args, **kwargs):
        calls.append(None)
        if len(calls) < number:
            return original(*args, **kwargs)
        instead(*args, **kwargs)
        return die()

    return patched


def half_a_checkpoint(stream, **members):
    savez(stream, **members)
    stream.flush()
    stream.truncate(stream.tell() // 2)


def replace_or_die(source, destination):
    if Path(destination).name.startswith("epoch_") and Path(destination).suffix == ".npz":
        die()
    replace(source, destination)


def logs_with_a_torn_line(run_dir, *rest):
    """Logs as ever, but after the second epoch a line of the third is begun in every file."""
    log = open_logs(run_dir, *rest)

    def tear(epoch):
        log.write(epoch)
        (event_file,) = sorted((run_dir / "tensorboard").iterdir())[-1:]
        for path, text in (("training_progress.csv", "9,1"), ("metrics.jsonl", '{"epoch": 9'), (event_file, "x" * 9)):
            with open(run_dir / path, "a") as stream:
                stream.write(text)

    return log._replace(write=on_call(2, log.write, tear))


savez, replace, open_logs = np.savez, os.replace, logs.open_logs
moment, cache_dir, *arguments = sys.argv[1:]
keep_compiled_programs(Path(cache_dir))
register_fakes(dict.__setitem__)
match moment:
    case "at the very start of training":
        display.open_display = die
    case "between the logs and the checkpoint":
        checkpoint.save = on_call(2, checkpoint.save)
    case "inside a checkpoint write":
        np.savez = on_call(2, savez, half_a_checkpoint)  # the first is the best policy
    case "before the rename of a checkpoint":
        os.replace = replace_or_die
    case "inside a line of the logs":
        logs.open_logs = logs_with_a_torn_line
    case "at a random write":
        number = random.randint(1, 12)
        print("write", number, file=sys.stderr)
        os.fsync = on_call(number, os.fsync)
    case "never":
        pass
    case _:
        raise SystemExit(f"unknown moment {moment!r}")
sys.exit(train.main(arguments))
