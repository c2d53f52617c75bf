"""Training on the portable graph: a graph in, the same graph with other weights out; a framework does the steps."""
