"""What anybody would write first: `requests` and `json`, page after page, and nothing is kept.

It imports nothing else, so that it is as fast as it would be at home. ``python -m benchmarks.plain
PORT`` prints what it measured as JSON, as `benchmarks.pulling` does.
"""

import json
import resource
import sys
import time

import requests


def loop(port: int) -> int:
    """Count the rows of all pages."""
    rows, path = 0, "/rows"
    with requests.Session() as session:
        while path:
            page = session.get(f"http://127.0.0.1:{port}{path}", timeout=60).json()
            for _ in page["data"]:
                rows += 1
            path = page["next"]
    return rows


if __name__ == "__main__":
    began = time.perf_counter()
    rows = loop(int(sys.argv[1]))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"rows": rows, "seconds": seconds, "bytes": peak * 1024}))
