"""qsmflow: a BIDS App and nipype workflows for quantitative susceptibility mapping."""

import os as _os

from qsmflow import kernel_cache as _kernel_cache

__version__ = '0.1.0'

# nipype asks a server for its newest version unless told otherwise before it is imported.
_os.environ.setdefault('NO_ET', '1')
_os.environ.setdefault('NIPYPE_NO_ET', '1')

# numba reads its variables when it is imported.
_kernel_cache.prepare()
