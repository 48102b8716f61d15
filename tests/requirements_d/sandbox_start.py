"""Requirements of what is there before a sandbox is asked for, so that its start is short."""

REQUIREMENTS: dict[str, str] = {
    "SBXSTART-1": "who stands by becomes the next sandbox, with that one's bounds, in every control group",
    "SBXSTART-2": "who stands by ends with its backend and its launcher, and one that died is replaced",
    "SBXSTART-3": "what all sandboxes see as `/etc` is read-only, the same for all, and shows no more than each could read before",
    "SBXSTART-4": "a user's tool is run anew in each call's own process, as it stands on the machine by then",
}
