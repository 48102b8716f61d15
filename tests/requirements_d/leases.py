"""Requirements of leases on shared resources."""

REQUIREMENTS: dict[str, str] = {
    "LEASE-1": "Of two calls that write to one shared resource at once, the later one is told who writes there, and does nothing.",
    "LEASE-2": "A lease ends with its call; of a call that was cut it stays until it runs out or a person releases it.",
    "LEASE-3": "A call whose lease was taken meanwhile is fenced: before it begins it does nothing, after that it waits for a person.",
    "LEASE-4": "`midwatch leases ls` and `release` show and release them; a release has a person and a reason in the ledger.",
}
