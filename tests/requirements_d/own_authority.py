"""Requirements of our own authority as versioned resources."""

REQUIREMENTS: dict[str, str] = {
    "OWN-1": "every part of a fleet's configuration is a versioned resource; what a run of ours wrote of it is pending and inert",
    "OWN-2": "an endorsement is of one digest in the place of another, by an approver whose reach covers it and who did not ask for it",
    "OWN-3": "an invalid configuration never replaces a valid one; what cannot be put back is refused before any of its code is loaded",
    "OWN-4": "a tool that differs from what was endorsed of it is withheld, and the others go on",
    "OWN-5": "versions are kept alike on every store; each is answered once, whoever comes at the same time",
    "OWN-6": "`grants` lists, shows, endorses and rejects on the command line, with `--json`",
    "OWN-7": "`policy simulate` judges recorded calls under a changed fleet, and tells what differs and what cannot be judged",
}
