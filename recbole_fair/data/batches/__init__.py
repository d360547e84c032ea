"""Data sets to batches: loaders, pairs, sequences, windows, rows of users."""
