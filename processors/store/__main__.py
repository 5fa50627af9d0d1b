"""``python -m processors.store``: run the worker."""

from processors.store.agent import make_store_app
from processors.worker import run_worker

if __name__ == "__main__":
    run_worker("store", make_store_app, lambda settings: settings.store_metrics_port)
