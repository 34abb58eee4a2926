"""The ground floor: devices, files, walks over many images, the console, checks, statistics. It imports nothing of ours."""

__version__ = "0.2.0"
