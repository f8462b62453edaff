"""`python -m rlvr` is the command `rlvr`."""

from __future__ import annotations

from rlvr.cli import main

if __name__ == "__main__":
    main()
