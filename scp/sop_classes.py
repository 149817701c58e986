"""The SOP classes and transfer syntaxes that are accepted (PS3.4 annex B.5, PS3.5 10).

All objects that can be in a study with MR images: a sender that is refused one of them may not send
the rest. Objects outside of studies, such as hanging protocols, are not accepted.
"""

from collections.abc import Collection, Mapping, Sequence

from pydicom.uid import DeflatedExplicitVRLittleEndian
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from lumbar.dicom.pixels import TRANSFER_SYNTAXES, UNCOMPRESSED
from lumbar.store.arrivals import IMAGE_CLASSES

# Of studies, too, but retired and unknown to pynetdicom; archives still hold such objects.
RETIRED_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.3",  # Ultrasound Multi-frame Image
    "1.2.840.10008.5.1.4.1.1.5",  # Nuclear Medicine Image
    "1.2.840.10008.5.1.4.1.1.6",  # Ultrasound Image
    "1.2.840.10008.5.1.4.1.1.8",  # Standalone Overlay
    "1.2.840.10008.5.1.4.1.1.9",  # Standalone Curve
    "1.2.840.10008.5.1.4.1.1.9.1",  # Waveform, trial
    "1.2.840.10008.5.1.4.1.1.10",  # Standalone Modality LUT
    "1.2.840.10008.5.1.4.1.1.11",  # Standalone VOI LUT
    "1.2.840.10008.5.1.4.1.1.12.3",  # X-Ray Angiographic Bi-Plane Image
    "1.2.840.10008.5.1.4.1.1.77.1",  # VL Image, trial
    "1.2.840.10008.5.1.4.1.1.77.2",  # VL Multi-frame Image, trial
    *(f"1.2.840.10008.5.1.4.1.1.88.{n}" for n in range(1, 5)),  # SR, trial
    "1.2.840.10008.5.1.4.1.1.129",  # Standalone PET Curve
    "1.2.840.10008.5.1.4.34.1",  # RT Beams Delivery Instruction, trial
    "1.2.840.10008.5.1.1.27",  # Stored Print
    *("1.2.840.10008.5.1.1.29", "1.2.840.10008.5.1.1.30"),  # Hardcopy, grayscale and colour
)
_KNOWN_CLASSES = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
OTHER_CLASSES = tuple(
    each for each in (*_KNOWN_CLASSES, *RETIRED_CLASSES) if each not in IMAGE_CLASSES
)

# All whose data sets are plain or have encapsulated pixels (PS3.5 A.1 to A.4, 10 and its retired
# parts), so that UIDs can be found. Not deflated data sets, and no references to a server.
ENCAPSULATED = (
    "1.2.840.10008.1.2.1.98",  # uncompressed
    *(f"1.2.840.10008.1.2.4.{n}" for n in (*range(50, 67), 70)),  # JPEG
    *("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"),  # JPEG-LS
    *(f"1.2.840.10008.1.2.4.{n}" for n in range(90, 94)),  # JPEG 2000
    *(f"1.2.840.10008.1.2.4.{n}" for n in range(100, 109)),  # MPEG-2, H.264, H.265
    *(f"1.2.840.10008.1.2.4.{n}.1" for n in range(100, 107)),  # the same, fragmentable
    *(f"1.2.840.10008.1.2.4.{n}" for n in range(110, 113)),  # JPEG XL
    *(f"1.2.840.10008.1.2.4.{n}" for n in range(201, 204)),  # High-Throughput JPEG 2000
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.8.1",  # deflated frames; the data set itself is not
)
OTHER_TRANSFER_SYNTAXES = (*map(str, UNCOMPRESSED), *ENCAPSULATED)


# A C-ECHO has no data set.
VERIFICATION_SYNTAXES = (*OTHER_TRANSFER_SYNTAXES[:3], DeflatedExplicitVRLittleEndian)


def accepted_syntaxes(extra_classes: Collection[str]) -> Mapping[str, Sequence[str]]:
    """The transfer syntaxes that are accepted for each class, in our order of preference, by UID.

    ``extra_classes`` are accepted like those that are not MR images.
    """
    others = (*extra_classes, *OTHER_CLASSES)
    return {
        **dict.fromkeys(others, OTHER_TRANSFER_SYNTAXES),
        **dict.fromkeys(map(str, IMAGE_CLASSES), tuple(map(str, TRANSFER_SYNTAXES))),
        str(Verification): VERIFICATION_SYNTAXES,
    }
