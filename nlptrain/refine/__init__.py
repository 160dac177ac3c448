"""Second-order refinement of a head on cached features, with a certificate of what was reached.

`refine` fits, `posterior` tells how sure the fit is and which rows look mislabelled, `fit_temperature` calibrates,
`accept` decides. Nothing here knows a model, a Trainer or a file: numbers in, numbers out. Rows stay on
their process; where torch.distributed is initialised, all processes call `refine` and `posterior` together.
"""

from nlptrain.refine.calibration import ReliabilityBin, Temperature, ece, fit_temperature, nll, reliability
from nlptrain.refine.certificate import Certificate
from nlptrain.refine.fit import Refined, refine
from nlptrain.refine.guard import Decision, accept
from nlptrain.refine.head import ACTIVATIONS, Head
from nlptrain.refine.leave_one_out import LeftOut
from nlptrain.refine.posterior import Posterior, posterior, suspects
from nlptrain.refine.solvers import AUTO, SOLVERS

__all__ = [
    "ACTIVATIONS",
    "AUTO",
    "SOLVERS",
    "Certificate",
    "Decision",
    "Head",
    "LeftOut",
    "Posterior",
    "Refined",
    "ReliabilityBin",
    "Temperature",
    "accept",
    "ece",
    "fit_temperature",
    "nll",
    "posterior",
    "reliability",
    "refine",
    "suspects",
]
