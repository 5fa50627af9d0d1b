"""What learning platforms call: records of assignments are written here, read and reported."""
