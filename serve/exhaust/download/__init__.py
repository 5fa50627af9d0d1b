"""Downloads: days in a zip, whole or in part."""
