"""Weights, and where that is faster activations, in fewer bits."""
