"""``python -m processors.validate``: run the worker."""

from processors.validate.agent import make_validate_app
from processors.worker import run_worker

if __name__ == "__main__":
    run_worker("validate", make_validate_app, lambda settings: settings.validate_metrics_port, needs_clickhouse=False)
