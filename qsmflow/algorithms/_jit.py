"""numba's compiler, with a cache that is safe to share and gives what was compiled.

**Several processes fill one cache at the same time.** numba numbers the files of a kernel's
variants, one for each set of argument types, by what its index lists at that moment. Two processes
that compile different variants at once take the same number: one file overwrites the other, and a
kernel that is loaded later runs with machine code for other types. Here a file is named after what
it holds. What two processes write at once is then either the same or apart; at worst an entry is
missing from the index, and is compiled again.

**A kernel that is loaded computes what it did when it was compiled.** numba compiles the body of a
parallel loop as a function of its own, then links it into the kernel, where it is optimised once
more; with ``fastmath`` that may reorder sums again. The process that compiles has both copies
under one name and runs the first. One that loads the kernel has only the second, and returns other
last digits. Here the kernel's copy is private to it, so that both processes run that one. Nor can
copies of different kernels be taken for one another: their names hold an address in memory, which
may be the same in two processes.

**A kernel is compiled to the same code whatever was compiled before.** numba compiles its own
helpers, as the division of complex numbers, for the first kernel that needs them, and keeps them
for the others. If that one has ``fastmath``, so has the helper, also in kernels that have not, and
the other way round. Here kernels with ``fastmath`` have helpers of their own.

Kernels import ``njit`` and ``prange`` from here.
"""

import hashlib

from numba import njit, prange
from numba.core.base import BaseContext
from numba.core.caching import IndexDataCacheFile
from numba.core.codegen import CPUCodeLibrary

__all__ = ['njit', 'prange']

#: How the names of compiled functions and of parallel loops begin; numba's own runtime, which its
#: passes look for by name, keeps what it has.
_COMPILED = ('_ZN', '__gufunc__')


def _save(self, key, data):
    """Write a compiled variant under a name of its own, then list it."""
    name = self._data_name(_number(self._source_stamp, key))
    self._save_data(name, data)
    self._save_index({**self._load_index(), key: name})


def _number(stamp, key) -> int:
    text = repr((stamp, key)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], 'big')


_optimize = CPUCodeLibrary._optimize_final_module


def _optimize_with_own_copies(self):
    """Make what was linked in private, before it is optimised together with the rest."""
    modules = [library._get_module_for_linking() for library in self._linking_libraries]
    linked = {f.name for module in modules for f in module.functions if not f.is_declaration}
    for function in self._final_module.functions:
        if function.name in linked and function.name.startswith(_COMPILED):
            function.linkage = 'internal'
    _optimize(self)


_subtarget = BaseContext.subtarget


def _subtarget_with_own_helpers(self, **options):
    """Make a context for other options, without the helpers compiled for another ``fastmath``."""
    context = _subtarget(self, **options)
    if context.fastmath != self.fastmath:
        context.cached_internal_func = {}
    return context


IndexDataCacheFile.save = _save
BaseContext.subtarget = _subtarget_with_own_helpers
CPUCodeLibrary._optimize_final_module = _optimize_with_own_copies
