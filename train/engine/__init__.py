"""The machine that trains: stages, pipelines, devices, work directories. It knows no method."""
