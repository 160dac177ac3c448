"""A model's head as `nlptrain.refine` sees it: where it is, what it gets of every row, and the fit that replaces it.

`find` says where the head is, `features` computes what it gets, `refit` fits it and lets rows used for nothing else
decide, `calibration` finds the temperature.
"""
