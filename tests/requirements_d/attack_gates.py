"""What attacks on gates, people and undo must not reach."""

REQUIREMENTS: dict[str, str] = {
    "ATTACK-1": "Who speaks is looked up again in the transaction in which the word counts: rights taken back meanwhile are gone.",
    "ATTACK-2": "A yes whose giver lost the role, the reach or every right before the action runs allows nothing: it is asked again.",
    "ATTACK-3": "What was edited keeps every need of the first asking, also when it is asked again or cut and repeated.",
    "ATTACK-4": "A person's no holds in the run: under other rules, for a repetition, and without asking the same thing twice.",
    "ATTACK-5": "One gate that cannot hear a person, of an ended run or already spoken to, does not silence the rest of a batch.",
    "ATTACK-6": "Undo runs nothing that the reach of whoever orders it does not cover, and nothing twice.",
    "ATTACK-7": "A role rule reads every value of that role: keys, list items, numbers and truth values too.",
    "ATTACK-8": "What a person gives, a token file or an answer, may be of any shape and size and is refused in bounded time.",
    "ATTACK-9": "A made-up question answers an edit as a real one does, differs from the real action, and blames nobody who changed it.",
    "ATTACK-10": "Who started a run under the login name does not approve it under the same name with a token.",
    "ATTACK-11": "What a card is made of is bounded: arguments with many texts do not hold the home.",
    "ATTACK-12": "A channel that speaks for somebody is led elsewhere only by that somebody or an admin.",
    "ATTACK-13": "An agent that varies what it asks wears nobody down: after so many nos in a run nobody is asked any more.",
    "ATTACK-14": "A name of one's own choice is one plain name, so that no record reads as if several people, or others, had spoken.",
}
