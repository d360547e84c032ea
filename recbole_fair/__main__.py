"""``python -m recbole_fair``: the command line."""

from __future__ import annotations

from recbole_fair.cli import main

if __name__ == "__main__":
    main()
