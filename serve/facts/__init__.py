"""What everything stands on, measured at an interval: Kafka, ClickHouse, the registry, disks and certificates.

The process ``jobs`` does it. Every deployment has one, it goes on while any of the three is away, and it is not on the
way of an event. Where several run, all of them measure, and say the same.
"""
