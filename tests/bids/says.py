"""What the message of each row must speak of, and what a finding need not hold, and why."""

import re

from qsmflow.bids import Finding

#: Regular expressions.
SAYS = {
    'A01': '0 to 4096',
    'A02': '-4096 to 4096',
    'A03': 'scaling of the header',
    'A04': 'no usable scaling',
    'A05': 'radians',
    'A06': 'degrees',
    'A07': '0 to 2 pi',
    'A08': 'marks the background',
    'A09': 'no known scaling',
    'A10': 'Units',
    'A11': 'unwrapped before',
    'A12': 'filtered',
    'A13': 'sign of the phase|opposite sign',
    'A14': 'every second slice',
    'A15': 'slice',
    'A16': 'real or imaginary',
    'A17': 'real and imaginary',
    'A18': 'swapped|shows the same',
    'A19': '8 bits|with loss',
    'A20': 'open ends',
    'A21': 'single coil|several files',
    'A22': 'one name',
    'A23': 'NaN',
    'A24': 'all voxels are equal',
    'A25': 'exactly zero',
    'A26': 'blank planes',
    'A27': 'gradient nonlinearity',
    'B28': 'has no phase|neither phase',
    'B29': 'no magnitude',
    'B30': 'is missing|not there',
    'B31': 'has no EchoTime',
    'B32': 'in ms|not in seconds',
    'B33': 'EchoTime is',
    'B34': 'order of their times',
    'B35': 'same EchoTime|different EchoTimes',
    'B36': 'uneven',
    'B37': 'echo numbers',
    'B38': 'one echo',
    'B39': 'volumes',
    'B40': 'repetitions|more than four dimensions|no volume of the requested index',
    'B41': 'opposite directions|bipolar readout',
    'B42': 'left out',
    'B43': 'MagneticFieldStrength|field strength|ImagingFrequency',
    'B44': 'MagneticFieldStrength',
    'B45': 'too few slices',
    'B46': 'name that BIDS does not allow',
    'B47': 'two formats',
    'B49': 'exported twice',
    'B50': 'JSON|UTF-8|byte-order',
    'B52': 'sidecars',
    'B53': 'dataset_description|required keys',
    'B54': 'derivative',
    'C55': 'truncated',
    'C56': 'damaged',
    'C57': 'not the image|not gzip|uncompressed|is empty|not a NIfTI|not a volume',
    'C58': 'link whose target',
    'C59': 'shorter than its header|longer than its header',
    'C60': 'clipped',
    'C61': 'complex',
    'C62': 'colours',
    'C64': 'another shape',
    'C65': 'lies elsewhere|differs slightly',
    'C66': 'sform',
    'C67': 'coordinates',
    'C68': 'right angles',
    'C69': 'oblique',
    'C70': 'main field lies along',
    'C72': 'voxel size',
    'C73': 'too low',
    'C74': 'interpolation',
    'C75': 'cut by the field of view|outside the field of view',
    'C76': r'needs about \d.* GB; the run may use \d.* GB|may need more memory',
    'D77': 'grid of|used as brain mask',
    'D78': 'mask|probabilities|labels|outside',
    'D79': 'empty|size of a brain|another method took its place',
    'D80': 'islands|several parts|border of the field of view',
    'D81': 'no usable T1w',
    'D82': 'anatomical image',
    'D83': 'without its head|face was removed',
    'D84': 'failed its check from every start',
    'D85': 'lesion',
    'D86': 'without signal',
    'D87': 'outside the mask',
    'D88': 'lies elsewhere|no field explains the echoes',
    'D89': 'head of an adult',
    'E90': 'not there|no folder|no subject folder|no gradient-echo data',
    'E91': 'has no|cannot be used|filter|query|typographic dash|there is no option',
    'E92': 'participants listed|participant_id',
    'E93': 'BIDS validator|not validated: bids-validator-deno is not installed',
    'E96': 'OUTPUT_DIR (is|lies|contains|has)|--work-dir lies|--clean-workdir would remove',
    'E97': r'by other methods|from another dataset|holds the results of fMRIPrep|'
    r'results of version 0\.0\.9',
    'E98': "space|'remove'.* could not be written: the disk .* is full",
    'E99': 'cannot be written: (Not a directory|Read-only)',
    'E100': '1 steps of an earlier run',
    'E101': r'run run-a \(host .*, process \d+, since .*\) works on sub-01 in this work folder',
    'E102': r'run run-a \(host .*, process \d+, since .*\) is writing the results of sub-01',
    'E103': r"'invert'.* killed by SIGKILL \(.*\d GB were planned for it.* may use 4.00 GB\)",
    'E104': 'received SIG(TERM|INT) while computing',
    'E107': 'HOME is not set to a folder that can be written; /.* takes its place',
    'E110': r'\.fit: ValueError: a value is wrong',
}
#: Codes that a measurement leads to: their evidence holds numbers.
MEASURED = {
    *('A01', 'A02', 'A03', 'A05', 'A06', 'A07', 'A08', 'A09', 'A11', 'A12', 'A13', 'A14', 'A15'),
    *('A17', 'A18', 'A20', 'A23', 'A24', 'A25', 'A26', 'B29', 'B30', 'B32', 'B34', 'B35', 'B36'),
    *('B37', 'B38', 'B39', 'B40', 'B41', 'B42', 'B43', 'B44', 'B45', 'C55', 'C59', 'C60', 'C64'),
    *('C65', 'C66', 'C67', 'C68', 'C69', 'C70', 'C72', 'C73', 'C74', 'C75', 'C76', 'D77', 'D78'),
    *('D79', 'D80', 'D83', 'D84', 'D86', 'D87', 'D88', 'D89', 'E99'),
}
#: Codes that may have no file, and why; where there is one, the defect names it.
NO_FILE = {
    'E90': 'the dataset itself',
    'E91': 'the command line',
    'E93': 'the dataset itself, where it was not validated',
    'E98': 'a step that could not write, which the message names with the folders',
    'E103': 'a process; the message names the step',
    'E104': 'the whole run',
    'E107': 'a variable of the environment, which the message names',
    'E110': 'a step, which the message names',
    **dict.fromkeys(
        ('A13', 'A14', 'B41', 'C75', 'D79', 'D84', 'D86', 'D87', 'D88', 'D89'),
        'the series, whose sidecars hold it; the log names its step',
    ),
}
#: Codes whose evidence is in the message where it is not apart: they are for people alone, as
#: they are in no sidecar, and ``SAYS`` asks for what was measured.
IN_THE_MESSAGE = {'E93', 'E97', 'E98', 'E100', 'E101', 'E102', 'E103', 'E104', 'E107', 'E110'}
#: Where there may be nothing to measure: what was asked for is not there, or is simply used.
NOTHING_TO_MEASURE = {('D77', 'INFO'), ('E90', 'FATAL'), ('E91', 'FATAL'), ('E91', 'WARN')}
_FINDING = re.compile(
    r'\[(?P<level>[A-Z]+) (?P<code>[A-Z]+\d*)\] '
    r'(?:(?P<file>[^\s:]*(?:/|\.nii|\.tsv|\.json)[^\s:]*): )?'
    r'(?P<message>.+?)(?: \((?P<facts>[^()]*=.*?)\))?\.(?: (?P<remedy>.*))?$',
    re.MULTILINE,
)


def read_findings(text: str) -> list[Finding]:
    """Return the findings that were printed, as far as a line of text tells them."""
    found = []
    for match in _FINDING.finditer(text):
        level, code, file, message, facts, remedy = match.groups(default='')
        pairs = (fact.partition('=')[::2] for fact in facts.split(', ') if '=' in fact)
        evidence = {key: _number(value) for key, value in pairs}
        found.append(Finding(code, level, message, file, evidence, remedy or '?'))
    return found


def _number(text: str):
    try:
        return float(text)
    except ValueError:
        return text


def has_number(value) -> bool:
    """Tell whether there is a number anywhere in some evidence."""
    if isinstance(value, dict):
        return any(map(has_number, value.values()))
    if isinstance(value, list | tuple):
        return any(map(has_number, value))
    return isinstance(value, int | float) and not isinstance(value, bool)
