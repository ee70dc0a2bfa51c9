"""Editing photos: find the faces, align, edit and put back; and whole folders of files."""

from csvae_hub.editing.detection import Detector, Face, YuNet
from csvae_hub.editing.editor import EncodedPhoto, FaceEditor, UnchangedWarning
from csvae_hub.editing.files import FORMATS, Job, Outcome, PlanError, edit_files, left_out, plan_files, save_picture
from csvae_hub.editing.provenance import Signer, read_manifest
from csvae_hub.editing.xmp import read_mark

__all__ = [
    "FORMATS",
    "Detector",
    "Face",
    "FaceEditor",
    "Job",
    "EncodedPhoto",
    "Outcome",
    "PlanError",
    "Signer",
    "UnchangedWarning",
    "YuNet",
    "edit_files",
    "left_out",
    "plan_files",
    "read_manifest",
    "read_mark",
    "save_picture",
]
