"""Files that a configuration names: absolute once it is read, so that a run finds them from any folder."""

import os
from typing import Annotated

from pydantic import AfterValidator


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


AbsolutePath = Annotated[str, AfterValidator(_absolute)]
"""As written relative to the working directory, or below `~`."""
