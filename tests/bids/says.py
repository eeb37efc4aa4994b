"""What the message of each code of groups A and B must speak of, as regular expressions."""

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
}
#: Codes that a measurement leads to: their evidence holds numbers.
MEASURED = {
    *('A01', 'A02', 'A03', 'A05', 'A06', 'A07', 'A08', 'A09', 'A11', 'A12', 'A15', 'A17', 'A18'),
    *('A20', 'A23', 'A24', 'A25', 'A26', 'B29', 'B30', 'B32', 'B34', 'B35', 'B36', 'B37', 'B38'),
    *('B39', 'B40', 'B42', 'B43', 'B44', 'B45'),
}


def has_number(value) -> bool:
    """Tell whether there is a number anywhere in some evidence."""
    if isinstance(value, dict):
        return any(map(has_number, value.values()))
    if isinstance(value, list | tuple):
        return any(map(has_number, value))
    return isinstance(value, int | float) and not isinstance(value, bool)
