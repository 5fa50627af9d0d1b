"""Entry modules that are the product's own, but for one thing that goes wrong on purpose.

``CHAOS_DOES`` names what, separated by commas, and ``CHAOS_FOLDER`` the folder through which they talk with the
harness. They patch narrow seams of the product: the client of ClickHouse, the lease, a block, an acknowledgement.
"""
