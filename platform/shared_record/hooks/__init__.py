"""The plugin system: hook specifications and the loader."""
