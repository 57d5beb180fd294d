"""Puts the real hookspecs.py and the plugin template into wheels; editable installs read both where they stand."""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Places(BuildHookInterface):
    def initialize(self, version, build_data):
        if version == "standard":
            build_data["force_include"]["hookspecs.py"] = "modelport/hookspecs.py"
            build_data["force_include"]["plugin_template"] = "modelport/core/plugins/template"
