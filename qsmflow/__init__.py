"""qsmflow: a BIDS App and nipype workflows for quantitative susceptibility mapping."""

import os as _os
import tempfile as _tempfile
from pathlib import Path as _Path

__version__ = '0.1.0'

# nipype asks a server for its newest version unless told otherwise before it is imported.
_os.environ.setdefault('NO_ET', '1')
_os.environ.setdefault('NIPYPE_NO_ET', '1')


def _writable_numba_cache() -> None:
    """Point numba to a folder that can be written.

    Compiled kernels are cached beside the package by default. In a read-only image, or under a
    foreign user, numba would refuse to compile at all (``no locator available``).
    """
    package = _Path(__file__).parent
    if 'NUMBA_CACHE_DIR' not in _os.environ and not _os.access(package, _os.W_OK):
        cache = _Path(_tempfile.gettempdir()) / f'qsmflow-numba-{_os.getuid()}'
        _os.environ['NUMBA_CACHE_DIR'] = str(cache)


_writable_numba_cache()
