"""Datasets, licences to download them, and revisions of their days. All calls block, but those of ``access``."""
