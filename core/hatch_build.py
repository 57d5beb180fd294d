"""Puts the real hookspecs.py into wheels; editable installs follow the tracked link."""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Hookspecs(BuildHookInterface):
    def initialize(self, version, build_data):
        if version == "standard":
            build_data["force_include"]["hookspecs.py"] = "modelport/hookspecs.py"
