"""Requirements of containment over whole runs."""

REQUIREMENTS: dict[str, str] = {
    "CONTAIN-1": "What a stranger's words may have led to waits for a person, who sees what lacks what; without them nobody is asked.",
    "CONTAIN-2": "Where nobody has the reach, the call is denied as data, with a hint and without the value.",
    "CONTAIN-3": "A grant that binds all that matters decides in advance; another value asks, and two grants do not combine.",
    "CONTAIN-4": "A value carries the label of the field it stood in whole: of request, service or source; not of a text around it.",
    "CONTAIN-5": "A synthesis has what all specialists had; specialists have their own; agents of one's own graph share one trail.",
    "CONTAIN-6": "Labels are the same after a wait, a kill and in another process.",
    "CONTAIN-7": "Recording changes nothing but the record.",
    "CONTAIN-8": "What cannot be judged is denied where it is enforced, and harms no run where it is recorded.",
    "CONTAIN-9": "No way around: files, errors, pages, keys, plans, programs and changed tools carry the labels of what is behind them.",
    "CONTAIN-11": "What came before is read once a segment, whoever asks.",
    "CONTAIN-12": "The examples need nobody for what they are for, recording and enforcing.",
    "CONTAIN-10": "A commit carries the labels of its calls; what strangers may have led to waits unless a grant bound where it lies.",
}
