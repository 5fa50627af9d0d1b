"""``python -m deploy.grafana``: write every dashboard into ``deploy/grafana/dashboards``."""

from __future__ import annotations

from deploy.grafana.files import DASHBOARDS, files

if __name__ == "__main__":
    for name, text in files().items():
        (DASHBOARDS / name).write_text(text, "utf-8")
