"""The types that every part of ChatFlow shares: the custom resource, the runtime's configuration, names."""
