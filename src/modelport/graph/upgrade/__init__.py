"""Old opsets and other domains, written with the operators of the newest opset."""
