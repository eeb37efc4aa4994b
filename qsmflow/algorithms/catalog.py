"""The methods of each stage, in one table that imports nothing heavy.

Traits, command line, descriptor and documentation all derive from ``STAGES``. The functions
themselves are imported by :func:`qsmflow.algorithms.get_method` when they are used, so that
``qsmflow --help`` answers at once. The first method of a stage is its default.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One entry of the table.

    Attributes
    ----------
    name : str
        Name in the literature, lower case; used by traits, command line and sidecars.
    function : str
        Where the function is, as ``module:name`` below ``qsmflow.algorithms``.
    title : str
        Name as it is written in text.
    summary : str
        What it does, for the command line and the documentation.
    citations : tuple of str
        Keys of ``boilerplate.bib``.
    extras : tuple of str
        Keyword arguments with data beyond those that every method of the stage takes; see
        ``EXTRAS``.
    takes : str
        The field that an inversion takes: ``'local_field'``, or ``'total_field'`` for a method
        that removes the background itself.
    """

    name: str
    function: str
    title: str
    summary: str
    citations: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    takes: str = 'local_field'


#: Data that a method may ask for beyond what every method of its stage takes.
EXTRAS = {
    'magnitude': 'magnitude combined over the echoes (root of the sum of squares), a.u.',
    'r2star': 'R2*, 1/s',
    'field_noise': 'standard deviation of the field, ppm',
    'phase_scale': 'phase of 1 ppm at the typical echo time, rad',
}


def _stage(*methods: Method) -> dict[str, Method]:
    return {method.name: method for method in methods}


STAGES: dict[str, dict[str, Method]] = {
    'unwrapping': _stage(
        Method(
            'romeo',
            'unwrap:romeo',
            'ROMEO-type region growing',
            'region growing in one echo, the others unwrapped in time by it; exact',
            ('dymerska2021',),
        ),
        Method(
            'laplacian',
            'unwrap:laplacian',
            'Laplacian unwrapping',
            'Poisson solution in Fourier space; robust but not exact, alters harmonic fields',
            ('schofield2003',),
        ),
    ),
    'field': _stage(
        Method(
            'sequential',
            'field:sequential',
            'robust sequential fit',
            'each echo is unwrapped by the field so far, and left out softly if it disagrees',
            ('eckstein2018',),
        ),
        Method(
            'weighted',
            'field:weighted',
            'weighted linear fit',
            'weighted line through the unwrapped phases with an intercept',
            ('eckstein2018',),
        ),
        Method(
            'nonlinear',
            'field:nonlinear',
            'nonlinear complex fit',
            'Gauss-Newton fit of field and offset to the complex signal',
            ('liu2013',),
        ),
    ),
    'background': _stage(
        Method(
            'pdf',
            'background.pdf:pdf',
            'projection onto dipole fields',
            'weighted least squares over sources outside the mask; keeps the rim',
            ('liu2011',),
        ),
        Method(
            'vsharp',
            'background.spherical:vsharp',
            'V-SHARP',
            'spherical mean value filtering with radii that shrink towards the rim',
            ('schweser2011', 'wu2012'),
        ),
        Method(
            'resharp',
            'background.spherical:resharp',
            'RESHARP',
            'spherical mean value filtering with Tikhonov regularisation',
            ('sun2014',),
        ),
    ),
    'inversion': _stage(
        Method(
            'tv',
            'inversion.tv:tv',
            'total variation with weak harmonic field',
            'weighted total variation by ADMM, with a harmonic residual and one reweighting',
            ('bilgic2014tv', 'milovic2019'),
        ),
        Method(
            'rts',
            'inversion.rts:rts',
            'RTS',
            'two steps: well-conditioned k-space by LSMR, the rest by total variation',
            ('kames2018',),
        ),
        Method(
            'l2',
            'inversion.direct:l2',
            'closed-form L2',
            'gradient-regularised least squares: a Fourier division, or CG if there are weights',
            ('bilgic2014',),
        ),
        Method(
            'tkd',
            'inversion.direct:tkd',
            'TKD',
            'truncated k-space division; the quickest look',
            ('shmueli2009',),
        ),
    ),
    'relaxometry': _stage(
        Method(
            'arlo',
            'relaxometry:arlo',
            'ARLO',
            'auto-regression on linear operations; needs three or more equidistant echoes',
            ('pei2015',),
        ),
        Method(
            'loglinear',
            'relaxometry:loglinear',
            'weighted log-linear fit',
            'weighted line through the log magnitudes; any two or more echoes',
            (),
        ),
    ),
}


def names(stage: str) -> tuple[str, ...]:
    """Return the method names of a stage, the default first.

    Examples
    --------
    >>> names('relaxometry')
    ('arlo', 'loglinear')
    """
    return tuple(STAGES[stage])


def default(stage: str) -> str:
    """Return the default method of a stage.

    Examples
    --------
    >>> default('background')
    'pdf'
    """
    return names(stage)[0]
