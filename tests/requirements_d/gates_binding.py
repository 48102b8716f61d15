"""What gates promise about the action they are bound to."""

REQUIREMENTS: dict[str, str] = {
    "GATES-3": "A yes reaches the one action it was given for, whatever waits beside it and whatever is answered first.",
    "GATES-4": "A yes holds only while the target is as it was; what cannot be read is not touched.",
    "GATES-5": "A run goes on under another policy, fleet or graph only by a person's word, and earlier yeses do not count then.",
    "GATES-6": "Every rule that applies adds its need, and each of its keys must match.",
    "GATES-7": "A gate that nobody answered in time is a no; the first answer stands.",
    "GATES-8": "A batch answers the very same action and no other.",
    "GATES-9": "A rule that nobody in this home could meet refuses the run.",
    "GATES-10": "Whatever dies wherever: no yes is lost or bound to another action, and no call is made more often than allowed.",
}
