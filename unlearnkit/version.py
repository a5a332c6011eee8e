"""The version of unlearnkit."""

__version__ = "0.2.0"
