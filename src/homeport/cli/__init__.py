"""The commands a person types, and the plugin executables a runtime starts."""
