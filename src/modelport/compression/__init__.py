"""Steps as they are done: portable graph in, portable graph out."""
