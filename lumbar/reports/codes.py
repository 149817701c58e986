"""The coded concepts of a report (PS3.16), with private codes where there is no standard one.

"Normal/Mild" is one class of three: coding it as SNOMED's Mild would claim more than was graded.
"""

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept

from lumbar.spine.anatomy import Condition, Level, Severity, Side

PRIVATE_SCHEME = "99LUMBARTRIAGE"


def private_scheme() -> CodingSchemeIdentificationItem:
    """Declares the private codes, for Coding Scheme Identification Sequence (0008,0110)."""
    return CodingSchemeIdentificationItem(
        designator=PRIVATE_SCHEME,
        name="lumbar-triage private codes",
        responsible_organization="lumbar-triage",
    )


def _sct(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, "SCT", meaning)


def _dcm(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, "DCM", meaning)


def _private(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, PRIVATE_SCHEME, meaning)


_FORAMINAL = _private("FORAMINAL", "Neural foraminal narrowing")
_SUBARTICULAR = _private("SUBARTICULAR", "Subarticular stenosis")

CONDITIONS = {
    Condition.LEFT_NEURAL_FORAMINAL_NARROWING: _FORAMINAL,
    Condition.LEFT_SUBARTICULAR_STENOSIS: _SUBARTICULAR,
    Condition.RIGHT_NEURAL_FORAMINAL_NARROWING: _FORAMINAL,
    Condition.RIGHT_SUBARTICULAR_STENOSIS: _SUBARTICULAR,
    Condition.SPINAL_CANAL_STENOSIS: _sct("76107001", "Spinal stenosis"),
}

LEVELS = {
    Level.L1_L2: _sct("243920003", "Level of L1/L2 intervertebral disc"),
    Level.L2_L3: _sct("243921004", "Level of L2/L3 intervertebral disc"),
    Level.L3_L4: _sct("243922006", "Level of L3/L4 intervertebral disc"),
    Level.L4_L5: _sct("243923001", "Level of L4/L5 intervertebral disc"),
    Level.L5_S1: _sct("243927000", "Level of L5/S1 intervertebral disc"),
}

SIDES = {Side.LEFT: _sct("7771000", "Left"), Side.RIGHT: _sct("24028007", "Right")}

SEVERITY = _sct("246112005", "Severity")
SEVERITIES = {
    Severity.NORMAL_MILD: _private("NORMAL_MILD", "Normal/Mild"),
    Severity.MODERATE: _sct("6736007", "Moderate"),
    Severity.SEVERE: _sct("24484000", "Severe"),
}

PROBABILITIES = {
    Severity.NORMAL_MILD: _private("P_NORMAL_MILD", "Probability of Normal/Mild"),
    Severity.MODERATE: _private("P_MODERATE", "Probability of Moderate"),
    Severity.SEVERE: _private("P_SEVERE", "Probability of Severe"),
}
VIEW_PROBABILITY = _private("P_VIEW", "Probability that the image shows the condition's view")
PERCENT = CodedConcept("%", "UCUM", "percent")

COMMENT = _dcm("121106", "Comment")
ARTIFICIAL_INTELLIGENCE = _dcm("123110", "Artificial Intelligence")
PROCESSING_EQUIPMENT = _dcm("109102", "Processing Equipment")
PROCEDURE_REPORTED = CodedConcept("25056-3", "LN", "MRI unspecified body region")
PROCEDURE_PERFORMED = CodedConcept("24968-0", "LN", "MR Lumbar spine")
