"""A slice header to vary: sagittal T2, 320 × 320 mm in the usual hanging."""

from lumbar.spine.slices import SliceHeader

SLICE = SliceHeader(
    study_instance_uid="1.2",
    series_instance_uid="1.2.1",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
    sop_instance_uid="1.2.1.1",
    frame=None,
    frame_of_reference_uid="1.2.9",
    instance_number=1,
    rows=320,
    columns=320,
    position=(0.0, -140.0, 140.0),
    orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    spacing=(1.0, 1.0),
    thickness=4.0,
    repetition_time=3500.0,
    echo_time=100.0,
    inversion_time=None,
    scanning_sequence=("SE",),
    image_type=("ORIGINAL", "PRIMARY", "M"),
    scan_options=(),
    contrast_agent=False,
)
