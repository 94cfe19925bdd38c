"""What a run shows when it has ended: its figures and the closing table."""

from pathlib import Path

from purerl.report.tables import print_table, score_table
from purerl.run.history import Ending
from purerl.run.runs import Run


def conclude(trained: Run, run_dir: Path, ending: Ending) -> None:
    """Draw the figures of a finished run and print its final score beside baselines and bound."""
    if trained.config.logging.csv:
        # Imported here: matplotlib takes a second that a run need not wait for at its start.
        from purerl.report.draw import draw_run
        from purerl.report.shown import from_memory

        draw_run(from_memory(trained, ending), run_dir / "plots")
    print_table(score_table(ending.result, f"{trained.config.algo['name']} on {trained.env.name}"))
