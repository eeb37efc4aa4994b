"""Dipole inversion at two levels of regularisation (STAR-QSM)."""

from qsmflow.algorithms._checks import check_count, check_positive
from qsmflow.algorithms.inversion._strong import split_off
from qsmflow.algorithms.inversion.tv import regularisation_weight, tv


def star(
    local_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    field_noise=None,
    reg_weight=None,
    strong_weight=3e-3,
    threshold=0.15,
    voxel_average=True,
    strong_iter=12,
    pad=16,
    max_iter=20,
    tol=1e-3,
    return_history=False,
):
    r"""Invert the dipole field at two levels of total variation, strong sources first (STAR-QSM).

    One regularisation is too little for strong sources, whose streaks it lets through, or too
    much for weak ones. So the strong sources are found with much of it, their field is taken
    out, the rest is inverted with little, and the two are summed [1]_:

    .. math::
        \chi_s &= T\Bigl(\arg\min_\chi \tfrac12 \| W (d * \chi - f) \|^2
            + \lambda_s \sum |\nabla \chi|\Bigr) \\
        \chi_w &= \arg\min_\chi \tfrac12 \| W (d * \chi - (f - d * \chi_s)) \|^2
            + \lambda \sum |\nabla \chi|, \qquad \chi = \chi_s + \chi_w

    where :math:`T` keeps what lies further than ``threshold`` from the median. Both minima have
    a second part with a reweighted penalty, which restores contrast; the second minimum is that
    of `tv`, with its outside sources.

    Parameters
    ----------
    local_field : ndarray of float, shape (X, Y, Z)
        Local field, in ppm. Values outside ``mask`` are ignored.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    b0_dir : tuple of float, optional
        Unit vector of the main field, in array axes.
    weights : ndarray of float, shape (X, Y, Z), optional
        Confidence :math:`W` in [0, 1]. Ones by default.
    field_noise : ndarray of float, shape (X, Y, Z), optional
        Standard deviation of the field by thermal noise, in ppm.
    reg_weight : float, optional
        Weight :math:`\lambda` of total variation for weak sources, in ppm. By default that of
        `tv`, which follows the noise.
    strong_weight : float, optional
        Weight :math:`\lambda_s` of total variation for strong sources, in ppm.
    threshold : float, optional
        Distance from the median over the mask, in ppm, from which a source is strong. Deep
        nuclei rarely lie beyond the default, haemorrhages, calcifications and large veins do.
    voxel_average : bool, optional
        Estimate the mean of the susceptibility over each voxel, as in `tv`. ``False`` for fields
        that are themselves averages over voxels.
    strong_iter : int, optional
        Largest number of iterations of each of the two parts for strong sources.
    pad : int, optional
        Voxels added on each side of the mask's bounding box.
    max_iter : int, optional
        Iterations of each of the two parts of `tv`.
    tol : float, optional
        A part stops when the relative change of the susceptibility is below this.
    return_history : bool, optional
        Return the relative change in each iteration as well, strong sources first.

    Returns
    -------
    chi : ndarray of float32, shape (X, Y, Z)
        Susceptibility, in ppm, zero outside ``mask``, not referenced to any tissue.
    history : list of float
        Only with ``return_history``.

    Raises
    ------
    ValueError
        If a parameter is not positive, or the volumes do not fit together.

    Notes
    -----
    Two FFT pairs per iteration for the strong sources, on top of those of `tv`. Without strong
    sources the result is that of `tv`.

    The paper subtracts the field of the whole first solution. Weak sources are blurred in that,
    which costs accuracy on a simulated head, so that only the strong ones are subtracted here.
    The reweighting of `tv` keeps many streaks out already: about a haemorrhage of 1 ppm and a
    calcification of -3 ppm in that head a tenth to a sixth of the rest goes; the larger the
    source, the more. The two weights and the threshold are this package's choice.

    References
    ----------
    .. [1] Wei H, et al. NMR Biomed 2015;28:1294-1303. doi:10.1002/nbm.3383

    Examples
    --------
    >>> import numpy as np
    >>> from qsmflow.algorithms.operators import forward_field
    >>> chi = np.zeros((24, 24, 24), np.float32)
    >>> chi[8:16, 8:16, 8:16] = 0.1
    >>> chi[10:13, 10:13, 10:13] = 1.0
    >>> mask = np.ones(chi.shape, bool)
    >>> estimate = star(forward_field(chi, (1, 1, 1)), mask, (1, 1, 1), pad=8)
    >>> bool(np.corrcoef(estimate.ravel(), chi.ravel())[0, 1] > 0.99)
    True
    """
    if reg_weight is None:
        reg_weight = regularisation_weight(field_noise, mask)
    check_positive(
        reg_weight=reg_weight,
        strong_weight=strong_weight,
        threshold=threshold,
    )
    check_count(strong_iter=strong_iter, max_iter=max_iter)
    common = {
        'b0_dir': b0_dir,
        'weights': weights,
        'voxel_average': voxel_average,
        'pad': pad,
        'tol': tol,
    }
    strong, rest, history = split_off(
        local_field,
        mask,
        voxel_size,
        strong_weight=strong_weight,
        threshold=threshold,
        max_iter=strong_iter,
        **common,
    )
    chi, more = tv(
        rest,
        mask,
        voxel_size,
        reg_weight=reg_weight,
        max_iter=max_iter,
        return_history=True,
        **common,
    )
    chi += strong
    return (chi, history + more) if return_history else chi
