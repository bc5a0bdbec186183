"""Agents ready to deploy: each file is one template, ``crafts`` holds the work they do."""
