"""What every test run knows: hypothesis profiles."""

from hypothesis import HealthCheck, settings

# Wall time says nothing on a machine that others use too.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

# --hypothesis-profile=deep: for hours on one's own machine, not for every change.
settings.register_profile(
    "deep",
    max_examples=5_000,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
