"""DecRS: deconfounded factorisation machines."""
