"""`drive(moment, arguments)`: `purerl.train` with the probe, in a process that kills itself at a chosen moment."""

import os
import re
import shutil
import signal
import sys
from pathlib import Path

from helpers import register_fakes

from purerl import train
from purerl.run import checkpoint, display, items, logs


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


def die_instead_of_naming(source, destination):
    if re.fullmatch(r"epoch_\d+", Path(destination).name):
        die()
    rename(source, destination)


def die_while_deleting(path, *args, **kwargs):
    if Path(path).name.endswith(".deleted") and Path(path).exists():
        rmtree(Path(path) / "host")
        die()
    rmtree(path, *args, **kwargs)


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


rename, rmtree, open_logs = os.rename, shutil.rmtree, logs.open_logs


def drive(moment: str, arguments: list[str]) -> None:
    register_fakes(dict.__setitem__)
    match moment:
        case "at the very start of training":
            display.open_display = die
        case "between the logs and the checkpoint":
            checkpoint.Writer.save = on_call(2, checkpoint.Writer.save)
        case "before the digests of a checkpoint":
            items._write_digests = die
        case "between the items of a checkpoint":
            items._write_digests = on_call(2, items._write_digests)
        case "before the rename of a checkpoint":
            os.rename = die_instead_of_naming
        case "while a checkpoint is deleted":
            shutil.rmtree = die_while_deleting
        case "inside a line of the logs":
            logs.open_logs = logs_with_a_torn_line
        case "never":
            pass
        case _:
            raise SystemExit(f"unknown moment {moment!r}")
    sys.exit(train.main(arguments))
