"""An entry on disk: its manifest, its archive, its journal, and what can be wrong with it."""
