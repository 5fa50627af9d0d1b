"""The registry: small transactional control state in SQLite or PostgreSQL. No telemetry goes here."""
