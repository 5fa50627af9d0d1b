"""``midstream check``: each subject has a module, which asks; what is found is judged by pure functions."""
