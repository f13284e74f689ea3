"""Small labelled Solidity contracts for the samples: each kind with a flaw and mended, under several names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

NAMES = ("Vault", "Shop")


@dataclass(frozen=True)
class Kind:
    """A flaw that may stand in a contract: what is wrong, how bad it is, the line that has it and the line without."""

    flaw: str
    severity: str
    description: str
    quality: int
    before: tuple[str, ...]
    wrong: tuple[str, ...]
    right: tuple[str, ...]


BALANCES = "    mapping(address => uint256) public balances;"
OWNER = "    address public owner = msg.sender;"
ONLY = '        require(msg.sender == owner, "not the owner");'
KINDS = (
    Kind(
        "reentrancy", "critical", "The balance is cleared after the call that may come back.", 20,
        (BALANCES, "    function withdraw() external {", "        uint256 sum = balances[msg.sender];"),
        ('        (bool sent, ) = msg.sender.call{value: sum}("");', "        balances[msg.sender] = 0;",
         "        require(sent);"),
        ("        balances[msg.sender] = 0;", '        (bool sent, ) = msg.sender.call{value: sum}("");',
         "        require(sent);"),
    ),
    Kind(
        "tx_origin", "high", "tx.origin is the first caller, whom any contract in between can borrow.", 40,
        (OWNER, "    function pay(address payable to) external {"),
        ("        require(tx.origin == owner);", "        to.transfer(address(this).balance);"),
        ("        require(msg.sender == owner);", "        to.transfer(address(this).balance);"),
    ),
    Kind(
        "missing_access_control", "critical", "Anybody may take over the contract.", 15,
        (OWNER, "    function give(address next) external {"),
        ("        owner = next;",),
        (ONLY, "        owner = next;"),
    ),
    Kind(
        "unchecked_send", "medium", "A payment that fails goes unnoticed.", 55,
        (BALANCES, "    function refund(address payable to) external {", "        uint256 sum = balances[to];",
         "        balances[to] = 0;"),
        ("        to.send(sum);",),
        ("        require(to.send(sum));",),
    ),
    Kind(
        "integer_overflow", "high", "Unchecked arithmetic wraps around below zero.", 35,
        (BALANCES, "    function move(address to, uint256 sum) external {"),
        ("        unchecked { balances[msg.sender] -= sum; }", "        balances[to] += sum;"),
        ("        balances[msg.sender] -= sum;", "        balances[to] += sum;"),
    ),
    Kind(
        "weak_randomness", "medium", "A miner chooses the time of the block.", 45,
        ("    address[] public players;", "    function draw() external view returns (address) {"),
        ("        return players[block.timestamp % players.length];",),
        ("        return players[uint256(seed) % players.length];",),
    ),
    Kind(
        "selfdestruct", "high", "Anybody may end the contract and take what it holds.", 25,
        (OWNER, "    function close() external {"),
        ("        selfdestruct(payable(msg.sender));",),
        (ONLY, "        payable(owner).transfer(address(this).balance);"),
    ),
    Kind(
        "delegatecall", "critical", "Code of the caller's choice runs with this contract's storage.", 10,
        (OWNER, "    function run(address code, bytes calldata data) external {"),
        ("        (bool done, ) = code.delegatecall(data);", "        require(done);"),
        (ONLY, "        (bool done, ) = trusted.delegatecall(data);", "        require(done);"),
    ),
)  # fmt: skip


def contracts() -> Iterator[dict[str, Any]]:
    """Rows of source_code, vulnerabilities and quality_score (0 to 100); every second one has no flaw."""
    for name in NAMES:
        for kind in KINDS:
            yield row(kind, name, flawed=True)
            yield row(kind, name, flawed=False)


def row(kind: Kind, name: str, *, flawed: bool) -> dict[str, Any]:
    body = [*kind.before, *(kind.wrong if flawed else kind.right), "    }"]
    extra = [f"    {line}" for line in DECLARED if not flawed and line.split()[-1][:-1] in "\n".join(body)]
    source = ["pragma solidity ^0.8.20;", f"contract {name}{kind.flaw.title().replace('_', '')} {{", *extra, *body, "}"]
    found = (
        {"type": kind.flaw, "severity": kind.severity, "line_number": source.index(kind.wrong[0]) + 1} if flawed else {}
    )
    vulnerabilities = [{**found, "description": kind.description}] if flawed else []
    return {
        "source_code": "\n".join(source) + "\n",
        "vulnerabilities": vulnerabilities,
        "quality_score": kind.quality if flawed else 90,
    }


DECLARED = ("bytes32 public seed;", "address public trusted;")
