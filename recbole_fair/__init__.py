"""recbole_fair: see and change who gets exposed and who is served, on RecBole's data, models and training loop."""

__version__ = "0.1.0"
