"""Requirements of state that an older or a newer version wrote."""

REQUIREMENTS: dict[str, str] = {
    "STATE-1": "A run that waits in an older home goes on under this version; its next checkpoints carry the version of today's form.",
    "STATE-2": "What an older version kept is read in today's form, values and pending writes alike, and a step may come twice.",
    "STATE-3": "A state that this version does not know is refused before the run is touched, and nothing of it is lost.",
}
