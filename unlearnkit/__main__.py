"""``python -m unlearnkit`` is the command ``unlearnkit``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python puts the working folder first on the path: a model's folder must not stand in for anybody's module
    if not sys.flags.safe_path and Path(__file__).resolve().parents[1] != Path.cwd():
        del sys.path[0]

    from .cli import main

    main()
