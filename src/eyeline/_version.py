"""The version of eyeline, which logs, records and requests carry."""

__version__ = "0.1.0"
