"""Run one experiment: ``python run_recbole_fair.py --model=PopSteerSASRec --dataset=ml-100k``.

The same as ``recbole-fair run``; ``--help`` lists what it takes.
"""

from __future__ import annotations

import sys

from recbole_fair.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
