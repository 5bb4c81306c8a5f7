#!/usr/bin/env python3
"""Post one message to a Postern on this machine and print its answer, with Python's standard library only.

Usage: post.py DESTINATION KEY BODY. INGEST_URL names another Postern, INGEST_TOKEN its token if it wants one.
"""

import os
import sys
import time
import urllib.error
import urllib.request

ATTEMPTS = 6


def post(destination: str, key: str, body: bytes) -> str:
    """Return Postern's answer. While there is none, or one that asks to come again, do so: the key makes that safe,
    since the same key and body are one message."""
    url = os.environ.get("INGEST_URL", "http://127.0.0.1:8025") + "/to/" + destination
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    if token := os.environ.get("INGEST_TOKEN"):
        headers["Authorization"] = "Bearer " + token
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never by a proxy of the environment
    pause = 0.2
    for attempt in range(1, ATTEMPTS + 1):
        wait = pause
        try:
            request = urllib.request.Request(url, data=body, headers=headers, method="POST")
            with opener.open(request, timeout=30) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as refusal:
            detail = f"{refusal.code} {refusal.reason}: {refusal.read().decode(errors='replace')}"
            if refusal.code != 429 and refusal.code < 500:
                raise SystemExit(detail)  # the same again would get the same answer
            after = refusal.headers.get("Retry-After", "")
            if after.isdigit():
                wait = int(after)
        except OSError as failure:  # urllib.error.URLError, a timeout, a connection that broke
            detail = str(failure)
        if attempt < ATTEMPTS:
            time.sleep(wait)
            pause *= 2
    raise SystemExit(detail)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: post.py DESTINATION KEY BODY")
    print(post(sys.argv[1], sys.argv[2], sys.argv[3].encode()))
