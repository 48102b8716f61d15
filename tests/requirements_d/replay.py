"""What replay and export promise."""

REQUIREMENTS: dict[str, str] = {
    "REPLAY-1": "A recorded run of 200 steps with fan-out replays to identical bytes in another process, hash seed and order of answers.",
    "REPLAY-2": "One changed recorded byte is found at exactly the event that holds it; a forged record parts where its node got it.",
    "REPLAY-3": "A replay performs nothing, needs nothing but the record, and its exit code says whether it was identical.",
    "REPLAY-4": "Runs with gates, denials, kills, bounds and failures replay up to where they stand.",
    "REPLAY-5": "What cannot be replayed is refused with the reason.",
    "EXPORT-1": "An archive is read without trusting it: names, sizes, hashes; nothing of it reaches a disk.",
}
