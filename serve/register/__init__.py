"""Devices register: apps say what a device is and where its user says it is, and read where it is thought to be."""
