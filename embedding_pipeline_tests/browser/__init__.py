"""What a person sees: the real Dagster UI and our report, in a real browser without a screen."""
