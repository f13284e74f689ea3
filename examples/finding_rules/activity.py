"""Categories about what runs and who is connected: processes, network."""

from __future__ import annotations

from .kinds import DISTRO, EXECUTION, HOSTS, KERNEL, USERS, VERSIONS, Choice, Kind, each

PROCESSES = Kind(
    category="processes",
    rows=90,
    id="proc_{pid}_{n}",
    tags=("processes",),
    draw={
        "pid": range(300, 32000),
        "ppid": (1, 1, 2, 412, 977),
        "host": HOSTS,
        "login": USERS,
        "state": ("S (sleeping)", "R (running)", "I (idle)"),
        "user": "{login}",
    }
    | VERSIONS,
    one=(
        Choice(
            "the program belongs to an installed package",
            ("a standard program", "a standard packaged program"),
            each(
                "command",
                "/usr/sbin/nginx",
                "/usr/sbin/sshd -D",
                "/usr/bin/dockerd",
                "/usr/sbin/cron -f",
            ),
        ),
        Choice(
            "no package owns the program",
            ("an unusual program", "an unusual program that no package owns"),
            each(
                "command",
                "/opt/vendor/agentd",
                "/usr/local/bin/backup.sh",
                "/srv/build/runner --once",
                "/home/{login}/bin/sync-agent",
            ),
        ),
        Choice(
            "the program runs from a hidden scratch folder that anybody can write to",
            ("a dangerous program in a scratch folder", "a dangerous hidden program"),
            (
                {"command": "/tmp/.x/kworkerd", "world_writable_executable": True},
                {"command": "/dev/shm/.cache/xmrig", "pattern_match": True},
                {"command": "/var/tmp/.font/sshd", "world_writable_executable": True},
                {"command": "/tmp/.ICE/update -d", "pattern_match": True},
            ),
        ),
    ),
    two=(
        Choice(
            "it runs as an ordinary account",
            ("its account is as expected", "it has ordinary rights, as expected"),
            ({"deleted_executable": False},),
        ),
        Choice(
            "it runs as root",
            ("it is doubtful why root runs it", "that root runs it is doubtful"),
            ({"user": "root", "deleted_executable": False},),
        ),
        Choice(
            "its file was deleted after the start",
            ("its file was deleted, a confirmed sign of hiding", "its file is confirmed to be gone"),
            ({"deleted_executable": True}, {"deleted_executable": True, "user": "www-data"}),
        ),
    ),
    grid=("ilm", "lmh", "mhc"),
    titles=(
        "Process {pid} on {host}",
        "Running process",
        "Process under review: {command}",
        "New entry in process table",
    ),
    descriptions=(
        "{host} runs {one}; {two}.",
        "Seen on {host}: {one}, and {two}.",
        "PID {pid} is {one}; {two}.",
        "The process table of {host} lists {one}, {two}.",
        "{command} is active on {host}; {two}.",
    ),
    metadata=(
        "pid",
        "command",
        "user",
        "state",
        "ppid",
        "pattern_match",
        "deleted_executable",
        "world_writable_executable",
    ),
    then={},
    aside=(
        *DISTRO,
        {"kernel_version": KERNEL},
        {"kb_refs": [EXECUTION]},
        {"distro_variant": ("lts", "rolling", "workstation")},
        {"init_system": ("systemd", "openrc")},
        {"selinux_enforcing": ("true", "false")},
        {"apparmor": ("true", "false")},
    ),
)

NETWORK = Kind(
    category="network",
    rows=80,
    id="net_{port}_{n}",
    tags=("network",),
    draw={
        "host": HOSTS,
        "octet": range(2, 250),
        "far": range(20000, 60000),
        "protocol": ("tcp", "tcp", "tcp6", "udp", "udp6"),
    },
    one=(
        Choice(
            "the port belongs to a common service",
            ("a standard port", "a standard service port"),
            (
                {"port": 443, "process": "nginx"},
                {"port": 80, "process": "nginx"},
                {"port": 22, "process": "sshd"},
                {"port": 3306, "process": "mysqld"},
                {"port": 53, "process": None},
            ),
        ),
        Choice(
            "the port is for remote control and is not in the inventory",
            ("an unusual port", "an unusual remote-control port"),
            (
                {"port": 3389, "process": "xrdp"},
                {"port": 5900, "process": "x11vnc"},
                {"port": 23, "process": "telnetd"},
            ),
        ),
        Choice(
            "the port is a favourite of backdoors",
            ("a dangerous port", "a dangerous backdoor port"),
            (
                {"port": 4444, "process": "nc -l 4444"},
                {"port": 31337, "process": "/tmp/.bd"},
                {"port": 1337, "process": "ncat -e"},
                {"port": 4444, "process": None},
            ),
        ),
    ),
    two=(
        Choice(
            "nobody is connected, as expected",
            ("it only listens, as expected", "nobody is connected, as expected"),
            ({"state": "LISTEN", "foreign_address": "0.0.0.0:0"},),
        ),
        Choice(
            "the peer is inside the network",
            ("its peer is internal, as expected", "a private address is connected, as expected"),
            ({"state": "ESTABLISHED", "foreign_address": "10.0.{octet}.7:{far}", "malicious_ip": False},),
        ),
        Choice(
            "the peer is on a block list",
            ("the peer is doubtful: it is on a block list", "a doubtful peer is connected"),
            ({"state": "ESTABLISHED", "foreign_address": "185.220.101.{octet}:{far}", "malicious_ip": True},),
        ),
        Choice(
            "the traffic beacons to a control server",
            ("beacons to a control server are confirmed", "it calls home, a confirmed beacon"),
            (
                {
                    "state": "ESTABLISHED",
                    "malicious_ip": True,
                    "c2_indicator": True,
                    "c2_host": "c2-{octet}.evilcdn.net",
                },
                {"state": "ESTABLISHED", "c2_indicator": True, "exfil_destination": "paste.drop{octet}.io"},
            ),
        ),
    ),
    grid=("iilh", "llmh", "mmhc"),
    titles=(
        "Socket on port {port}",
        "Open {protocol} socket on {host}",
        "Network endpoint",
        "Port {port} in use on {host}",
    ),
    descriptions=(
        "{host} uses {one}; {two}.",
        "Socket scan of {host}: {one}; {two}.",
        "Port {port}/{protocol} is {one}, and {two}.",
        "A socket on {host} is bound to {one}: {two}.",
        "On {host} port {port} is open; {two}.",
    ),
    metadata=(
        "port",
        "protocol",
        "state",
        "local_address",
        "foreign_address",
        "process",
        "malicious_ip",
        "c2_indicator",
        "c2_host",
        "exfil_destination",
    ),
    then={"local_address": "10.0.0.{octet}:{port}"},
    aside=(
        {"inode": range(10000, 900000)},
        {"asn": (13335, 16509, 9009, 14061)},
        {"geo": ("DE", "US", "BR", "NL")},
        {"sni": ("vault.service", "k8s.cluster.local", "telemetry.example.com")},
        {"ja3": ("771,4865-4866,0-23,29,0", "769,4865-49195,0-10-11,23,0")},
        {"kb_refs": ["MITRE ATT&CK: TA0011"]},
    ),
)

ACTIVITY = (PROCESSES, NETWORK)
