"""What the measuring scripts share: where things run, what a process costs, and where a table goes."""

import os, re, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PAGE = ROOT / "docs" / "BENCHMARKS.md"
# The server has a core of its own.
SERVER, LOAD = ["taskset", "-c", "0"], ["taskset", "-c", "1"]


def cpu(pid):
    """Seconds of CPU so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid):
    """Resident bytes."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def rate(url, seconds):
    """Requests per second, by wrk."""
    line = [*LOAD, "wrk", "-t", "1", "-c", "32", "-d", f"{seconds}s", url]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said:
        sys.exit(f"{Path(sys.argv[0]).name}: {url} is refused")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])


def built():
    if own := os.environ.get("WSEVENT_BIN"):
        return own
    subprocess.run(["cargo", "build", "--quiet", "--release"], cwd=ROOT, check=True)
    return TARGET / "release" / "wsevent"


def put_table(heading, table):
    """Puts the table at the end of its section of the page, in the place of the one before."""
    before, rest = PAGE.read_text().split(f"\n## {heading}\n")
    section, behind = rest.split("\n## ", 1)
    text = section.split("\n| ")[0].rstrip()
    PAGE.write_text(f"{before}\n## {heading}\n{text}\n\n" + "\n".join(table) + f"\n\n## {behind}")
