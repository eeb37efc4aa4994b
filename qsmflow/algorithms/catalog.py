"""The methods of each stage and named choices among them, in tables that import nothing heavy.

Traits, command line, descriptor and documentation all derive from ``STAGES`` and ``PRESETS``. The
functions themselves are imported by :func:`qsmflow.algorithms.get_method` when they are used, so
that ``qsmflow --help`` answers at once. The first method of a stage is its default.
"""

from dataclasses import dataclass, field


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
        What an inversion takes: ``'local_field'``; ``'total_field'`` or ``'phase'``, the wrapped
        phase of all echoes, for a method that removes the background itself.
    """

    name: str
    function: str
    title: str
    summary: str
    citations: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    takes: str = 'local_field'

    @property
    def one_step(self) -> bool:
        """Whether an inversion removes the background itself."""
        return self.takes != 'local_field'


#: What an inversion takes, as it is called in text.
TAKEN = {
    'local_field': 'local field',
    'total_field': 'total field',
    'phase': 'wrapped phase of the echoes',
}

#: Data that a method may ask for beyond what every method of its stage takes.
EXTRAS = {
    'magnitude': 'magnitude combined over the echoes (root of the sum of squares), a.u.',
    'r2star': 'R2*, 1/s',
    'field_noise': 'standard deviation of the field, ppm',
    'phase_scale': 'phase of 1 ppm at the typical echo time, rad',
    'magnitudes': 'magnitude of each echo, echo last, a.u.',
    'te': 'echo times, s',
    'f0': 'imaging frequency, MHz',
}


def _stage(*methods: Method) -> dict[str, Method]:
    return {method.name: method for method in methods}


STAGES: dict[str, dict[str, Method]] = {
    'unwrapping': _stage(
        Method(
            'romeo',
            'unwrap.path_following:romeo',
            'ROMEO-type region growing',
            'region growing in one echo, the others unwrapped in time by it; exact',
            ('dymerska2021',),
        ),
        Method(
            'best_path',
            'unwrap.path_following:best_path',
            'best-path unwrapping',
            'region growing by second differences of the phase; exact, needs no magnitude',
            ('abdulrahman2007',),
        ),
        Method(
            'laplacian',
            'unwrap.poisson:laplacian',
            'Laplacian unwrapping',
            'Poisson solution in Fourier space; robust but not exact, alters harmonic fields',
            ('schofield2003',),
        ),
    ),
    'field': _stage(
        Method(
            'sequential',
            'field.sequential:sequential',
            'robust sequential fit',
            'each echo is unwrapped by the field so far, and left out softly if it disagrees',
            ('eckstein2018',),
        ),
        Method(
            'weighted',
            'field.lines:weighted',
            'weighted linear fit',
            'weighted line through the unwrapped phases with an intercept',
            ('eckstein2018',),
        ),
        Method(
            'nonlinear',
            'field.lines:nonlinear',
            'nonlinear complex fit',
            'Gauss-Newton fit of field and offset to the complex signal',
            ('liu2013',),
        ),
        Method(
            'refined',
            'field.refined:refined',
            'refined sequential fit',
            'sequential fit, then robust Gauss-Newton steps on all echoes of the complex signal',
            ('eckstein2018', 'geman1987', 'liu2013'),
        ),
        Method(
            'averaged',
            'field.average:averaged',
            'weighted average',
            'weighted mean of phase over echo time; every echo must be unwrapped rightly',
            ('dymerska2021',),
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
        Method(
            'sharp',
            'background.spherical:sharp',
            'SHARP',
            'spherical mean value filtering with one radius and a truncated deconvolution',
            ('schweser2011',),
        ),
        Method(
            'ismv',
            'background.ismv:ismv',
            'iSMV',
            'limit of repeated spherical means with the rim held; solved for at once',
            ('wen2014',),
        ),
        Method(
            'lbv',
            'background.lbv:lbv',
            'LBV',
            'Laplace equation with the boundary values of the field; multigrid, no transforms',
            ('zhou2014',),
        ),
        Method(
            'iharperella',
            'background.harperella:iharperella',
            'iHARPERELLA',
            'least tissue field with the Laplacian inside the mask; keeps the rim',
            ('li2014', 'li2015iharperella'),
        ),
        Method(
            'tfi',
            'background.tfi:tfi',
            'total field inversion',
            'sources inside by total variation and outside by turns; least error, most time',
            ('liu2017',),
        ),
    ),
    'inversion': _stage(
        Method(
            'tv',
            'inversion.tv:tv',
            'total variation with outside sources',
            'weighted total variation by ADMM, with a fit of sources outside and one reweighting',
            ('bilgic2014tv', 'milovic2019'),
            extras=('field_noise',),
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
        Method(
            'tsvd',
            'inversion.direct:tsvd',
            'TSVD',
            'k-space division with nothing kept below the level; fewer streaks than TKD',
            ('wharton2010',),
        ),
        Method(
            'tikhonov',
            'inversion.tikhonov:tikhonov',
            'iterative Tikhonov',
            'weighted least squares with a quadratic penalty on the map or its gradient',
            ('karsa2020',),
        ),
        Method(
            'ndi',
            'inversion.ndi:ndi',
            'NDI',
            'a few steps on the misfit of complex phases; their number is what regularises',
            ('polak2020',),
            extras=('phase_scale',),
        ),
        Method(
            'medi',
            'inversion.medi:medi',
            'MEDI',
            'misfit of complex phases; edges that the magnitude lacks are penalised',
            ('liu2012', 'liu2013'),
            extras=('magnitude', 'phase_scale'),
        ),
        Method(
            'medi0',
            'inversion.medi:medi0',
            'MEDI+0',
            'MEDI with uniform fluid in the ventricles, which is the zero of the map',
            ('liu2012', 'liu2013', 'liu2018'),
            extras=('magnitude', 'r2star', 'phase_scale'),
        ),
        Method(
            'nltv',
            'inversion.fansi:nltv',
            'FANSI nonlinear total variation',
            'misfit of complex phases with edge-weighted total variation; wrong wraps do no harm',
            ('milovic2018',),
            extras=('magnitude', 'phase_scale'),
        ),
        Method(
            'nltgv',
            'inversion.fansi:nltgv',
            'FANSI nonlinear TGV',
            'nltv with generalised variation of second order, which keeps slopes',
            ('milovic2018', 'bredies2010'),
            extras=('magnitude', 'phase_scale'),
        ),
        Method(
            'whqsm',
            'inversion.fansi:whqsm',
            'WH-QSM',
            'nltv with a harmonic residual background, for what background removal left',
            ('milovic2019',),
            extras=('magnitude', 'phase_scale'),
        ),
        Method(
            'l1qsm',
            'inversion.l1:l1qsm',
            'L1-QSM',
            'absolute misfit of complex phases with total variation; outliers leave no streaks',
            ('milovic2022',),
            extras=('magnitude', 'phase_scale'),
        ),
        Method(
            'hdqsm',
            'inversion.l1:hdqsm',
            'HD-QSM',
            'absolute misfit first; what it misses counts less in a second, squared misfit',
            ('lambert2022',),
            extras=('magnitude',),
        ),
        Method(
            'ilsqr',
            'inversion.ilsqr:ilsqr',
            'iLSQR',
            'least squares, then the streaks that blur flat regions estimated and subtracted',
            ('li2015ilsqr',),
        ),
        Method(
            'star',
            'inversion.star:star',
            'STAR-QSM',
            'strong sources with much total variation first, the rest with little, then the sum',
            ('wei2015',),
            extras=('field_noise',),
        ),
        Method(
            'tgv',
            'inversion.tgv:tgv',
            'one-step TGV',
            'total field to susceptibility in one step, with total generalised variation',
            ('langkammer2015', 'bredies2010'),
            takes='total_field',
        ),
        Method(
            'tgv_phase',
            'inversion.tgv:tgv_phase',
            'one-step multi-echo TGV',
            'wrapped phase of all echoes to susceptibility in one step, as tgv; no unwrapping',
            ('langkammer2015', 'bredies2010'),
            extras=('magnitudes', 'te', 'f0'),
            takes='phase',
        ),
    ),
    'strategy': _stage(
        Method(
            'single',
            'inversion.strategies:single',
            'a single inversion',
            'invert the field once',
            (),
        ),
        Method(
            'two_pass',
            'inversion.strategies:two_pass',
            'two-pass inversion',
            'invert reliable voxels alone, then all, and fill the holes of the first',
            ('stewart2022',),
        ),
        Method(
            'superposed',
            'inversion.strategies:superposed',
            'superposed inversion of strong sources',
            'find strong sources first, and invert what is left without their field',
            ('sun2016', 'wei2015'),
        ),
    ),
    'relaxometry': _stage(
        Method(
            'arlo',
            'relaxometry.linear:arlo',
            'ARLO',
            'auto-regression on linear operations; needs three or more equidistant echoes',
            ('pei2015',),
        ),
        Method(
            'loglinear',
            'relaxometry.linear:loglinear',
            'weighted log-linear fit',
            'weighted line through the log magnitudes; any two or more echoes',
            (),
        ),
        Method(
            'numart2s',
            'relaxometry.linear:numart2s',
            'NumART2*',
            'drop of the signal over its integral by the trapezoid rule; quickest, reads low',
            ('hagberg2002',),
        ),
        Method(
            'nlls',
            'relaxometry.nonlinear:nlls',
            'nonlinear least squares',
            'Levenberg-Marquardt fit with the noise floor in the model; for low signal',
            ('marquardt1963', 'gudbjartsson1995'),
        ),
    ),
}


def names(stage: str) -> tuple[str, ...]:
    """Return the method names of a stage, the default first.

    Examples
    --------
    >>> names('relaxometry')
    ('arlo', 'loglinear', 'numart2s', 'nlls')
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


