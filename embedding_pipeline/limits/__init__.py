"""One rate limit for all processes, projects and priorities: buckets, shares, stores."""
