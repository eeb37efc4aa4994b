"""Every finding that the checks of the input can report, and the defects they do not look for.

``docs/findings.md`` is made from these tables, and a test compares them with the source.
"""

from typing import NamedTuple


class FindingKind(NamedTuple):
    """What a code stands for.

    Attributes
    ----------
    title : str
        What was found, in a few words.
    levels : tuple of str
        Levels it can have, from ``findings.LEVELS``, gravest first.
    meaning : str
        What it means for the results, and what is done about it.
    """

    title: str
    levels: tuple[str, ...]
    meaning: str


#: Groups of codes in the order of the documentation: title -> what its codes start with.
#: Codes without a row number are rules of the protocol or of the phase.
GROUPS = {
    'Content of the phase': ('A', 'SAT'),
    'Echoes and metadata': ('B',),
    'Files, headers and geometry': ('C',),
    'Masks and anatomical images': (
        *('D', 'DERANAT', 'DERSEG', 'DERGRID', 'DERNONE', 'REFREGION'),
    ),
    'Dataset and run': ('E', 'SLOPPY'),
    'Protocol': (),
}

_LEVELS = {'F': 'FATAL', 'E': 'ERROR', 'X': 'FIX', 'W': 'WARN', 'I': 'INFO'}


def _kind(title: str, levels: str, meaning: str) -> FindingKind:
    return FindingKind(title, tuple(_LEVELS[letter] for letter in levels), meaning)


