"""numba's compiler, safe where several processes fill one cache at the same time.

numba numbers the files of a kernel's variants, one for each set of argument types, by what its
index lists at that moment. Two processes that compile different variants at once take the same
number: one file overwrites the other, and a kernel that is loaded later runs with machine code for
other types. Here a file is named after what it holds. What two processes write at once is then
either the same or apart; at worst an entry is missing from the index, and is compiled again.

Kernels import ``njit`` and ``prange`` from here.
"""

import hashlib

from numba import njit, prange
from numba.core.caching import IndexDataCacheFile

__all__ = ['njit', 'prange']


def _save(self, key, data):
    """Write a compiled variant under a name of its own, then list it."""
    name = self._data_name(_number(self._source_stamp, key))
    self._save_data(name, data)
    self._save_index({**self._load_index(), key: name})


def _number(stamp, key) -> int:
    text = repr((stamp, key)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], 'big')


IndexDataCacheFile.save = _save
