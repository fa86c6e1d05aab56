"""The OpenAPI document that the API serves is valid OpenAPI 3.1. Argument: the API's address."""

import json
import sys
from urllib.request import urlopen

from openapi_spec_validator import OpenAPIV31SpecValidator

with urlopen(sys.argv[1] + "/api/v1/openapi.json", timeout=30) as answer:
    document = json.load(answer)

version = document.get("openapi", "")
if not version.startswith("3.1."):
    sys.exit(f"openapi is {version!r}, not 3.1")

errors = list(OpenAPIV31SpecValidator(document).iter_errors())
for error in errors:
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in error.absolute_path)
    print("#/" + "/".join(steps) + ": " + error.message)
if errors:
    sys.exit(f"{len(errors)} errors in the OpenAPI document")

paths = document.get("paths", {})
if not paths:
    sys.exit("the OpenAPI document names no route")
print(f"OpenAPI {version}, {len(paths)} paths, valid")
