"""The Transformer, its packed streams, its cache, and the folder it lies in."""
