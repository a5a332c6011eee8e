"""What the recipe's two command lines share: errors in one line, and their exit codes."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

from unlearnkit.errors import UnlearnError

__all__ = ["Parser", "exits"]


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message}; --help lists what there is\n")


@contextlib.contextmanager
def exits(stopped: str) -> Iterator[None]:
    """Exits: 2 unusable input, 130 interrupted, with the line ``stopped``."""
    try:
        yield
    except UnlearnError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        sys.exit(130)
