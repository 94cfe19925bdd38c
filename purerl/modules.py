"""Where the modules of users are found: their own worlds and algorithms, named in a configuration.

The folder that holds a module goes to the front of Python's path, as Python does with the folder of a script, so that
the module can import its neighbours. The folder is stored with the run, which is opened from elsewhere, too.
"""

import importlib.util
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path


def provide(module: str, folders: Iterable[Path]) -> Path | None:
    """Make `module` (`a` or `a.b`) importable; returns the first of `folders` that holds it, None for one that is
    installed.

    Raises:
        ValueError: it is in no folder and not installed, or another module of its name has been imported.
    """
    name = module.partition(".")[0]
    folders = list(dict.fromkeys(folder.resolve() for folder in folders))
    loaded = sys.modules.get(name)
    for folder in folders:
        spec = PathFinder.find_spec(name, [str(folder)])
        if spec is None or (spec.origin is None and "." not in module):  # a folder of that name is no module
            continue
        origin = getattr(loaded, "__file__", spec.origin)
        if loaded is not None and origin != spec.origin:
            raise ValueError(f"module '{name}' of {folder} cannot be imported: {origin or 'Python'} has the same name")
        if loaded is None and getattr(importlib.util.find_spec(name), "origin", None) != spec.origin:
            sys.path.insert(0, str(folder))
            importlib.invalidate_caches()
        return folder
    if loaded is None and importlib.util.find_spec(name) is None:
        raise ValueError(f"no module '{name}' in {', '.join(map(str, folders))}, and none of that name is installed")
    return None
