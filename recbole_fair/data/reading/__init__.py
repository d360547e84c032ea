"""Files on disk to data sets: checks, columns, times, titles, splits."""
