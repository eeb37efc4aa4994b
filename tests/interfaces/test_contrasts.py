"""The relaxometry interface does what the kernels do, on files."""

import numpy as np
import pytest

from qsmflow import io
from qsmflow.algorithms import get_method
from qsmflow.algorithms.catalog import names
from qsmflow.interfaces.contrasts import Relaxometry


@pytest.mark.parametrize('method', names('relaxometry'))
def test_fit_is_the_kernel(scan, files, run, check, method):
    out = run(
        Relaxometry(magnitude=files.magnitude, mask=files.mask, te=list(scan.te), method=method)
    )
    mask = scan.truth['mask']
    fit = get_method('relaxometry', method)(scan.magnitude, mask, scan.voxel_size, te=scan.te)
    for name in ('r2star', 't2star', 's0'):
        check(getattr(out, name), getattr(fit, name))
    assert not io.load_volume(out.r2star).data[~mask].any()
    decay, truth = fit.r2star[mask], scan.truth['r2star'][mask]
    assert np.median(np.abs(decay - truth)) < 4


def test_what_the_kernel_cannot_do_is_an_error(scan, files, run):
    with pytest.raises(ValueError, match='echo'):
        run(
            Relaxometry(
                magnitude=files.magnitude, mask=files.mask, te=[0.004, 0.005, 0.02], method='arlo'
            )
        )
