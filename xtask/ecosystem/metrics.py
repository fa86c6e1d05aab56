"""Prometheus' own parser and checker take /metrics, and the agreed names are there. Argument: the API's address."""

import json
import os
import subprocess
import sys
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

base = sys.argv[1]
body = json.dumps({"user_id": "u"}).encode()
headers = {"Content-Type": "application/json"}
urlopen(Request(base + "/api/v1/experiments/assign", body, headers), timeout=30).read()

with urlopen(base + "/metrics", timeout=30) as answer:
    text = answer.read().decode()
families = {family.name: family for family in text_string_to_metric_families(text)}

# Families that have a sample in a fresh installation; the parser takes `_total` off the names of counters.
expected = """
podium_build_info podium_http_request_duration_seconds podium_evaluations podium_events_ingested podium_event_queue_depth
podium_event_lag_seconds podium_promotions_active podium_db_pool_connections podium_db_up
process_cpu_seconds process_resident_memory_bytes process_start_time_seconds process_open_fds
""".split()
missing = [name for name in expected if name not in families]
if missing:
    sys.exit(f"missing: {', '.join(missing)}")

check = subprocess.run([os.environ["PROMTOOL"], "check", "metrics"], input=text, text=True, capture_output=True)
print(check.stdout + check.stderr, end="")
if check.returncode != 0:
    sys.exit("promtool finds fault with /metrics")
print(f"{len(families)} families, well formed")
