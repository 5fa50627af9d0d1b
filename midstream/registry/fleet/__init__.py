"""The fleet's control state: models, devices, and what they fetch. All calls block: async code runs them in a
thread."""
