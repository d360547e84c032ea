"""Drawing and printing only: what is shown was computed elsewhere."""
