"""Editing pictures beyond what a model does alone: whole folders of files."""

from csvae_hub.editing.files import FORMATS, Job, PlanError, edit_files, plan_files, save_picture

__all__ = ["FORMATS", "Job", "PlanError", "edit_files", "plan_files", "save_picture"]
