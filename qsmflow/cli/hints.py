"""Which option is meant by one that does not exist: by spelling, or by a name used elsewhere."""

import difflib
from collections.abc import Iterable

#: What users of QSMxT, SEPIA, fMRIPrep and other BIDS Apps would type for an option of ours. A
#: name of a stage can also be followed by ``-param``.
ELSEWHERE = {
    '--participant-label': 'participant participants participant-id subject subjects subject-id '
    'subject-label sub subs label labels',
    '--session-label': 'session sessions ses',
    '--acq-label': 'acq acqs acquisition acquisitions acquisition-label',
    '--run-label': 'run runs run-id',
    '--bids-filter-file': 'bids-filter bids-filters filter-file',
    '--skip-bids-validation': 'skip-validation no-validation no-bids-validation',
    '--phase-scale': 'phase-scaling phase-units phase-range scale-phase rescale-phase',
    '--phase-sign -1': 'invert-phase reverse-phase flip-phase negate-phase',
    '--bipolar': 'bipolar-correction bipolar-readout phase-offset-correction readout '
    'readout-mode readout-polarity readout-gradient monopolar',
    '--echoes': 'echo echo-idx echo-index echo-numbers num-echoes n-echoes',
    '--field-strength': 'b0 b0-strength tesla magnetic-field-strength',
    '--b0-dir': 'b0-direction b0-orientation b0-vector',
    '--mask': 'masks brain-mask mask-file custom-mask',
    '--mask derivatives': 'use-existing-mask use-existing-masks existing-masks',
    '--mask-method': 'masking mask-algorithm masking-algorithm masking-method masking-input '
    'mask-preset skull-strip skull-stripping brain-extraction bet hd-bet hdbet synthstrip',
    '--reference-region': 'reference qsm-reference ref-region ref-method referencing',
    '--preset': 'premade pipeline profile',
    '--unwrap': 'unwrapping unwrapping-algorithm unwrapping-method unwrap-algorithm unwrap-method '
    'phase-unwrapping',
    '--field-fit': 'echo-combination echo-combine combine-echoes combine-phase total-field '
    'field-mapping b0-estimation',
    '--bgfr': 'background background-removal background-field background-field-removal '
    'background-algorithm background-method bg bg-removal bgr bf bfr bf-algorithm bfr-algorithm '
    'bf-method bfr-method bgremove',
    '--inversion': 'qsm qsm-algorithm qsm-method dipole dipole-inversion inversion-algorithm '
    'inversion-method invert algorithm method',
    '--strategy two_pass': 'two-pass twopass',
    '--relaxometry': 'r2star r2s t2star t2s r2star-algorithm r2star-method t2star-algorithm '
    'r2star-mapping t2star-mapping do-r2starmap do-t2starmap',
    '--cosmos': 'multi-orientation',
    '--atlas': 'atlases roi rois labels-file parcellation segmentation do-segmentation',
    '--output-spaces': 'output-space space spaces template resample resample-to resampling '
    'normalize normalise',
    '--nprocs': 'n-procs nproc n-proc num-procs ncpus cpus num-cpus threads n-threads num-threads '
    'jobs n-jobs multiproc',
    '--omp-nthreads': 'omp-threads omp-num-threads',
    '--mem-gb': 'memory memory-gb mem-limit-gb max-mem max-memory ram',
    '--mem-mb': 'memory-mb mem-limit-mb',
    '--use-plugin': 'plugin plugin-file slurm pbs sge',
    '--work-dir': 'work workdir working-dir working-directory scratch tmp tmp-dir resume',
    '--clean-workdir': 'clean overwrite',
    '--sloppy': 'registration-quality quick quick-look',
    '--dry-run': 'dry',
    '--config-file': 'config settings pipeline-file',
    '--random-seed': 'seed',
}
#: How much a name must be alike to what was typed: our own, and one of elsewhere.
_OUR_OWN, _ALIKE = 0.7, 0.85


def option_hint(flag: str, options: Iterable[str]) -> str:
    """Return a hint at the option that is meant by one that does not exist.

    Parameters
    ----------
    flag : str
        What was typed.
    options : iterable of str
        Options that exist.

    Returns
    -------
    str
        A sentence with a space before it: the nearest option, by its spelling or by what it is
        called elsewhere, or else where to find all.

    Examples
    --------
    >>> option_hint('--background', ['--bgfr', '--bipolar'])
    " Did you mean '--bgfr'?"
    >>> option_hint('--bg_param', ['--bgfr', '--bgfr-param'])
    " Did you mean '--bgfr-param'?"
    """
    options = list(options)
    meant = {option: option for option in options}
    for option, words in ELSEWHERE.items():
        ours = option.split()[0]
        for word in words.split() if ours in options else ():
            meant.setdefault(f'--{word}', option)
            if f'{ours}-param' in options:
                meant.setdefault(f'--{word}-param', f'{ours}-param')
    name = flag.lower().replace('_', '-')
    close = difflib.get_close_matches(name, meant, n=1, cutoff=_ALIKE)
    if not close:
        close = difflib.get_close_matches(flag, options, n=1, cutoff=_OUR_OWN)
    return f' Did you mean {meant[close[0]]!r}?' if close else ' qsmflow --help lists all options.'
