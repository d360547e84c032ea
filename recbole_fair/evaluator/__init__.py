"""Evaluation: one pass over users, then pure functions of the lists."""
