"""The Faust workers and the pure steps they are made of."""
