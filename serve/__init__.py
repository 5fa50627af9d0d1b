"""The read and control side: one API over what the pipeline stored."""
