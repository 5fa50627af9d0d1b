"""Grafana's dashboards, as code: ``python -m deploy.grafana`` writes them as JSON beside this file.

``queries`` (PromQL from the metrics' own declarations) -> ``panels`` (one drawing each) -> ``overview``, ``collector``,
``workers``, ``clickhouse``, ``devices``, ``exhaust`` (what each shows) -> ``board`` (laid out, linked) -> JSON.
"""
