"""Deployments: the cluster of ``deploy``, and the files for containers."""
