"""Prometheus can read what /metrics answers. Argument: the API's address."""

import sys
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

with urlopen(sys.argv[1] + "/metrics", timeout=30) as answer:
    text = answer.read().decode("utf-8")

families = list(text_string_to_metric_families(text))
names = [family.name for family in families]
if len(set(names)) != len(names):
    sys.exit("a metric family is exposed twice")
own = [family for family in families if family.name.startswith("podium_")]
if not own:
    sys.exit("no metric is named podium_…")
untyped = [family.name for family in own if family.type == "unknown" or not family.documentation]
if untyped:
    sys.exit(f"without type or help: {', '.join(untyped)}")
print(f"{len(own)} metric families of podium")
