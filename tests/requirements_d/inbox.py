"""What the inbox promises: links, messages, pages, the API."""

REQUIREMENTS: dict[str, str] = {
    "INBOX-1": "A link opens only what it was signed for, and every forged one looks the same.",
    "INBOX-2": "A message shows exactly what is asked, and nothing that an agent wrote steers the channel.",
    "INBOX-3": "A channel is told at least once, signed, again after a failure, and no more once the question is over.",
    "INBOX-4": "A link answers once, by POST, with the rights of its person; looking at it changes nothing.",
    "INBOX-5": "The API knows people by token, in the header only, and holds them to role, reach and distance.",
    "INBOX-6": "A page of another site, another name for this machine and a large body are refused.",
    "INBOX-8": "Whoever tells channels may die, hang, race or lack a variable: each question is told, and by one at a time.",
    "INBOX-9": "The server listens where it is told, warns of what that opens, and stops in order; nothing beside it ends it.",
    "INBOX-7": "The command line answers, edits, reviews and measures what waits, as the person that a token names.",
}
