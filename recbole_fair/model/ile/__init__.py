"""ILE and IPS."""
