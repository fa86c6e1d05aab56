"""What `deploy/` says holds: the Containerfile, the manifests and the units are well-formed, and name packages, programs and
settings that exist. No argument."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
# What the images of others read, and what the compose file hands on.
OF_OTHERS = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"}


def run(*command):
    subprocess.run([str(part) for part in command], check=True)


def settings():
    """Names of all settings; a secret may also come from a file."""
    names = re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.M)
    return set(names) | {f"{name}_FILE" for name in names} | {"RUST_LOG"}


def programs():
    """Names of the packages and of the programs of the workspace."""
    output = subprocess.run(
        ["cargo", "metadata", "--no-deps", "--format-version=1", "--locked"], cwd=ROOT, check=True, capture_output=True
    )
    packages = json.loads(output.stdout)["packages"]
    targets = [target["name"] for package in packages for target in package["targets"] if "bin" in target["kind"]]
    return {package["name"] for package in packages}, set(targets)


def known(names, all_names, where):
    unknown = set(names) - all_names
    assert not unknown, f"{where}: unknown {sorted(unknown)}"


packages, binaries = programs()
names = settings()

containerfile = (DEPLOY / "Containerfile").read_text()
known(re.findall(r" -p ([a-z-]+)", containerfile), packages, "Containerfile, packages")
known(re.findall(r"target/release/([a-z-]+)", containerfile), binaries, "Containerfile, programs")
known(re.findall(r"\b([A-Z_]{4,})=", containerfile), names, "Containerfile, settings")
# Versions of the system's packages are those of the image, which is fetched anew.
run(BIN / "hadolint", "--ignore", "DL3008", DEPLOY / "Containerfile")

compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
for service in compose["services"].values():
    known(service.get("environment", {}), names | OF_OTHERS, "compose.yaml, settings")
    known(service.get("command", [])[:1], binaries, "compose.yaml, programs")
    for volume in service.get("volumes", []):
        assert volume.split(":")[0] in compose["volumes"], volume
example = re.findall(r"^([A-Z_]+)=", (DEPLOY / "compose.env.example").read_text(), re.M)
used = re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text())
assert set(used) <= set(example), "compose.yaml reads what compose.env.example does not have"
# The rest of the file goes to the programs as it is.
known(set(example) - set(used), names, "compose.env.example")

manifests = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
listed = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())["resources"]
for path in manifests:
    for document in yaml.safe_load_all(path.read_text()):
        text = json.dumps(document)
        known(re.findall(r'"command": \["([a-z-]+)"', text), binaries | {"sleep"}, path.name)
        if document["kind"] in ("ConfigMap", "Secret"):
            known(document.get("data", document.get("stringData")), names, path.name)
for name in listed:
    assert (DEPLOY / "kubernetes" / name).is_file(), name
run(BIN / "kubernetes-validate", "--strict", *(path for path in manifests if path.name != "kustomization.yaml"))

units = sorted((DEPLOY / "systemd").glob("*.service"))
with tempfile.TemporaryDirectory() as folder:
    for path in units:
        text = path.read_text()
        known(re.findall(r"^ExecStart=/usr/local/bin/([a-z-]+)", text, re.M), binaries, path.name)
        for line in re.findall(r"^Environment=(.*)$", text, re.M):
            known(re.findall(r"([A-Z_]+)=", line), names, path.name)
        # The programs are not installed here; everything else is checked as it is.
        Path(folder, path.name).write_text(re.sub(r"/usr/local/bin/[a-z-]+", "/bin/true", text))
    if shutil.which("systemd-analyze"):
        run("systemd-analyze", "verify", *sorted(Path(folder).glob("*.service")))

for path in re.findall(r"\]\(\.\./(deploy/[^)]*)\)", (ROOT / "docs/operations.md").read_text()):
    assert (ROOT / path).exists(), path
print("deploy: everything it names exists")
