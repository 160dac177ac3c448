"""The model layer: an encoder, a pooling and a head as one model that the Auto classes can load.

`build.build` makes a model for training, `load.load` reads a trained one. The package itself imports nothing,
so that knowing about it stays cheap.
"""
