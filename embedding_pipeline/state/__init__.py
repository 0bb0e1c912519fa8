"""The shared store: schema, migrations and transactions. What several processes touch."""
