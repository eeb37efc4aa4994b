r"""Physical constants, unit conversions and the sign convention.

The sign convention holds everywhere in the package: the signal of echo :math:`j` is
:math:`S_j = M_0 e^{-R_2^* TE_j} e^{+i(\phi_0 + 2\pi f TE_j)}`, the field ``f`` is positive where
the main field is raised, and paramagnetic tissue has positive susceptibility.

Between stages the field is in ppm of the main field. The dipole relation ``field = D * chi`` is
then free of the field strength and of the echo time.
"""

import math

#: Gyromagnetic ratio of the proton over 2 pi, in MHz/T (CODATA 2018).
GAMMA_BAR = 42.577478518


def imaging_frequency(field_strength: float) -> float:
    """Return the proton's Larmor frequency for a field strength.

    Parameters
    ----------
    field_strength : float
        Main field, in T.

    Returns
    -------
    float
        Frequency, in MHz.

    Examples
    --------
    >>> round(imaging_frequency(3.0), 3)
    127.732
    """
    return GAMMA_BAR * field_strength


def radians_per_ppm(te: float, f0: float) -> float:
    """Return the phase that a field of 1 ppm gives at an echo time.

    Parameters
    ----------
    te : float
        Echo time, in s. An array gives an array.
    f0 : float
        Imaging frequency, in MHz. ``f0`` MHz is also the number of Hz in one ppm.

    Returns
    -------
    float
        Phase, in rad per ppm.

    Examples
    --------
    >>> round(radians_per_ppm(0.020, 127.732), 4)
    16.0513
    """
    return 2 * math.pi * f0 * te


def ppm_to_hz(field: float, f0: float) -> float:
    """Convert a field in ppm of the main field to Hz, for imaging frequency ``f0`` in MHz.

    Examples
    --------
    >>> ppm_to_hz(0.5, 128.0)
    64.0
    """
    return field * f0


def hz_to_ppm(field_hz: float, f0: float) -> float:
    """Convert a frequency offset in Hz to ppm of the main field, for ``f0`` in MHz.

    Examples
    --------
    >>> hz_to_ppm(64.0, 128.0)
    0.5
    """
    return field_hz / f0
