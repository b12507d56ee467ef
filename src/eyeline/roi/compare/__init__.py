"""Compare steered encodes with a plain one at equal quality."""
