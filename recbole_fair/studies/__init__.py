"""Several evaluations behind one question: load or train, measure, choose, write; from start to files."""
