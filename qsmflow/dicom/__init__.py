"""From DICOM to a BIDS dataset that this app can use: a thin wrapper of dcm2niix.

What is in a DICOM file is dcm2niix's business alone. Here its output is sorted: which images are
echoes and parts of one acquisition, what BIDS calls them, and what their sidecars may keep.
"""

from qsmflow.dicom.errors import ConversionError
from qsmflow.dicom.grouping import Acquisition, sort_images
from qsmflow.dicom.images import Converted
from qsmflow.dicom.naming import Target, plan_targets
from qsmflow.dicom.tool import convert, read_converted
from qsmflow.dicom.writing import write_targets

__all__ = [
    'Acquisition',
    'ConversionError',
    'Converted',
    'Target',
    'convert',
    'plan_targets',
    'read_converted',
    'sort_images',
    'write_targets',
]
