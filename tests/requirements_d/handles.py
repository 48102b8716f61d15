"""Requirements of handles and of the isolated reader."""

REQUIREMENTS: dict[str, str] = {
    "HANDLE-1": "What comes behind a handle is shown to no model and leaves the context as it was.",
    "HANDLE-2": "A handle that is passed on brings its value, and the label of that value, never a better one.",
}
