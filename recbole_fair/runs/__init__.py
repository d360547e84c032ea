"""From a request to files: run, evaluate, sweep, compare, explain, audit."""
