"""How Midstream runs: on one machine, in containers, in a cluster."""
