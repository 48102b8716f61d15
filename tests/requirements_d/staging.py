"""What the engine promises of sandboxes: staging, releasing, and what a kill leaves."""

REQUIREMENTS: dict[str, str] = {
    "STAGE-1": "what a run changes stays in its layers until it is committed or discarded, as the fleet's `commit` or a person says",
    "STAGE-2": "agents of one run share its files; of two calls that met at a path the second is refused and leaves nothing",
    "STAGE-3": "a call that is cut, crashes or breaks its contract leaves nothing and is in doubt only if it let a write out",
    "STAGE-4": "`finished` has the kernel's counters, `intent` says in what a call acts; what nothing isolates stages nothing",
    "STAGE-5": "a run goes on in another process, with its own workspace, from its layers; a lost or damaged layer is refused",
    "STAGE-6": "an undo in a sandbox is staged like all else, also after a commit",
    "STAGE-7": "a stopped run's sandboxes are gone at once",
    "STAGE-8": "a plain user has all of it where the machine lets them; what it cannot bound is refused",
    "RELEASE-1": "people are asked for a commit by what was seen, on a card with its lines; their no writes nothing, late is no",
    "RELEASE-2": "a yes is for one release, once: another layer, workspace, request or policy asks again",
    "RELEASE-3": "no other name, spelling, link or class of a tool keeps a rule on what was seen from asking",
    "RELEASE-4": "requests that were held back are sent at the commit, once, with secrets then; what was cut is in doubt, never repeated",
    "RELEASE-5": "a commit that is killed anywhere leaves all of it or nothing; the next order ends it under the yes that it used",
    "RELEASE-6": "a run that lives is not committed; of two commits at once one wins",
    "RELEASE-7": "some of the paths can be committed or discarded, the others stay",
    "KILL-1": "a kill of the kernel at any stage of a call leaves no process, mount, group or id; the call is made again, or is in doubt",
}
