"""Categories about how a host is set up: kernel parameters and mandatory access control."""

from __future__ import annotations

from .kinds import HOSTS, ON_HOST, VERSIONS, Choice, Kind, each

KERNEL_PARAMS = Kind(
    category="kernel_params",
    rows=50,
    id="kernel_{param}_{hex8}",
    tags=("kernel", "security", "configuration"),
    draw={"host": HOSTS} | VERSIONS,
    one=(
        Choice(
            "the parameter is about comfort or speed",
            ("a standard tuning parameter", "a standard parameter for comfort"),
            each(
                "param", "numa_balancing", "core_uses_pid", "laptop_mode", "sched_autogroup_enabled", "tcp_timestamps"
            ),
        ),
        Choice(
            "the parameter guards the network stack",
            ("an unusual network parameter", "a parameter for unusual packets"),
            each("param", "rp_filter", "tcp_syncookies", "log_martians", "icmp_echo_ignore_broadcasts"),
        ),
        Choice(
            "the parameter keeps exploits out of the kernel",
            ("a parameter dangerous to get wrong", "a barrier against dangerous exploits"),
            each("param", "kptr_restrict", "randomize_va_space", "unprivileged_bpf_disabled", "ptrace_scope"),
        ),
    ),
    two=(
        Choice(
            "it is set as it should be",
            ("set as expected", "at the expected value"),
            ({"current": "1", "desired": "1", "status": "ok"}, {"current": "2", "desired": "2", "status": "ok"}),
        ),
        Choice(
            "it is weaker than it should be",
            ("at a doubtful value", "in a doubtful half-way state"),
            ({"current": "1", "desired": "2", "status": "mismatch"},),
        ),
        Choice(
            "it is off",
            ("confirmed to be off", "off, as two reads confirmed"),
            (
                {"current": "0", "desired": "1", "status": "mismatch"},
                {"current": "0", "desired": "2", "status": "mismatch"},
            ),
        ),
    ),
    grid=("iil", "lmh", "mhc"),
    titles=("{param}", "Kernel parameter", "sysctl {param}", "sysctl check on {host}"),
    descriptions=(
        "{param} on {host} is {one}, {two}.",
        "The profile of {host} has {one}; it is {two}.",
        "{host}: {one}, {two}.",
        "{param} is {one}: {current} where {desired} is wanted.",
    ),
    metadata=("current", "desired", "status"),
    then={},
    aside=ON_HOST,
)

MAC = Kind(
    category="mac",
    rows=25,
    id="mac_{system}_{hex8}",
    tags=("mac", "security"),
    draw={
        "host": HOSTS,
        "count": range(20, 500),
        "few": range(2, 30),
        "system": ("apparmor", "selinux", "tomoyo", "grsecurity"),
    }
    | VERSIONS,
    one=(
        Choice(
            "the host is not expected to have it",
            ("a standard scratch machine", "a standard test machine"),
            ({"apparmor_expected": "false", "selinux_expected": "false"},),
        ),
        Choice(
            "the host should have it but is reachable from inside only",
            ("an unusual internal server", "a server in an unusual place"),
            ({"apparmor_expected": "true", "selinux_expected": "false"},),
        ),
        Choice(
            "the host should have it and faces the internet",
            ("a gateway in a dangerous place", "a machine facing dangerous networks"),
            ({"apparmor_expected": "true", "selinux_expected": "true"},),
        ),
    ),
    two=(
        Choice(
            "it enforces its policy",
            ("enforcing as expected", "in force as expected"),
            ({"present": "true", "enabled": "true", "mode_line": "Y", "complain_count": "0"},),
        ),
        Choice(
            "it only logs",
            ("in a doubtful complain mode", "only logging, which is doubtful"),
            ({"present": "true", "enabled": "true", "complain_count": "{few}", "profiles_seen": "{count}"},),
        ),
        Choice(
            "it is off or absent",
            ("confirmed to be off", "not loaded, a confirmed gap"),
            ({"present": "true", "enabled": "false", "mode_line": "N"}, {"present": "false", "enabled": "false"}),
        ),
    ),
    grid=("iil", "lmh", "mhc"),
    titles=("{system} status", "Access control on {host}", "{system} on {host}"),
    descriptions=(
        "{system} is {two} on {host}, {one}.",
        "On {host}, {one}, {system} is {two}.",
        "{host} is {one}; {system} was checked.",
    ),
    metadata=(
        "present",
        "enabled",
        "mode_line",
        "complain_count",
        "profiles_seen",
        "apparmor_expected",
        "selinux_expected",
    ),
    then={},
    aside=ON_HOST,
)

SETTINGS = (KERNEL_PARAMS, MAC)
