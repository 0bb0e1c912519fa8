"""The graph as Dagster sees it: real runs on a real instance, against the fake API."""
