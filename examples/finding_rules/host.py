"""Categories about the files and modules of a host: SUID programs, world-writable paths, kernel modules."""

from __future__ import annotations

from .kinds import HOSTS, ON_HOST, USERS, VERSIONS, Choice, Kind, each

MODULES = Kind(
    category="modules",
    rows=45,
    id="module_{module}_{hex8}",
    tags=("kernel", "module"),
    draw={"host": HOSTS, "size": range(12, 900)} | VERSIONS,
    one=(
        Choice(
            "the module drives common hardware or a file system",
            ("a standard module", "a standard driver"),
            each("module", "ext4", "xfs", "nf_tables", "snd_hda_intel"),
        ),
        Choice(
            "the module opens a rarely needed interface",
            ("an unusual module", "an unusual protocol or bus"),
            each("module", "dccp", "sctp", "usb_storage", "cramfs"),
        ),
        Choice(
            "the module bears the name of a rootkit",
            ("a dangerous module", "a dangerous name from the rootkit list"),
            each("module", "diamorphine", "reptile", "suterusu", "adore_ng"),
        ),
    ),
    two=(
        Choice("it is signed and in tree", ("signed as expected", "with the expected signature")),
        Choice("it has no signature", ("of doubtful origin, without a signature", "doubtful because it is unsigned")),
        Choice(
            "it was loaded from a scratch folder",
            ("loaded from /tmp by a confirmed intruder", "with a confirmed load from /dev/shm"),
        ),
    ),
    grid=("ilm", "lmh", "mhc"),
    titles=("Module {module}", "Loaded kernel module", "Kernel module on {host}", "Module list entry"),
    descriptions=(
        "{host} has loaded {one}, {two}.",
        "{module} is {one}, {two}.",
        "The kernel of {host} lists {one}, {two}.",
        "{module} ({size} KiB) is {two}.",
    ),
    metadata=("module",),
    then={},
    aside=ON_HOST,
)

SUID = Kind(
    category="suid",
    rows=40,
    id="suid_{hex8}",
    tags=("filesystem", "permissions", "suid"),
    draw={"host": HOSTS, "login": USERS, "days": range(40, 900)} | VERSIONS,
    one=(
        Choice(
            "the program is meant to have the bit",
            ("a standard program", "a standard SUID program"),
            each("path", "/usr/bin/passwd", "/usr/bin/sudo", "/usr/bin/chsh", "/usr/bin/mount"),
        ),
        Choice(
            "the program can start a shell for its caller",
            ("an unusual program that can start a shell", "an unusual interpreter or editor"),
            each("path", "/usr/bin/python3", "/usr/bin/vim", "/usr/bin/find", "/usr/bin/nmap"),
        ),
        Choice(
            "the program lies in a scratch or home folder",
            ("a dangerous program in a scratch folder", "a dangerous hidden copy"),
            each("path", "/tmp/.sh", "/dev/shm/su", "/home/{login}/.rootsh", "/var/tmp/.bash"),
        ),
    ),
    two=(
        Choice(
            "the baseline expects it",
            ("expected by the baseline", "unchanged for {days} days, as expected"),
            ({"expected": "true"},),
        ),
        Choice(
            "the baseline does not know it",
            ("doubtful because the baseline lacks it", "of doubtful origin"),
            ({"expected": "false"},),
        ),
        Choice(
            "the bit was set today",
            ("with a confirmed change today", "changed this hour by a confirmed intruder"),
            ({"expected": "false"},),
        ),
    ),
    grid=("ilm", "lmh", "mhc"),
    titles=("SUID file on {host}", "{path} has the SUID bit", "Program with SUID bit", "Set-user-ID scan"),
    descriptions=(
        "{host} holds {one}, {two}.",
        "The owner's rights go to {one}, {two}.",
        "The scan of {host} found {one}, {two}.",
        "{path} has the bit, {two}.",
    ),
    metadata=("expected", "path"),
    then={},
    aside=ON_HOST,
)

WORLD_WRITABLE = Kind(
    category="world_writable",
    rows=20,
    id="world_writable_{hex8}",
    tags=("filesystem", "permissions"),
    draw={"host": HOSTS} | VERSIONS,
    one=(
        Choice(
            "the path is meant to be shared",
            ("a standard shared folder", "a standard scratch folder"),
            each("path", "/tmp", "/var/tmp", "/dev/shm", "/run/lock"),
        ),
        Choice(
            "the path belongs to an application",
            ("an unusual folder of a service", "an unusual path under /srv or /opt"),
            each("path", "/srv/www/uploads", "/opt/app/cache", "/var/log/app.log", "/srv/ftp/in"),
        ),
        Choice(
            "the path decides who may do what",
            ("a dangerous path that root trusts", "a dangerous place to write"),
            each("path", "/etc/passwd", "/etc/cron.d", "/etc/sudoers.d", "/usr/local/bin"),
        ),
    ),
    two=(
        Choice(
            "the sticky bit protects it",
            ("sticky as expected", "with the expected sticky bit"),
        ),
        Choice("nothing protects it", ("in doubtful shape without a sticky bit", "doubtful: no sticky bit")),
        Choice(
            "a service account has written there",
            ("with a confirmed write by nobody", "with a confirmed write by www-data"),
        ),
    ),
    grid=("ilm", "lmh", "mhc"),
    titles=("World-writable path", "{path} is writable", "Permission scan of {host}"),
    descriptions=(
        "{host} has {one}, {two}.",
        "Anybody may write to {one}, {two}.",
        "{path} on {host} is world-writable, {two}.",
    ),
    metadata=("path",),
    then={},
    aside=ON_HOST,
)

HOST = (MODULES, SUID, WORLD_WRITABLE)
