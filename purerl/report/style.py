"""What all figures share: colours, sizes, saving. Files only: no window system is needed."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.animation import Animation
from matplotlib.figure import Figure

matplotlib.use("Agg")


DPI, GIF_DPI = 120, 80
POLICY_COLOR, BOUND_COLOR = "tab:blue", "black"
BASELINE_COLORS = ("tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:olive", "tab:cyan")


def save_figures(figures: Mapping[str, Figure | Animation], directory: Path) -> list[Path]:
    """Write `<name>.png` for each figure and `<name>.gif` for each animation, and close them."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        if isinstance(figure, Animation):
            paths.append(directory / f"{name}.gif")
            figure.save(paths[-1], writer="pillow", dpi=GIF_DPI)
            continue
        paths.append(directory / f"{name}.png")
        figure.savefig(paths[-1], dpi=DPI)
        plt.close(figure)
    return paths
