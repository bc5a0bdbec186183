"""``python -m api.http``: write the OpenAPI document of the gateway to standard output."""

import sys

from api.http.app import write_openapi

if __name__ == "__main__":
    sys.stdout.buffer.write(write_openapi())
