"""The kinds of output that are made of a result, and sent."""

from enum import StrEnum


class Output(StrEnum):
    """A kind of output, as it is named in the rules of a destination."""

    SR = "sr"  # Comprehensive 3D SR (TID 1500)
    SENTENCES = "sentences"  # Enhanced SR of ready sentences
    PICTURE = "picture"  # RGB Secondary Capture
    KEY_OBJECTS = "kos"  # Key Object Selection: the slices of severe and moderate findings
    MARKS = "gsps"  # Grayscale Softcopy Presentation States: the marks on those slices
    PDF = "pdf"  # Encapsulated PDF
    ORU = "oru"  # HL7 v2.5.1 ORU^R01
    FHIR = "fhir"  # FHIR R4B transaction Bundle
    JSON = "json"  # the result as JSON, for a webhook

    @property
    def is_dicom(self) -> bool:
        """Whether it is a DICOM object; the others are messages."""
        return self not in (Output.ORU, Output.FHIR, Output.JSON)
