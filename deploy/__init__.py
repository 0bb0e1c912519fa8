"""Running the pipeline on servers: configuration files, and a cluster on one machine."""
