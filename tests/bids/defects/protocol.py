"""Rules of the protocol."""

from .dataset import affine
from .registry import defect


@defect('ACQ3D', 'WARN')
def two_dimensional(ds):
    ds.edit_all(MRAcquisitionType='2D')


@defect('ACQ3D', 'INFO')
def dimension_unknown(ds):
    ds.edit_all(MRAcquisitionType=None)


@defect('PF', 'WARN')
def partial_fourier(ds):
    ds.edit_all(PartialFourier=0.75)


@defect('SLTHK', 'WARN')
def thick_slices(ds):
    ds.regrid(affine((1, 1, 2.5)))


@defect('ISO', 'WARN')
def anisotropic(ds):
    ds.regrid(affine((1, 1, 2.5)))


@defect('FIELD', 'INFO')
def unusual_field(ds):
    ds.edit_all(MagneticFieldStrength=0.55)
