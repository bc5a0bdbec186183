"""Every way in: gateway, dashboard, command line, workers."""
