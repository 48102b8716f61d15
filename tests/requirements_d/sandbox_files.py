"""Requirements of what sandboxes do to files: what is seen of it, what is kept, what comes out."""

REQUIREMENTS: dict[str, str] = {
    "FILES-1": "A layer file is whole or absent, is its owner's alone, and gives back exactly what was put in or says that it cannot.",
    "FILES-2": "A run's layers fold into one change a path, relative to what the workspace held before the run.",
    "FILES-3": "Two calls that did not see each other and touched the same place are told by the paths where they met.",
    "FILES-4": "Whatever programs do below a real overlay, the layers read from it rebuild the same tree over a fresh workspace.",
    "FILES-5": "What an overlay's upper folder holds is read as data: no name, link, mark, hole, depth or number leads out or hangs.",
    "FILES-6": "A call's layer tells only what that call changed, with the hash that it found and the hash before the run.",
    "FILES-7": "Files that grant later power are known by any spelling that a disk or a program would take for the same name.",
    "FILES-8": "A person is needed for every flagged change, and a yes holds for one release, to the byte.",
    "FILES-9": "A commit compares with the live files first: one conflict, and nothing at all is written.",
    "FILES-10": "A commit that is killed at any step is finished or undone by the next one, to exactly one of the two states.",
    "FILES-11": "A commit writes nothing outside of the workspace, through no link, and gives away no setuid, device or foreign mode.",
    "FILES-12": "Committing twice changes nothing the second time.",
    "FILES-13": "An edit between the check and the writing is a conflict, and is not lost.",
    "FILES-14": "What was read or executed is told with the hash of its content; what is too large, with size and time, and as such.",
}
