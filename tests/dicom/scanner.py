"""Tiny DICOM series as scanners write them, with known content. No person was scanned."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR_IMAGE = '1.2.840.10008.5.1.4.1.1.4'
ENHANCED_MR_IMAGE = '1.2.840.10008.5.1.4.1.1.4.1'
SHAPE = (20, 18, 17)  # columns, rows, slices
TE = (4.0, 8.0, 12.0)  # ms
#: Values of GE's private image type (0043,102F).
GE_PARTS = {'mag': 0, 'phase': 1, 'real': 2, 'imag': 3}


def signal(te: float) -> np.ndarray:
    """Return a complex image, shape ``SHAPE``: a ball in noise, with wraps."""
    random = np.random.default_rng(int(te))
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing='ij'))
    ball = (grid**2).sum(axis=0) < 0.5
    noise = random.normal(size=(2, *SHAPE))
    clean = 100 * np.exp(-te / 30) * ball * np.exp(1j * (0.9 * te * grid[0] + grid[2]))
    return clean + noise[0] + 1j * noise[1]


def stored(part: str, te: float) -> np.ndarray:
    """Return a part as integers, like a scanner stores it: phase from 0 to 4095."""
    data = signal(te)
    if part == 'mag':
        return np.rint(10 * abs(data)).astype(np.int16)
    if part == 'phase':
        turn = (np.angle(data) + np.pi) / (2 * np.pi)
        return np.minimum(np.floor(4096 * turn), 4095).astype(np.int16)
    return np.rint(10 * (data.real if part == 'real' else data.imag)).astype(np.int16)


class Scanner:
    """Writes series of one study into a folder."""

    def __init__(self, folder: Path, manufacturer: str):
        self.folder, self.manufacturer = Path(folder), manufacturer
        self.study, self.frame = generate_uid(), generate_uid()
        self.folder.mkdir(parents=True, exist_ok=True)

    def series(
        self, number: int, images, *, name: str = 'qsm_gre', time: str = '101500',
        uid: str | None = None, numbered: bool = True, values=stored, **fields,
    ) -> str:  # fmt: skip
        """Write a series.

        Parameters
        ----------
        number : int
            Series number.
        images : iterable of (part, te)
            What it holds; echoes are numbered by the order of their times.
        name, time : str
            Protocol and time of acquisition.
        uid : str, optional
            Instance UID of the series.
        numbered : bool, optional
            Whether the header has echo numbers.
        values : callable, optional
            Gives the stored integers of a part and echo time.
        **fields
            Further DICOM fields.

        Returns
        -------
        str
            Its instance UID.
        """
        uid, images = uid or generate_uid(), list(images)
        times = sorted({te for _, te in images})
        instance = 0
        for part, te in images:
            data = values(part, te)
            for z in range(data.shape[2]):
                instance += 1
                item = self._slice(data[:, :, z].T, z, number, uid, instance)
                item.SeriesDescription = item.ProtocolName = name
                item.AcquisitionTime = item.ContentTime = time
                item.EchoTime = te
                item.EchoTrainLength = len(times)
                if numbered:
                    item.EchoNumbers = times.index(te) + 1
                self._mark(item, part)
                for key, value in fields.items():
                    setattr(item, key, value)
                item.save_as(
                    self.folder / f'{number:04d}_{instance:04d}.dcm', enforce_file_format=True
                )
        return uid

    def enhanced(self, number: int, part: str, *, name='qsm_gre', shared=False) -> None:
        """Write a series of enhanced DICOM: one file for each echo.

        What holds for all frames stands in each of them, as Siemens writes it, or is ``shared``.
        """
        uid = generate_uid()
        for echo, te in enumerate(TE, 1):
            data = stored(part, te)
            item = self._slice(data[:, :, 0].T, 0, number, uid, echo)
            for field in ('ImagePositionPatient', 'ImageOrientationPatient', 'SliceLocation'):
                del item[field]
            item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID = ENHANCED_MR_IMAGE
            item.SoftwareVersions, item.SeriesDescription = 'syngo MR XA30', name
            item.ProtocolName, item.AcquisitionDateTime = name, '20230405101500.000000'
            item.ImageType = ['ORIGINAL', 'PRIMARY', part[0].upper(), 'ND']
            item.ComplexImageComponent = {'mag': 'MAGNITUDE', 'phase': 'PHASE'}[part]
            item.PulseSequenceName, item.NumberOfFrames = '*fl3d3', data.shape[2]
            item.EchoTrainLength = len(TE)
            frames = [self._frame(z, part) for z in range(data.shape[2])]
            for frame in [] if shared else frames:
                frame.update(self._shared(te, part))
            common = self._shared(te, part) if shared else pydicom.Dataset()
            item.SharedFunctionalGroupsSequence = [common]
            item.PerFrameFunctionalGroupsSequence = frames
            item.PixelData = np.ascontiguousarray(data.transpose(2, 1, 0), '<i2').tobytes()
            item.save_as(self.folder / f'{number:04d}_{echo:04d}.dcm', enforce_file_format=True)

    @staticmethod
    def _shared(te: float, part: str) -> pydicom.Dataset:
        """Return what all frames share."""
        orientation, measures, timing, echo, scale, shared = (pydicom.Dataset() for _ in range(6))
        orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        measures.PixelSpacing, measures.SliceThickness = [2.0, 2.0], 2.5
        timing.RepetitionTime, timing.FlipAngle, timing.EchoTrainLength = 30, 15, 1
        echo.EffectiveEchoTime = te
        scale.RescaleSlope, scale.RescaleIntercept = (2, -4096) if part == 'phase' else (1, 0)
        scale.RescaleType = 'US'
        shared.PixelValueTransformationSequence = [scale]
        shared.PlaneOrientationSequence = [orientation]
        shared.PixelMeasuresSequence = [measures]
        shared.MRTimingAndRelatedParametersSequence = [timing]
        shared.MREchoSequence = [echo]
        return shared

    @staticmethod
    def _frame(z: int, part: str) -> pydicom.Dataset:
        """Return what is a frame's own."""
        position, content, kind, frame = (pydicom.Dataset() for _ in range(4))
        position.ImagePositionPatient = [-20.0, -18.0, 2.5 * z - 20]
        content.StackID, content.InStackPositionNumber = '1', z + 1
        content.DimensionIndexValues = [1, z + 1]
        content.FrameAcquisitionDateTime = '20230405101500.000000'
        kind.FrameType = ['ORIGINAL', 'PRIMARY', part[0].upper(), 'ND']
        kind.ComplexImageComponent = {'mag': 'MAGNITUDE', 'phase': 'PHASE'}[part]
        frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
        frame.MRImageFrameTypeSequence = [kind]
        return frame

    def _slice(self, pixels, z, number, uid, instance) -> FileDataset:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MR_IMAGE
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item = FileDataset('', {}, file_meta=meta, preamble=b'\0' * 128)
        item.SOPClassUID, item.SOPInstanceUID = MR_IMAGE, meta.MediaStorageSOPInstanceUID
        item.StudyInstanceUID, item.SeriesInstanceUID = self.study, uid
        item.FrameOfReferenceUID, item.Modality = self.frame, 'MR'
        item.PatientName, item.PatientID = 'Secret^Name', 'SECRET-ID'
        item.PatientBirthDate, item.PatientSex = '19700102', 'F'
        item.StudyDate = item.SeriesDate = item.AcquisitionDate = item.ContentDate = '20230405'
        item.StudyTime = item.SeriesTime = '100000'
        item.InstitutionName, item.StationName = 'Secret Hospital', 'SECRETSTATION'
        item.DeviceSerialNumber, item.OperatorsName = '987654', 'Secret^Operator'
        item.StudyDescription, item.ImageComments = 'Secret study', 'secret remark'
        item.ReferringPhysicianName, item.AccessionNumber = 'Secret^Doctor', 'SECRET1'
        item.Manufacturer, item.ManufacturerModelName = self.manufacturer, 'Model'
        item.SoftwareVersions = 'syngo MR E11' if 'SIEMENS' in self.manufacturer else '1'
        item.MagneticFieldStrength, item.ImagingFrequency = 3, 123.25
        item.ScanningSequence, item.SequenceVariant = 'GR', 'SP'
        item.SequenceName, item.MRAcquisitionType = '*fl3d3', '3D'
        item.ScanOptions, item.PatientPosition = '', 'HFS'
        item.RepetitionTime, item.FlipAngle, item.NumberOfAverages = 30, 15, 1
        item.PixelBandwidth, item.BodyPartExamined = 400, 'BRAIN'
        item.SeriesNumber, item.AcquisitionNumber, item.InstanceNumber = number, 1, instance
        item.Rows, item.Columns = pixels.shape
        item.PixelSpacing, item.SliceThickness = [2.0, 2.0], 2.5
        item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        item.ImagePositionPatient = [-20.0, -18.0, 2.5 * z - 20]
        item.SliceLocation = 2.5 * z - 20
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, 'MONOCHROME2'
        item.BitsAllocated, item.BitsStored, item.HighBit = 16, 16, 15
        item.PixelRepresentation = 1
        item.PixelData = np.ascontiguousarray(pixels, dtype='<i2').tobytes()
        return item

    def _mark(self, item: pydicom.Dataset, part: str) -> None:
        """Say which part an image is, as the vendor does."""
        if self.manufacturer.startswith('GE'):
            item.ImageType = ['ORIGINAL', 'PRIMARY', 'OTHER']
            block = item.private_block(0x0043, 'GEMS_PARM_01', create=True)
            block.add_new(0x2F, 'SS', GE_PARTS[part])
        elif self.manufacturer.startswith('Philips'):
            letter = {'mag': 'M', 'phase': 'P', 'real': 'R', 'imag': 'I'}[part]
            kind = 'PHASE MAP' if part == 'phase' else f'{letter}_FFE'
            item.ImageType = ['ORIGINAL', 'PRIMARY', kind, letter, 'FFE']
            if part == 'phase':
                item.RescaleSlope, item.RescaleIntercept = 6284 / 4095, -3142
                block = item.private_block(0x2005, 'Philips MR Imaging DD 001', create=True)
                block.add_new(0x0D, 'FL', 0.0)
                block.add_new(0x0E, 'FL', 651.74)  # stored units in one rad
        else:
            letter = {'mag': 'M', 'phase': 'P', 'real': 'R', 'imag': 'I'}[part]
            item.ImageType = ['ORIGINAL', 'PRIMARY', letter, 'ND']
            if part == 'phase':
                # dcm2niix does the same to phase without it
                item.RescaleSlope, item.RescaleIntercept = 2, -4096
