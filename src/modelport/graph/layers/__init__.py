"""Layers found in a graph: what operators and weights together were written as."""
