"""What looking into runs promises."""

REQUIREMENTS: dict[str, str] = {
    "LOOK-1": "`runs diff` finds the first part in which two runs differ, and nothing where only ids do.",
    "LOOK-2": "`runs state` gives what each place in the graph held at a checkpoint.",
}
