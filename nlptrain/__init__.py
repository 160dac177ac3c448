"""Fine-tuning of small transformers for sentiment classification and similarity regression.

Importing the package makes trained models loadable with the Auto classes of transformers, whichever of the
two is imported first, and imports neither torch nor transformers itself.
"""

from nlptrain.registration import register

__all__ = ["register"]

register()
