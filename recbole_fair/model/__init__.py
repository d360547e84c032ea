"""Recommenders: one file a paper."""
