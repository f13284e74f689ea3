"""Categories about who does what: the behaviour of users, and stages of an attack."""

from __future__ import annotations

from .kinds import HOSTS, ON_HOST, USERS, VERSIONS, Choice, Kind, each

ADMINS = ("it_admin", "sre")
STAFF = ("finance", "sales", "contractor", "developer")
USUAL = ("baseline_pattern", "maintenance_window")
ODD = ("rare_binary", "sensitive_resource", "new_location", "after_hours_activity")

ENDPOINT = Kind(
    category="endpoint_behavior",
    rows=70,
    id="endpoint_behavior_{n}_{user}",
    tags=("endpoint_behavior",),
    draw={
        "number": range(1000, 1099),
        "user": "user{number}",
        "host": HOSTS,
        "minute": range(10, 59),
        "sequence_length": range(1, 9),
        "time_delta_minutes": range(2, 340),
    }
    | VERSIONS,
    one=(
        Choice(
            "the activity is routine",
            ("a standard activity", "a standard routine"),
            each("activity", "login", "file_access", "print_job"),
        ),
        Choice(
            "the activity changes files or starts programs",
            ("an unusual activity", "an unusual change of the machine"),
            each("activity", "process_spawn", "file_modification", "package_install"),
        ),
        Choice(
            "the activity takes rights or moves data out",
            ("a dangerous activity", "a dangerous grab for rights or data"),
            each("activity", "privilege_escalation", "bulk_upload", "credential_dump"),
        ),
    ),
    two=(
        Choice(
            "an administrator does it as usual",
            ("as expected of an administrator", "expected of this account"),
            ({"role": ADMINS, "context": USUAL},),
        ),
        Choice(
            "an employee follows habit",
            ("as expected of this employee", "a habit of this account, as expected"),
            ({"role": STAFF, "context": USUAL},),
        ),
        Choice(
            "an administrator does it in an unusual setting",
            ("doubtful even for an administrator", "in a doubtful setting"),
            ({"role": ADMINS, "context": ODD},),
        ),
        Choice(
            "an employee does it in an unusual setting",
            ("confirmed to be out of character", "with a confirmed break from habit"),
            ({"role": STAFF, "context": ODD},),
        ),
    ),
    grid=("iilm", "llmh", "mmhc"),
    titles=("Activity of {user}", "{activity} on {host}", "Behaviour of {user} ({role})", "Session review"),
    descriptions=(
        "{user} on {host}: {one}, {two}.",
        "{host} saw {one} by {user}, {two}.",
        "Step {sequence_length} of a session is {one}, {two}.",
        "Recorded for a {role} account: {one}, {two}.",
        "Recorded for {user} on {host}: {one}.",
    ),
    metadata=("user", "role", "activity", "host", "sequence_length", "time_delta_minutes", "context"),
    then={},
    aside=(*ON_HOST, {"timestamp": "2025-01-01T11:{minute}"}),
)

CONTEXT = Kind(
    category="context",
    rows=35,
    id="ctx_{hex8}",
    tags=("context",),
    draw={
        "hostname": HOSTS,
        "login": USERS,
        "segment": ("corp", "dmz", "lab"),
        "window": ("night", "office_hours", "weekend"),
    },
    one=(
        Choice(
            "the stage is an early one",
            ("a standard first step", "a standard early stage"),
            (
                {"stage": "reconnaissance", "indicator": ("port_scan", "dns_walk"), "chain": "web_intrusion"},
                {"stage": "initial_access", "indicator": ("phishing_link", "odd_login"), "chain": "mail_intrusion"},
            ),
        ),
        Choice(
            "the stage widens a foothold",
            ("an unusual move", "an unusual widening of a foothold"),
            (
                {"stage": "lateral_movement", "indicator": ("ssh_hop", "pass_the_hash"), "chain": "mail_intrusion"},
                {
                    "stage": "privilege_escalation",
                    "indicator": ("odd_suid", "kernel_exploit"),
                    "chain": "root_takeover",
                },
            ),
        ),
        Choice(
            "the stage does lasting damage",
            ("a dangerous last stage", "a dangerous goal"),
            (
                {"stage": "exfiltration", "indicator": ("bulk_upload", "dns_tunnel"), "chain": "data_theft"},
                {"stage": "impact", "indicator": ("mass_encryption", "wiped_backups"), "chain": "ransomware"},
            ),
        ),
    ),
    two=(
        Choice(
            "the scenario is a planned exercise",
            ("as expected of an exercise", "planned, as expected"),
            each("scenario", "exercise", "benign"),
        ),
        Choice(
            "nobody explained the scenario",
            ("a doubtful scenario", "doubtful and not explained"),
            each("scenario", "suspicious", "unexplained"),
        ),
        Choice(
            "the scenario is hostile",
            ("a confirmed attack", "confirmed as hostile"),
            each("scenario", "malicious", "intrusion"),
        ),
    ),
    grid=("ilm", "lmh", "mhc"),
    titles=("Stage {stage}", "Attack chain on {hostname}", "{indicator} in context", "Chain {chain}"),
    descriptions=(
        "{indicator} on {hostname} is {one}: {two}.",
        "{hostname} shows {one}; {two}.",
        "{login} on the {segment} segment: {one}, {two}.",
        "During {stage} {indicator} came up: {two}.",
    ),
    metadata=("attack_chain", "stage", "indicator", "environment", "scenario"),
    then={
        "attack_chain": {"name": "{chain}", "stages": ["{stage}"], "indicators": ["{indicator}"]},
        "environment": {
            "host": "{hostname}",
            "user": "{login}",
            "network_segment": "{segment}",
            "time_window": "{window}",
        },
    },
    aside=({}, {"kb_refs": ["CIS: least privilege"]}),
)

BEHAVIOR = (ENDPOINT, CONTEXT)
