"""Requirements of the project itself: what it ships, how it is imported, how it is built."""

REQUIREMENTS: dict[str, str] = {
    "PROJECT-1": "every public name of `midwatch` is listed, sorted, and can be imported",
    "PROJECT-2": "importing `midwatch`, or asking for its help, loads no heavy library",
    "PROJECT-3": "each requirement has a test, and each test's requirement exists",
    "PROJECT-4": "imports between rooms go one way, and a room that breaks this is reported",
    "PROJECT-5": "no function is longer than 60 lines and no module longer than 500",
    "PROJECT-6": "every link, make target, command, exit code and decision that the documents name exists",
    "PROJECT-7": "the lock file names exact versions and no place, and covers every dependency of an install",
    "PROJECT-8": "set-up repairs an environment that cannot be used, and leaves a ready one alone",
}
