"""``python -m unlearnkit`` is the command ``unlearnkit``."""

from .cli import main

if __name__ == "__main__":
    main()
