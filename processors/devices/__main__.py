"""``python -m processors.devices``: run the worker."""

from processors.devices.agent import make_devices_app
from processors.worker import run_worker

if __name__ == "__main__":
    run_worker("devices", make_devices_app, lambda settings: settings.devices_metrics_port)
