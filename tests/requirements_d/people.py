"""What gates promise about people."""

REQUIREMENTS: dict[str, str] = {
    "PEOPLE-1": "Where a home knows people by token, nobody speaks without one; where it knows none, whoever is there does.",
    "PEOPLE-2": "Who asked does not answer with a yes.",
    "PEOPLE-3": "A word needs the role that is asked, and a yes a reach that covers the action.",
    "PEOPLE-4": "A quorum counts different people, of the same asking; one no is enough.",
    "PEOPLE-5": "An escalation lets another role answer from its time on, not before.",
    "PEOPLE-6": "A broken glass counts, is marked, and waits for the review of somebody else.",
    "PEOPLE-7": "An edit makes another action: every guard again, earlier words void, no gate talked away.",
    "PEOPLE-8": "An agent can ask a person in words; the answer reaches it as data, and silence is a no.",
    "PEOPLE-9": "A canary cannot be told from a gate, runs nothing, and shows who does not read.",
}