#: Code -> title, levels and meaning. Levels: F FATAL, E ERROR, X FIX, W WARN, I INFO.
FINDINGS: dict[str, FindingKind] = {
    # ---- Content of the phase ----
    'A01': _kind('phase from 0 to 4096', 'X', 'scaled to radians by this known range'),
    'A02': _kind('phase from −4096 to 4096', 'X', 'scaled to radians, without a shift'),
    'A03': _kind(
        'header scaling counts twice', 'X', 'the stored values are in a known range; they are used'
    ),
    'A04': _kind('no usable header scaling', 'X', 'a slope of 0 or NaN is taken as 1'),
    'A05': _kind('phase in units of the vendor', 'X', 'scaled to radians by this known range'),
    'A06': _kind('phase in degrees', 'X', 'scaled to radians'),
    'A07': _kind('phase from 0 to 2π', 'X', 'shifted to −π to π'),
    'A08': _kind(
        'a mark of the background beside the phase',
        'X',
        'an extreme value that many voxels share, such as −8192, becomes 0; their number is told',
    ),
    'A09': _kind(
        'range of the phase fits no known scaling',
        'E',
        'the range is never stretched to 2π; --phase-scale says what it is',
    ),
    'A10': _kind('Units contradicts the data, or is missing', 'XW', 'the data are believed'),
    'A11': _kind(
        'phase was unwrapped before',
        'E',
        'more than 1 % beyond −π to π, and no wraps; --phase-scale rad-unwrapped wraps it again',
    ),
    'A12': _kind(
        'phase was high-pass filtered',
        'EW',
        'the slow part of the phase is missing, or ImageType says so and the data cannot tell; '
        'WARN with --force filtered-phase, or where the data contradict ImageType',
    ),
    'A13': _kind(
        'sign of the phase',
        'XW',
        'told while computing, by the field of the air around the head: FIX if it was negated, '
        'WARN if that does not decide',
    ),
    'A14': _kind(
        'phase of every second slice turned by π',
        'X',
        'told while computing: over 80 % of the slices jump, in all echoes; they are turned back',
    ),
    'A15': _kind(
        'each slice has a phase offset of its own',
        'XW',
        'as in 2-D scans; removed with the help of a second echo, which a single echo lacks',
    ),
    'A16': _kind(
        'a real or imaginary image is named phase',
        'E',
        'ImageType says so, or its air is no noise from −π to π',
    ),
    'A17': _kind(
        'real and imaginary images', 'EX', 'combined to magnitude and phase; both must be there'
    ),
    'A18': _kind(
        'magnitude and phase are swapped, or one image has both names',
        'E',
        'phase is noise in the air and smooth in the head, a magnitude is not',
    ),
    'A19': _kind(
        'phase of 8 bits, or compressed with loss', 'W', 'steps of 1.4° or more; export 12 bits'
    ),
    'A20': _kind(
        'fringe lines with open ends',
        'W',
        'lines of singularities longer than 20 mm that all echoes share: coils combined wrongly',
    ),
    'A21': _kind(
        'several files for one echo, or single coils',
        'EW',
        'coils must be combined before; a coil image beside a complete series is left out',
    ),
    'A22': _kind(
        'acquisitions that differ only in flip angle, inversion, saturation or suffix',
        'E',
        'their results would have one name; an acq- label tells them apart',
    ),
    'A23': _kind(
        'NaN or infinite voxels',
        'EX',
        'set to zero where few; an error where more than 0.1 % of the object has them',
    ),
    'A24': _kind('all voxels of a volume are equal', 'E', 'the image holds nothing'),
    'A25': _kind(
        'much of the phase is exactly zero',
        'I',
        'it was masked or defaced before; the mask leaves these voxels out',
    ),
    'A26': _kind(
        'blank planes at the border cut the object',
        'X',
        'the mask leaves them out, and the voxels beside them',
    ),
    'A27': _kind(
        'phase corrected for gradient nonlinearity',
        'W',
        'wraps were interpolated; prefer ND series',
    ),
    'SAT': _kind(
        'phase does not span 2π',
        'W',
        'taken as radians because Units says so; check the values',
    ),
    # ---- Echoes and metadata ----
    'B28': _kind(
        'no phase',
        'EW',
        'no susceptibility without it; --force r2star-only maps R2*. A plain T2starw image is '
        'left out',
    ),
    'B29': _kind('no magnitude', 'X', 'all voxels get one weight; no R2*, no region table'),
    'B30': _kind(
        'an image of an echo is missing', 'E', '--echoes chooses among the complete ones'
    ),
    'B31': _kind(
        'EchoTime missing', 'EX', 'taken from the other part or the image header; never guessed'
    ),
    'B32': _kind('EchoTime not in seconds', 'EX', 'ms are converted where all echoes agree'),
    'B33': _kind('EchoTime is text or no time', 'EX', 'text that holds a number is read as one'),
    'B34': _kind('echo numbers not in the order of the times', 'X', 'echoes are sorted by time'),
    'B35': _kind('echoes or parts contradict in EchoTime', 'E', 'the true times must be written'),
    'B36': _kind('uneven echo spacing', 'X', 'methods that need even spacing are not used'),
    'B37': _kind(
        'gap in the echo numbers', 'WI', 'what is there is used; INFO if they start at 0'
    ),
    'B38': _kind('one echo', 'W', 'the phase offset stays in, and there is no R2*'),
    'B39': _kind('echoes as volumes of one file', 'EX', 'used if EchoTime has one for each'),
    'B40': _kind(
        'volumes that are no echoes',
        'EX',
        'repetitions: --volume-index chooses one; phase is never averaged',
    ),
    'B41': _kind(
        'bipolar readout',
        'EXW',
        'ERROR where --bipolar on asks for a correction that the echoes do not allow; else told '
        'while computing, with three echoes or more: FIX if it was corrected; WARN where a '
        'correction was insisted on and there was no signal for it',
    ),
    'B42': _kind(
        'echoes left out, so that odd and even ones do not alternate',
        'I',
        'the direction of a bipolar readout follows the original numbers',
    ),
    'B43': _kind(
        'field strength missing or contradictory',
        'EXW',
        'computed from ImagingFrequency, or taken from --field-strength',
    ),
    'B44': _kind('field strength in mT or gauss', 'EX', 'converted if a known field results'),
    'B45': _kind(
        'too few slices', 'E', 'below 16 the dipole field is not covered; for 2-D see ACQ3D'
    ),
    'B46': _kind(
        'a name that BIDS does not allow', 'EW', 'left out; an error if the series needs the image'
    ),
    'B47': _kind('one image in two formats', 'E', '.nii and .nii.gz of one name'),
    'B49': _kind(
        'one scan exported twice',
        'W',
        'same grid and times under two acq- or rec- labels, as ND and NORM; each is processed',
    ),
    'B50': _kind(
        'broken JSON file', 'FEW', 'only acquisitions that it applies to fail; place is told'
    ),
    'B52': _kind(
        'several sidecars of one folder apply',
        'WI',
        'the one with most entities wins; INFO if they do not contradict each other',
    ),
    'B53': _kind(
        'dataset_description.json missing or incomplete',
        'FW',
        'BIDS requires it; WARN with --skip-bids-validation',
    ),
    'B54': _kind('the dataset is a derivative', 'F', 'its DatasetType says so; give the raw data'),
    # ---- Files, headers and geometry ----
    'C55': _kind('truncated file', 'E', 'every image is read to its end before anything runs'),
    'C56': _kind('damaged compression', 'E', 'wrong checksum; copy the file again'),
    'C57': _kind('not an image', 'E', 'empty, not gzip, or a pointer of git-annex or git-lfs'),
    'C58': _kind('link without target', 'EW', 'content not fetched; WARN for unrelated sidecars'),
    'C59': _kind(
        'file shorter or longer than its header says', 'EW', 'copy the file again; WARN if longer'
    ),
    'C60': _kind('clipped magnitude', 'W', 'R2* is wrong where voxels share the largest value'),
    'C61': _kind(
        'complex voxels',
        'EX',
        'split into magnitude and phase; an error if only some images of a series are complex',
    ),
    'C62': _kind('colours instead of values', 'E', 'a screenshot or colour map, not a scan'),
    'C64': _kind('images of a series differ in shape', 'E', 'probably a DICOM file is missing'),
    'C65': _kind(
        'images of a series differ in place', 'EX', 'below the tolerance the first affine is used'
    ),
    'C66': _kind('sform and qform disagree', 'W', 'the sform is used'),
    'C67': _kind(
        'no scanner coordinates',
        'EW',
        'direction of the main field unknown unless --b0-dir is given',
    ),
    'C68': _kind('axes not at right angles', 'EX', 'ignored up to half a degree'),
    'C69': _kind('oblique grid', 'I', 'the dipole kernel is rotated, data are not resampled'),
    'C70': _kind('main field not along the last axis', 'I', 'handled by the dipole kernel'),
    'C72': _kind('impossible voxel size', 'E', 'outside 0.1 to 10 mm; probably a wrong unit'),
    'C73': _kind('voxels longer than 4:1 or 3 mm', 'W', 'values of the nuclei come out too low'),
    'C74': _kind(
        'interpolated matrix',
        'W',
        'less than 60 % of k-space was measured; the voxel that was measured is told, and the '
        'data are processed as they are',
    ),
    'C75': _kind(
        'the brain is cut by the field of view',
        'W',
        'told from the magnitude before the run, and from the registration in it',
    ),
    'C76': _kind(
        'too large for the memory',
        'EW',
        'left out, with the GB that it needs; tried with --low-mem. Exit code 1, also if none is '
        'left: the data are not at fault',
    ),
    'C99': _kind('file cannot be read', 'EW', 'rights, or a folder; WARN for unrelated sidecars'),
    # ---- Masks and anatomical images ----
    'D77': _kind(
        'mask that is given, by --mask or a derivative dataset',
        'EWI',
        'used; WARN if it was resampled from another grid in the same scanner coordinates, ERROR '
        'if that is not possible, or none is there and one was asked for',
    ),
    'D78': _kind(
        'mask with other values than two',
        'EX',
        'probabilities above 0.5 are used, and all labels; NaN is outside; an image is no mask',
    ),
    'D79': _kind(
        'mask that is empty, or not of the size of a brain (50 to 3000 ml)',
        'EW',
        'ERROR if empty. A given one is used, as it may be of an animal or a phantom; for one '
        'that was found, the largest bright object takes its place',
    ),
    'D80': _kind(
        'mask with islands or holes, or at the border',
        'XW',
        'islands and holes of a given mask up to 1 ml are mended; larger ones may be meant, and '
        'are kept and told',
    ),
    'D81': _kind(
        'no usable T1w image', 'W', 'the magnitude is registered to the template instead'
    ),
    'D82': _kind(
        'choice among T1w images', 'WI', 'WARN if from another session or one is damaged'
    ),
    'D83': _kind(
        'T1w image without head or face',
        'W',
        'used as it is; not told where the scanner sets all air to zero',
    ),
    'D84': _kind(
        'registration that failed its check from every start',
        'W',
        'the maps are not touched by it; the region table is written and marked in column qc',
    ),
    'D85': _kind(
        'mask of a lesion',
        'XW',
        'left out of account by the registration to the template; WARN if it cannot be used',
    ),
    'D86': _kind(
        'volume without signal inside the mask',
        'W',
        'metal, bleeding or air: no weight in the fit; it stays in the mask, as a hole would '
        'count as background',
    ),
    'D87': _kind(
        'regions partly outside mask or field of view',
        'W',
        'the part that is covered is in column coverage; no number is hidden, qc says partial',
    ),
    'D88': _kind(
        'motion or ghosts between echoes',
        'W',
        'told by a shift between the magnitudes, or by echoes that no field explains',
    ),
    'D89': _kind(
        'not the head of an adult',
        'W',
        'the check of the brain mask failed; --mask helps, and --atlas none',
    ),
    'DERANAT': _kind(
        'T1w image, mask or transforms of a derivative dataset',
        'WI',
        'used instead of our own steps; WARN: damaged, so that our own step is taken',
    ),
    'DERSEG': _kind(
        'segmentation of a derivative dataset', 'W', 'left out: empty, or no table of its labels'
    ),
    'DERNONE': _kind(
        'derivative dataset that holds nothing for any participant',
        'W',
        'the run goes on without it; as a rule its path is one folder too high or too low',
    ),
    'DERGRID': _kind(
        'image of a derivative dataset in another place',
        'W',
        'left out: a mask on another grid, or a segmentation that does not fit the brain',
    ),
    'REFREGION': _kind(
        'reference region that was not found',
        'W',
        'with --reference-region csf: the whole brain is the zero of the map instead, and '
        'sidecar, table and report say so',
    ),
    # ---- Dataset and run ----
    'E90': _kind(
        'no dataset, no subject, or no gradient-echo data',
        'F',
        'exit code 65; 2 where BIDS_DIR is no folder',
    ),
    'E91': _kind(
        'unknown label, filter or option',
        'FEWI',
        'exit code 2; close matches are named. A participant without data of the sessions, labels '
        'or filters that were asked for is left out (INFO), or fails (ERROR) if it was named with '
        '--participant-label. WARN: a filter leaves no T1w image',
    ),
    'E92': _kind(
        'participants.tsv does not list the folders',
        'W',
        'the group level takes age and sex there',
    ),
    'E93': _kind(
        'error of the BIDS validator', 'WI', 'only for files in use; INFO if it could not run'
    ),
    'E96': _kind('output or work folder in the wrong place', 'F', 'exit code 2'),
    'E97': _kind(
        'results of other methods, another version or another dataset',
        'FW',
        'exit code 2 where results of other participants would stay beside those of this run; '
        'WARN where they are replaced, for another version, where the dataset is not certain, or '
        'with --allow-mixed-settings',
    ),
    'E98': _kind(
        'too little space, or a disk that filled up',
        'FW',
        'exit code 73; WARN where the estimate is close to what is free',
    ),
    'E99': _kind('output or work folder cannot be written', 'F', 'exit code 73'),
    'E100': _kind('steps of an earlier run', 'I', 'they are not repeated if they still hold'),
    'E101': _kind('another run on the work folder', 'F', 'exit code 75; the message names it'),
    'E102': _kind(
        'another run on the same participant of the output folder',
        'F',
        'exit code 75; the message names it',
    ),
    'E103': _kind(
        'a process was killed, as a rule for want of memory',
        'F',
        'exit code 1; the message names step and memory, finished results stay',
    ),
    'E104': _kind('the run was interrupted', 'F', 'exit code 143 or 130; it can be resumed'),
    'E107': _kind('no folder for caches and settings', 'I', 'a temporary one takes its place'),
    'E110': _kind(
        'a step failed',
        'E',
        'the other series are finished, but for --stop-on-first-crash; exit code 1; status.tsv '
        'says why',
    ),
    'SLOPPY': _kind('run with --sloppy', 'W', 'coarse on purpose: for trials only'),
    # ---- Protocol ----
    'ACQ3D': _kind('not a 3-D acquisition', 'WI', 'slices have phase offsets; INFO if not known'),
    'ECHON': _kind('fewer than five echoes', 'WI', 'WARN for one: no R2*'),
    'TELAST': _kind(
        'last echo early or late', 'W', '30 to 40 ms at 3 T, scaled with T2* of other fields'
    ),
    'DTE': _kind('echoes more than 5 ms apart', 'W', 'fast-changing fields wrap between them'),
    'DTEUNI': _kind('uneven echo spacing', 'I', 'ARLO cannot be used'),
    'MAGTE': _kind(
        'magnitude does not decay from echo to echo',
        'W',
        'it was scaled echo by echo, or echoes are mixed up: R2* is wrong then',
    ),
    'SLTHK': _kind('an edge of 2 mm or more', 'W', 'lowers values of small structures'),
    'ISO': _kind('anisotropic voxels', 'WI', 'WARN above 2:1, INFO above 1.5:1'),
    'PF': _kind('partial Fourier sampling', 'W', 'blurs the phase where the field changes fast'),
    'ORIN': _kind(
        'orientations for COSMOS',
        'WI',
        'with --cosmos; WARN if there are fewer than three: no COSMOS map is made',
    ),
    'ORICOND': _kind(
        'orientations too much alike', 'W', 'the COSMOS map is made, with noise and streaks'
    ),
    'ORIREG': _kind(
        'an orientation may not be aligned', 'W', 'the COSMOS map is made; look at it'
    ),
    'FIELD': _kind('unusual field strength', 'I', 'no reference values; 1.5, 3 and 7 T are usual'),
}