@dataclass(frozen=True)
class Preset:
    """A named choice of methods and parameters.

    Attributes
    ----------
    name : str
        Name on the command line and in settings files.
    summary : str
        What it is for, for the command line and the documentation.
    methods : dict of str to str
        Stage -> method; the stages left out keep their default.
    params : dict of str to dict
        Stage -> parameters of that stage's method of the preset; lists are tuples.
    """

    name: str
    summary: str
    methods: dict[str, str] = field(default_factory=dict)
    params: dict[str, dict[str, object]] = field(default_factory=dict)

    def method(self, stage: str) -> str:
        """Return the method that the preset has for a stage.

        Examples
        --------
        >>> PRESETS['default'].method('background')
        'pdf'
        """
        return self.methods.get(stage, default(stage))


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            'fast',
            'a third of the iterations or less, for a first look',
            params={
                'background': {'max_iter': 6, 'coarse_iter': (30, 100)},
                'inversion': {'max_iter': 7, 'refine': 2, 'refine_coarse': (10,)},
            },
        ),
        Preset('default', 'the default method of each stage with its own parameters'),
        Preset(
            'thorough',
            'two to three times the iterations, where time does not matter',
            params={'background': {'max_iter': 60}, 'inversion': {'max_iter': 60, 'refine': 40}},
        ),
    )
}
