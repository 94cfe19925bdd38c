"""The structure of the packages as their imports show it: rooms from the ground up, and who uses whom.

    python benchmarks/structure.py --out docs/structure.png

Imports inside of functions count, those for type checkers do not. `tests/unit/test_structure.py` holds the same graph
to its rules: no circles, nothing imports upward, no file beyond 400 lines without a reason.
"""

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COMMANDS = ("train", "evaluate", "plot", "sweep", "export", "record")
GROUND = ("errors", "yaml_rules", "validation", "types", "presets")
ROOMS = (
    "envs_jax", "envs_jax worlds", "purerl ground", "purerl.nets", "purerl.learn", "purerl.algos", "purerl.config",
    "purerl.run", "purerl.report", "purerl.sweeps", "purerl commands",
)  # fmt: skip
"""From the ground up: a room imports from itself and from those before it."""


class Module(NamedTuple):
    name: str
    lines: int
    imports: frozenset[str]
    """Modules of the same packages."""


def room_of(module: str) -> str:
    package, _, rest = module.partition(".")
    first = rest.partition(".")[0]
    if package == "envs_jax":
        return "envs_jax worlds" if "." in rest or ((ROOT / "envs_jax" / first).is_dir() and first) else "envs_jax"
    if (ROOT / "purerl" / first).is_dir() and first:
        return f"purerl.{first}"
    if first in COMMANDS or first in ("", "cli"):
        return "purerl commands"
    return "purerl ground" if first in GROUND else "purerl.config"


def read_modules(root: Path = ROOT) -> dict[str, Module]:
    """Every module of both packages by its name."""
    files = sorted(path for package in ("purerl", "envs_jax") for path in (root / package).rglob("*.py"))
    names = {_name(path, root): path for path in files}
    return {name: _read(name, path, set(names)) for name, path in names.items()}


def _name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _read(name: str, path: Path, known: set[str]) -> Module:
    text = path.read_text()
    found = {target for node in _imports(ast.parse(text)) for target in _targets(node, known)}
    return Module(name, len(text.splitlines()), frozenset(found - {name}))


def _imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from _imports(child)


def _targets(node: ast.Import | ast.ImportFrom, known: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
        return
    for alias in node.names:
        inner = f"{node.module}.{alias.name}"
        if inner in known:
            yield inner
        elif node.module in known:
            yield str(node.module)


def circles(modules: dict[str, Module]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in modules[name].imports:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in modules:
        if name not in index:
            visit(name)
    return found


def upward(modules: dict[str, Module]) -> list[tuple[str, str]]:
    """Imports of a module in a room above."""
    level = {name: ROOMS.index(room_of(name)) for name in modules}
    return [(m.name, other) for m in modules.values() for other in sorted(m.imports) if level[other] > level[m.name]]


def draw(modules: dict[str, Module], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    across = 7
    rows: dict[str, list[list[Module]]] = {}
    for room in ROOMS:
        own = [m for m in modules.values() if room_of(m.name) == room and m.lines > 1]
        rows[room] = [own[i : i + across] for i in range(0, len(own), across)]
    total = sum(len(lines) for lines in rows.values()) + 0.45 * len(ROOMS)
    figure, ax = plt.subplots(figsize=(13.5, 0.33 * total + 0.6), layout="constrained")
    bottom, middle = 0.0, {}
    for number, (room, lines) in enumerate(rows.items()):
        top = bottom + len(lines)
        color = plt.get_cmap("tab20")(2 * number % 20 + 1)
        ax.axhspan(bottom + 0.08, top + 0.33, color=color, alpha=0.35, lw=0)
        ax.text(-1.85, (bottom + top) / 2 + 0.2, room, va="center", fontsize=10, weight="bold")
        for y, line in enumerate(reversed(lines)):
            for x, module in enumerate(line):
                parts = module.name.split(".")
                text = ".".join(parts[1:] if room == "envs_jax worlds" else parts[-1:])
                box = {"facecolor": "white", "edgecolor": "0.6", "boxstyle": "round,pad=0.25"}
                ax.text(x * 1.05, bottom + y + 0.55, f"{text} {module.lines}", fontsize=6.6, va="center", bbox=box)
        middle[room] = (bottom + top) / 2 + 0.2
        bottom = top + 0.45
    uses: dict[tuple[str, str], int] = {}
    for module in modules.values():
        for other in module.imports:
            pair = room_of(module.name), room_of(other)
            if pair[0] != pair[1]:
                uses[pair] = uses.get(pair, 0) + 1
    for (user, used), count in uses.items():
        start, end = (across * 1.05 + 0.1, middle[user]), (across * 1.05 + 0.1, middle[used])
        bend = -0.05 - 0.022 * abs(ROOMS.index(user) - ROOMS.index(used))
        width = 0.4 + 0.06 * min(count, 40)
        arrow = {
            "arrowstyle": "-|>",
            "lw": width,
            "color": "0.25",
            "alpha": 0.75,
            "connectionstyle": f"arc3,rad={bend}",
        }
        ax.annotate("", end, start, arrowprops=arrow)
    ax.set(xlim=(-1.9, across * 1.05 + 1.6), ylim=(0, bottom))
    ax.set_axis_off()
    ax.set_title("Files with their lines; arrows from a room to those it imports from, all of them down", fontsize=10)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    args = parser.parse_args()
    modules = read_modules()
    draw(modules, args.out)
    print(f"{args.out}: {len(modules)} modules; circles: {circles(modules) or 'none'}; up: {upward(modules) or 'none'}")


if __name__ == "__main__":
    main()
