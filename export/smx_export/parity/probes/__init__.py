"""The inputs on which a file and its model are compared.

Random rows alone miss what matters: a wrong weight of a feature that is rarely large, a softmax
that overflows, a bias that only shows at zero, a label that turns a little beside the threshold.
"""

from smx_export.parity.probes.probe import RANDOM, Probe

__all__ = ["RANDOM", "Probe"]
