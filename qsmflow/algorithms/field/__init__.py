"""From unwrapped multi-echo phase to the field, its noise and the confidence in it.

All methods share one signature and return a :class:`FieldMap`.
"""

from qsmflow.algorithms.field._samples import FieldMap

__all__ = ['FieldMap']
