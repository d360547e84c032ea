"""recbole_fair: see and change who gets exposed and who is served, on RecBole's data, models and training loop."""

from recbole_fair.recbole_mends import install as _mend_recbole

__version__ = "0.2.0"

_mend_recbole()
