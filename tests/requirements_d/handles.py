"""Requirements of handles and of the isolated reader."""

REQUIREMENTS: dict[str, str] = {
    "HANDLE-1": "What comes behind a handle is shown to no model and leaves the context as it was.",
    "HANDLE-2": "A handle that is passed on brings its value, and the label of that value, never a better one.",
    "HANDLE-3": "Only a whole text that is a handle of one's own run and agent opens; whatever else is text, or the same refusal.",
    "HANDLE-4": "Failures, pages and what a tool repeats of a handle stay behind handles.",
    "HANDLE-5": "Handles are the same after a wait, a kill and in another process.",
    "HANDLE-6": "`midwatch handles` shows whose words stand behind each handle, and the value only where it is asked for.",
    "READER-1": "The isolated reader sees a question and values, and nothing else; its facts carry the label of what it read.",
    "READER-2": "An answer of the reader that is not what was asked for is an error that quotes nothing of it.",
    "READER-3": "Readings are counted for each run and paid for like every model call.",
}
