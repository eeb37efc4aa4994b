"""What the tissues of the phantom are made of.

Susceptibility in its paramagnetic and diamagnetic parts, and T2, follow the public head phantom
for susceptibility separation [1]_; T1 and proton density are of the usual order at 3 T. Fat,
muscle, bone and air are relative to soft tissue, whose own shift from vacuum is left out.

References
----------
.. [1] Marques JP, et al. Magn Reson Med 2021;86:526-542. doi:10.1002/mrm.28716
"""

from dataclasses import dataclass

#: R2' per susceptibility in static dephasing at 3 T, in 1/s per ppm.
R2PRIME_PER_PPM = 137.0

#: Susceptibility of air relative to soft tissue, in ppm.
CHI_AIR = 9.4

#: Added to the label of a left-sided structure to give the right-sided one.
RIGHT = 100


@dataclass(frozen=True)
class Tissue:
    """Properties of one tissue at 3 T.

    Attributes
    ----------
    label : int
        Label in the phantom's segmentation, of the left side where there are two.
    name : str
        Name, as in the region table.
    chi_para, chi_dia : float
        Paramagnetic (>= 0) and diamagnetic (<= 0) susceptibility, in ppm.
    t2, t1 : float
        Relaxation times, in s.
    m0 : float
        Proton density relative to CSF.
    r2prime : float
        R2' in units of ``R2PRIME_PER_PPM`` times the sum of the two susceptibilities.
    paired : bool
        Whether there is one on each side.
    """

    label: int
    name: str
    chi_para: float
    chi_dia: float
    t2: float
    t1: float
    m0: float
    r2prime: float = 1.0
    paired: bool = False

    @property
    def chi(self) -> float:
        """Total susceptibility, in ppm."""
        return self.chi_para + self.chi_dia


def _nucleus(label, name, para, dia, t2, t1):
    return Tissue(label, name, para * 1e-3, dia * 1e-3, t2 * 1e-3, t1 * 1e-3, 0.78, paired=True)


#: Nuclei with the labels of the CIT168 atlas (ppb, ms), then structures of our own.
NUCLEI = (
    _nucleus(1, 'putamen', 47.1, -9.1, 77.6, 1332),
    _nucleus(2, 'caudate', 52.65, -8.65, 88.4, 1395),
    _nucleus(3, 'accumbens', 42.0, -9.0, 90.0, 1400),
    _nucleus(4, 'extended_amygdala', 39.2, -19.2, 110.0, 1500),
    _nucleus(5, 'GPe', 143.7, -13.2, 63.8, 1100),
    _nucleus(6, 'GPi', 135.0, -16.5, 65.0, 1080),
    _nucleus(7, 'SNc_VTA', 112.0, -12.0, 75.0, 1180),
    _nucleus(8, 'red_nucleus', 110.9, -10.9, 67.8, 1000),
    _nucleus(9, 'SNr', 128.0, -11.0, 71.0, 1130),
    _nucleus(12, 'ventral_pallidum', 90.0, -15.0, 75.0, 1150),
    _nucleus(13, 'habenula', 60.0, -25.0, 85.0, 1200),
    _nucleus(14, 'hypothalamus', 35.0, -18.0, 115.0, 1500),
    _nucleus(15, 'mammillary', 35.0, -25.0, 100.0, 1300),
    _nucleus(16, 'STN', 122.4, -11.4, 72.7, 1150),
    _nucleus(20, 'thalamus', 50.9, -30.9, 87.1, 1200),
    _nucleus(21, 'dentate', 168.4, -16.4, 110.3, 1100),
)

WHITE = Tissue(30, 'white_matter', 0.0059, -0.0359, 0.070, 0.838, 0.70)
GREY = Tissue(31, 'gray_matter', 0.0392, -0.0192, 0.1305, 1.607, 0.82)
CSF = Tissue(32, 'csf', 0.0275, -0.0085, 1.584, 4.0, 1.0, r2prime=0.2)
VEIN = Tissue(33, 'vein', 0.190, 0.0, 0.035, 1.60, 0.85)
CALCIFICATION = Tissue(34, 'calcification', 0.0, -0.300, 0.030, 1.0, 0.40)
HAEMORRHAGE = Tissue(35, 'haemorrhage', 1.0, 0.0, 0.025, 1.2, 0.75)
MUSCLE = Tissue(40, 'soft_tissue', 0.010, -0.010, 0.040, 1.10, 0.75)
FAT = Tissue(41, 'fat', 0.038, -0.019, 0.070, 0.38, 0.95)
BONE = Tissue(42, 'bone', 0.0, -2.1, 0.005, 0.40, 0.08)
AIR = Tissue(43, 'air', CHI_AIR, 0.0, 0.001, 1.0, 0.0, r2prime=0.0)

#: Tissues inside the brain mask, in the order of the truth tables; a haemorrhage is listed only
#: for a head that has one.
BRAIN = (*NUCLEI, WHITE, GREY, CSF, VEIN, CALCIFICATION)


def brain_labels(*, haemorrhage: bool = False) -> list[tuple[int, str, str]]:
    """Return ``(label, name, hemi)`` of everything inside the brain, by label.

    Parameters
    ----------
    haemorrhage : bool, optional
        Whether the brain has one.

    Examples
    --------
    >>> brain_labels()[0], len(brain_labels())
    ((1, 'putamen', 'L'), 37)
    """
    result = []
    for tissue in (*BRAIN, HAEMORRHAGE) if haemorrhage else BRAIN:
        if tissue.paired:
            result.append((tissue.label, tissue.name, 'L'))
            result.append((tissue.label + RIGHT, tissue.name, 'R'))
        else:
            result.append((tissue.label, tissue.name, ''))
    return sorted(result)
