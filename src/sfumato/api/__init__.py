"""The HTTP side: one translator per dialect, each wire <-> core, with no logic of its own."""
