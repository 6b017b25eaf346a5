"""The version of Endocarp, in one place."""

VERSION = "0.1.0"