#: Defects that are known from practice, and that no check of the input looks for yet.
NOT_CHECKED: dict[str, tuple[str, str]] = {}

#: Rows that lead to no finding, as nothing is wrong with the result: what it is, what is done.
HANDLED: dict[str, tuple[str, str]] = {
    'B48': ('several runs or acquisitions', 'each is processed under its own name'),
    'B51': ('sidecars at the top of the dataset alone', 'inherited as BIDS says'),
    'C63': (
        'images stored as whole numbers',
        'maps are float32 with a header of their own, so that nothing is rounded',
    ),
    'C71': ('odd matrix sizes', 'padded inside the methods, and cut back'),
    'E94': ('blanks, quotes, brackets, %, letters of any script in paths', 'read and written'),
    'E95': ('dataset that is read-only or has another owner', 'it is only read'),
    'E105': ('no network', 'not used'),
    'E106': ('locale without UTF-8', 'files and names are read as UTF-8 in any locale'),
    'E108': ('file system that does not tell case apart', 'no two outputs differ by case alone'),
    'E109': (
        'names, dates, places, identifiers in sidecars',
        'a list of acquisition fields is passed on, and nothing else',
    ),
}


def group_of(code: str) -> str:
    """Return the group of the documentation that a code belongs to.

    Examples
    --------
    >>> group_of('C64'), group_of('TELAST')
    ('Files, headers and geometry', 'Protocol')
    """
    letter = code[0] if code[1:].isdigit() else code
    return next((title for title, own in GROUPS.items() if letter in own), 'Protocol')
