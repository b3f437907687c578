"""The diffusion engine: the only package that imports torch. It runs in a process of its own per device."""
