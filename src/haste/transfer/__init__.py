"""Finished runs carried from one machine to another in a zip, contents and digests checked."""
